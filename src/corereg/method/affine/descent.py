"""Find the minimum of a smooth function of few parameters: BFGS. Downstream: `search`.

Source: Nocedal and Wright, "Numerical Optimization", 2006, chapters 3 and 6.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["descend"]

ENOUGH, FLATTER = 1e-4, 0.9
"""A step is accepted if it gains this share of what the slope promises, and is lengthened if this share of the slope is
left at its end."""
TRIALS = 12
"""Steps tried along one direction."""
SHORTER, LONGER = (0.1, 0.5), 2.0
"""Bounds of the factor by which a step too long is shortened, and the factor by which one too short is lengthened."""

Parameters = NDArray[np.float64]
Loss = Callable[[Parameters], tuple[float, Parameters]]
Point = tuple[Parameters, float, Parameters]


def descend(
    loss: Loss,
    size: int,
    *,
    iterations: int,
    slope: float,
    gain: float,
    stop: Callable[[Parameters], bool] = lambda parameters: False,
) -> tuple[Parameters, float]:
    """The parameters (size,) at which the loss is least, searched from 0, and that loss.

    Args:
        loss: the value and its derivatives, (size,). At the start it should curve by about 1 per squared unit.
        slope: the search ends where no derivative is larger.
        gain: the search ends once a step has gained less, and the next one promises less.
        stop: ends the search at parameters for which it is true.
    """
    origin = np.zeros(size)
    here: Point = (origin, *loss(origin))
    inverse = np.eye(size)
    gained = np.inf
    for _ in range(iterations):
        if np.abs(here[2]).max() < slope:
            break
        step = -inverse @ here[2]
        promised = -float(here[2] @ step)
        if gained < gain and promised / 2 < gain:
            break
        length = 1.0 if np.isfinite(gained) else min(1.0, 1 / float(np.linalg.norm(here[2])))
        there = _along(loss, here, step, promised, length)
        if there is None:
            break
        gained = here[1] - there[1]
        inverse = _updated(inverse, there[0] - here[0], there[2] - here[2])
        here = there
        if stop(here[0]):
            break
    return here[:2]


def _along(loss: Loss, here: Point, step: Parameters, promised: float, length: float) -> Point | None:
    """A clearly better point in the direction of the step; None if there is none."""
    found: Point | None = None
    shortened = False
    for _ in range(TRIALS):
        place = here[0] + length * step
        value, slopes = loss(place)
        too_long = not value <= here[1] - ENOUGH * length * promised
        if found is not None and (too_long or value >= found[1]):
            return found
        if too_long:
            parabola = length * promised / (2 * (value - here[1] + length * promised))
            length *= min(max(parabola, SHORTER[0]), SHORTER[1])
            shortened = True
            continue
        found = place, value, slopes
        if -float(slopes @ step) <= FLATTER * promised or shortened:
            return found
        length *= LONGER
    return found


def _updated(inverse: Parameters, step: Parameters, change: Parameters) -> Parameters:
    """The inverse of the second derivatives, after the slope changed like this over a step."""
    curved = float(step @ change)
    if curved <= 0:
        return inverse
    kept = np.eye(len(step)) - np.outer(step, change) / curved
    return np.asarray(kept @ inverse @ kept.T + np.outer(step, step) / curved)
