"""A small registration for other programs to show."""

from functools import cache
from typing import Any

from corereg.io.transforms.transform import Transform
from corereg.method.register import register
from helpers.scenes import centred_grid, scan, wave

FIXED = centred_grid((30, 27, 33), (4.2, 4.5, 4.0), "oblique")

MOVING = centred_grid((28, 31, 26), (4.4, 4.0, 5.0), "PIR", (-3.0, 2.0, 4.0))

QUICK: dict[str, Any] = {"affine": "none", "spacing": 4.5, "refine_steps": 4}


@cache
def registered() -> Transform:
    return register(scan(FIXED), scan(MOVING, wave), **QUICK).transform
