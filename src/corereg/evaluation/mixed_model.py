"""A linear mixed model for scores of pairs that share scans: the error of their mean, and whether the mean is zero.

score(fixed, moving) = mean + effect(fixed) + effect(moving) + residual, with normal effects. If any scan has both
roles, scans have one effect in both; otherwise each role has a variance of its own. The variances are estimated by
REML. The mean stays the plain mean over pairs, so only its standard error changes.

N pairs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float
from scipy import linalg, optimize, stats

__all__ = ["Estimate", "estimate", "share_scans"]

Scores = Float[np.ndarray, " N"]
Covariance = Float[np.ndarray, "N N"]

STEADY: Final = 1e-9
"""Matrices count as dependent, and a variance as zero, below this fraction of the largest."""

LARGEST: Final = 1e3
"""Largest standard deviation of the scans' effects, relative to the residual's: above it, matrices are singular."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, its standard error, and Satterthwaite's degrees of freedom."""

    mean: float
    error: float
    freedom: float

    @property
    def p(self) -> float:
        """Two-sided p of the t-test against zero."""
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.freedom))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Confidence interval of the mean."""
        half = self.error * float(stats.t.ppf((1 + confidence) / 2, self.freedom))
        return self.mean - half, self.mean + half


def share_scans(pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether any scan is in more than one pair."""
    scans = [scan for pair in pairs for scan in set(pair)]
    return len(set(scans)) < len(scans)


def estimate(scores: Scores, pairs: Sequence[tuple[str, str]]) -> Estimate | None:
    """The mean of `scores`, with an error that takes shared scans into account. None if the scores do not differ.

    An effect that these pairs cannot separate from the mean or the residual is left out: with one fixed scan for all
    pairs, the result holds for that scan.

    Args:
        scores: finite, one for each pair.
        pairs: names of the fixed and the moving scan.

    Sources: Laird and Ware 1982, "Random-effects models for longitudinal data" (REML); Satterthwaite 1946.
    """
    count = len(scores)
    centred = scores - scores.mean()
    if count < 2 or np.abs(centred).max() <= STEADY * np.abs(scores).max():
        return None
    parts = _separable(_scan_covariances(pairs))
    ratios = _ratios(scores, parts)
    projection = _projection(_total(parts, ratios))
    residual = float(scores @ projection @ scores) / (count - 1)
    # Satterthwaite: twice the squared variance of the mean over the variance of that variance.
    of_mean = np.array([part.sum() for part in parts]) / count**2
    estimated = [place for place, ratio in enumerate(ratios) if ratio > STEADY]
    products = [projection @ parts[place] / residual for place in estimated]
    information = np.array([[(one * other.T).sum() / 2 for other in products] for one in products])
    variance = residual * float(of_mean @ ratios)
    slope = of_mean[estimated]
    freedom = 2 * variance**2 / float(slope @ np.linalg.solve(information, slope))
    return Estimate(float(scores.mean()), math.sqrt(variance), freedom)


def _ratios(scores: Scores, parts: Sequence[Covariance]) -> list[float]:
    """The REML variances of `parts`, relative to the residual's. The search is over standard deviations, as in lme4."""
    if len(parts) == 1:
        return [1.0]
    found = optimize.minimize(
        lambda relative: _deviance(scores, _total(parts, [1.0, *relative**2])),
        np.ones(len(parts) - 1),
        bounds=[(0, LARGEST)] * (len(parts) - 1),
        method="L-BFGS-B",
    )
    return [1.0, *map(float, found.x**2)]


def _scan_covariances(pairs: Sequence[tuple[str, str]]) -> list[Covariance]:
    """Covariance of the scores for a unit variance of the scans' effects."""
    fixed, moving = ([pair[role] for pair in pairs] for role in (0, 1))
    of_fixed, of_moving = _same(fixed, fixed), _same(moving, moving)
    if set(fixed).isdisjoint(moving):
        return [of_fixed, of_moving]
    swapped = _same(fixed, moving)
    return [of_fixed + of_moving + swapped + swapped.T]


def _same(first: Sequence[str], second: Sequence[str]) -> Covariance:
    same: Covariance = (np.array(first)[:, None] == np.array(second)).astype(np.float64)
    return same


def _separable(covariances: Sequence[Covariance]) -> list[Covariance]:
    """The residual's covariance, and those that differ from it and from one another once the mean is removed."""
    kept = [np.eye(len(covariances[0]))]
    for part in covariances:
        seen = np.stack([_centred(each).ravel() for each in (*kept, part)])
        sizes = np.linalg.svd(seen, compute_uv=False)
        if sizes[-1] > STEADY * sizes[0]:
            kept.append(part)
    return kept


def _centred(matrix: Covariance) -> Covariance:
    centred: Covariance = matrix - matrix.mean(0) - matrix.mean(1)[:, None] + matrix.mean()
    return centred


def _total(parts: Sequence[Covariance], ratios: Sequence[float]) -> Covariance:
    return np.tensordot(ratios, np.stack(parts), 1)


def _projection(total: Covariance) -> Covariance:
    """Inverse covariance with the mean projected out."""
    inverse = linalg.inv(total)
    sums = inverse.sum(1)
    projection: Covariance = inverse - np.outer(sums, sums) / sums.sum()
    return projection


def _deviance(scores: Scores, total: Covariance) -> float:
    """Minus twice the restricted log-likelihood, profiled over the mean and the scale, up to a constant."""
    factor = linalg.cholesky(total, lower=True)
    white, ones = (linalg.solve_triangular(factor, each, lower=True) for each in (scores, np.ones_like(scores)))
    weight = float(ones @ ones)
    rest = white - ones * float(ones @ white) / weight
    return (
        2 * float(np.log(np.diag(factor)).sum()) + math.log(weight) + (len(scores) - 1) * math.log(float(rest @ rest))
    )
