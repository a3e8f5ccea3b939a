"""A fair working point: the regularisation R at which this package's fields have a given mean SDlogJ.

The search runs on validation pairs and needs no labels. If the same pairs are scored later, the report says so.
Upstream: `cases`, `method.register`. Downstream: `plan`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from corereg.evaluation.cases import Cases
from corereg.evaluation.metrics import sdlogj
from corereg.method.config import RegisterConfig
from corereg.method.refine.regularisation_search import search_regularisation
from corereg.method.register import register
from corereg.progress import Step

__all__ = ["WorkingPoint", "find_working_point"]


@dataclass(frozen=True, slots=True)
class WorkingPoint:
    """A value of R with the mean SDlogJ that it gives, the pairs it was measured on, and every (R, SDlogJ) tried."""

    regularisation: float
    sdlogj: float
    pairs: int
    split: str
    tried: tuple[tuple[float, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """The fields under their names in provenance.json, where the split is called "part"."""
        return {"part" if name == "split" else name: value for name, value in asdict(self).items()}


def find_working_point(
    cases: Cases,
    target: float,
    *,
    settings: dict[str, Any],
    affine: str,
    seed: int,
    progress: Callable[[str], None],
) -> WorkingPoint:
    """Search R so that the mean SDlogJ over the pairs is `target`, within the tolerance of a single pair's search.

    Args:
        cases: the pairs to search on.
        settings: further settings of `corereg.register`.
        affine, seed: as for `corereg.register`.
        progress: called with a line of text before each pair.
    """
    tried: list[tuple[float, float]] = []

    def irregularity(regularisation: float) -> tuple[float, None]:
        found = []
        for number, case in enumerate(cases.cases, start=1):
            words = f"R = {regularisation:.3g}: pair {number} of {len(cases.cases)}"
            progress(Step(words, number - 1, len(cases.cases)))
            own = {**settings, "affine": affine, "seed": seed, "regularisation": regularisation}
            result = register(case.fixed.image, case.moving.image, **own)
            found.append(sdlogj(result.refined.at(result.fixed.grid).disp_vox.numpy()))
        tried.append((regularisation, float(np.mean(found))))
        return tried[-1][1], None

    start = RegisterConfig().stages.refine.smoothness
    regularisation, _ = search_regularisation(irregularity, target=target, start=start)
    reached = dict(tried)[regularisation]
    return WorkingPoint(regularisation, reached, len(cases.cases), cases.split, tuple(tried))
