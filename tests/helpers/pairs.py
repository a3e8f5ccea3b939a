"""A fixed and a moving scan of the made-up patient."""

from functools import cache

from corereg.io.images.image import Image
from helpers.scenes import centred_grid, scan, wave

FIXED = centred_grid((48, 40, 36), (3.0, 3.0, 3.5))

MOVING = centred_grid((44, 42, 38), (3.2, 3.0, 3.3), "LPS", (4.0, -6.0, 3.0))


@cache
def pair() -> tuple[Image, Image]:
    """The moving image shows at q what the fixed one shows at wave(q)."""
    return scan(FIXED, name="fixed"), scan(MOVING, wave, name="moving")
