"""Search for the regularisation weight with which a displacement reaches a target SDlogJ."""

import math
from collections.abc import Callable
from typing import TypeVar

__all__ = ["reached", "search_regularisation"]

TOLERANCE, TOLERATED_SHARE = 0.005, 0.1
"""Distance to the target SDlogJ that ends the search, at most this share of it."""
EVALUATIONS = 8
REGULARISATION_RANGE = (0.005, 5000.0)
"""Outside this range one of the energy's two terms no longer matters."""

TYPICAL_SLOPE = 0.4
"""Fall of log SDlogJ per unit of log R, as seen on head-and-neck CT; only the first steps of the search use it."""

Outcome = TypeVar("Outcome")


def reached(sdlogj: float, target: float) -> bool:
    """Whether an SDlogJ is near enough to a target."""
    return abs(sdlogj - target) <= min(TOLERANCE, TOLERATED_SHARE * target)


def search_regularisation(
    evaluate: Callable[[float], tuple[float, Outcome]], *, target: float, start: float
) -> tuple[float, Outcome]:
    """Find R with which SDlogJ(R) is `reached` in at most 8 evaluations; SDlogJ falls as R grows.

    Args:
        evaluate: R -> (SDlogJ, any outcome to keep with it).
        start: the R to try first.

    Returns: R and outcome of the evaluation that came closest.
    """
    lowest, highest = map(math.log, REGULARISATION_RANGE)
    position = min(max(math.log(max(start, REGULARISATION_RANGE[0])), lowest), highest)
    rough = smooth = None
    best: tuple[float, float, Outcome] | None = None
    for _ in range(EVALUATIONS):
        sdlogj, outcome = evaluate(math.exp(position))
        excess = math.log(max(sdlogj, 1e-9) / target)
        if best is None or abs(sdlogj - target) < best[0]:
            best = abs(sdlogj - target), math.exp(position), outcome
        if reached(sdlogj, target):
            break
        if excess > 0:
            rough = position, excess
        else:
            smooth = position, excess
        if rough and smooth:
            share = min(max(rough[1] / (rough[1] - smooth[1]), 0.15), 0.85)
            position = rough[0] + share * (smooth[0] - rough[0])
        elif position in (lowest, highest):
            break
        else:
            position = min(max(position + excess / TYPICAL_SLOPE, lowest), highest)
    assert best is not None
    return best[1], best[2]
