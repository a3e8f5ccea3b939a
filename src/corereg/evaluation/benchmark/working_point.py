"""A fair working point: the regularisation at which this package's fields are as irregular as asked, on average.

It is searched on validation pairs. It needs no labels, but where the same pairs are scored afterwards, that is said.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from corereg.evaluation.cases import Cases
from corereg.evaluation.metrics import sdlogj
from corereg.method.config import RegisterConfig
from corereg.method.refine.regularisation_search import search_regularisation
from corereg.method.register import register

__all__ = ["Matched", "match_sdlogj"]


@dataclass(frozen=True, slots=True)
class Matched:
    """R, the mean SDlogJ that it gives, over how many pairs, and all that was tried: (R, SDlogJ)."""

    regularisation: float
    sdlogj: float
    pairs: int
    part: str
    tried: tuple[tuple[float, float], ...]


def match_sdlogj(
    validation: Cases,
    target: float,
    *,
    settings: dict[str, Any],
    affine: str,
    seed: int,
    progress: Callable[[str], None],
) -> Matched:
    """Search R such that the mean SDlogJ over the pairs is `target` (within the tolerance of a single pair's search).

    Args:
        settings: of `corereg.register`, R aside.
    """
    tried: list[tuple[float, float]] = []

    def irregularity(regularisation: float) -> tuple[float, None]:
        found = []
        for number, case in enumerate(validation.cases, start=1):
            progress(f"R = {regularisation:.3g}: pair {number} of {len(validation.cases)}")
            result = register(
                case.fixed.image, case.moving.image, affine=affine, seed=seed, regularisation=regularisation, **settings
            )
            found.append(sdlogj(result.refined.at(result.fixed.grid).disp_vox.numpy()))
        tried.append((regularisation, float(np.mean(found))))
        return tried[-1][1], None

    start = RegisterConfig().stages.refine.regularisation
    regularisation, _ = search_regularisation(irregularity, target=target, start=start)
    reached = dict(tried)[regularisation]
    return Matched(regularisation, reached, len(validation.cases), validation.part, tuple(tried))
