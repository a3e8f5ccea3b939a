"""Accuracy of a registration: overlap, surface distance, landmark error and inverse consistency.

Formulas of the Learn2Reg and LUMIR challenges, in numpy and float64, independent of the code that they judge.
Upstream: a displacement, label maps or landmarks. Downstream: `metrics`, which re-exports these functions.

Legend: disp_vox (3, I, J, K), u(x) in voxels of the fixed grid, component a along array axis a;
warped(x) = moving(x + u(x)). I J K voxel axes in array order.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corereg.errors import InputError
from corereg.evaluation.metrics.regularity import check_field
from corereg.evaluation.metrics.surface_distance import Spacing, robust_hausdorff

__all__ = ["dice", "hd95", "inverse_consistency_mm", "mean_dice", "mean_over_labels", "tre", "warp_labels"]

Labels = NDArray[Any]
Field = NDArray[Any]
Points = NDArray[Any] | Sequence[Sequence[float]]

BACKGROUND = 0
LANDMARK_SPLINE_ORDER: Final = 3
"""Learn2Reg evaluation: the field is read at landmarks by scipy's default, a cubic spline."""


def warp_labels(labels: Labels, disp_vox: Field, *, other_shape: bool = False) -> Labels:
    """Pull a label map back through a displacement, with nearest-neighbour sampling, exactly as the challenge does.

    Args:
        labels: (I, J, K), integers, on the grid of `disp_vox`.
        disp_vox: (3, I, J, K), voxels.
        other_shape: accept labels (X, Y, Z) of another shape; x + u(x) is then an index into these.

    Returns: (I, J, K), same type: the label at index floor(p + 0.5) with p = x + u(x), and 0 where a component of p is
        NaN, below 0 or above S - 1, so the image ends at its outermost voxel centres.
    Raises:
        InputError: the shapes do not match.
    Source: Learn2Reg evaluation, `map_coordinates(labels, identity + u, order=0)`.
    """
    check_field(disp_vox, None if other_shape else labels)
    shape = disp_vox.shape[1:]
    inside = np.ones(shape, bool)
    flat_index = np.zeros(shape, np.intp)
    for axis, size in enumerate(labels.shape):
        steps = np.arange(shape[axis], dtype=np.float64).reshape([-1 if a == axis else 1 for a in range(3)])
        position = steps + np.asarray(disp_vox[axis], np.float64)
        inside_axis = (position >= 0) & (position <= size - 1)
        inside &= inside_axis
        nearest = np.floor(np.where(inside_axis, position, 0.0) + 0.5).astype(np.intp)
        flat_index = flat_index * size + nearest
    return np.where(inside, labels.reshape(-1)[flat_index], labels.dtype.type(BACKGROUND))


def dice(
    fixed_labels: Labels,
    warped_labels: Labels,
    moving_labels: Labels | None = None,
    labels: Iterable[int] | None = None,
) -> dict[int, float]:
    """Dice overlap 2 |F and W| / (|F| + |W|) of each label.

    Args:
        fixed_labels, warped_labels: (I, J, K), integers, on the fixed grid.
        moving_labels: any shape, the labels before warping; they decide whether the moving image has a label at all.
        labels: labels to score; by default all but 0 in the fixed and in the moving (if not given, the warped) labels.

    Returns: label -> 0..1, NaN if the label is absent from the fixed or the unwarped moving labels.
    Raises:
        InputError: fixed and warped labels differ in shape.
    Source: Learn2Reg evaluation, `compute_dice`.
    """

    def overlap(fixed: NDArray[np.bool_], warped: NDArray[np.bool_]) -> float:
        return float(2 * np.count_nonzero(fixed & warped) / (np.count_nonzero(fixed) + np.count_nonzero(warped)))

    return _score(overlap, fixed_labels, warped_labels, moving_labels, labels)


def hd95(
    fixed_labels: Labels,
    warped_labels: Labels,
    moving_labels: Labels | None = None,
    labels: Iterable[int] | None = None,
    *,
    spacing_mm: Spacing | None = None,
) -> dict[int, float]:
    """95 % Hausdorff distance between the surfaces of each label.

    Args:
        fixed_labels, warped_labels, moving_labels, labels: as for `dice`.
        spacing_mm: voxel size along i, j, k, for distances in mm; by default in voxels, as the challenge measures.

    Returns: label -> distance, NaN as for `dice`, infinite if the warped labels have lost the label.
    Raises:
        InputError: fixed and warped labels differ in shape.
    Source: Learn2Reg evaluation, `compute_hd95`; see `surface_distance`.
    """
    spacing = (1.0, 1.0, 1.0) if spacing_mm is None else spacing_mm

    def distance(fixed: NDArray[np.bool_], warped: NDArray[np.bool_]) -> float:
        return robust_hausdorff(fixed, warped, spacing=spacing)

    return _score(distance, fixed_labels, warped_labels, moving_labels, labels)


def mean_over_labels(scores: Mapping[int, float]) -> float:
    """Mean score of a case, ignoring NaN; NaN if no score is known. Source: Learn2Reg evaluation."""
    known = [score for score in scores.values() if not np.isnan(score)]
    return float(np.mean(known)) if known else float("nan")


def mean_dice(
    fixed_labels: Labels,
    warped_labels: Labels,
    moving_labels: Labels | None = None,
    labels: Iterable[int] | None = None,
) -> float:
    """Dice of a case: the mean of `dice` over the labels that fixed and moving share. Arguments as for `dice`."""
    return mean_over_labels(dice(fixed_labels, warped_labels, moving_labels, labels))


def tre(
    disp_vox: Field,
    fixed_landmarks_vox: Points,
    moving_landmarks_vox: Points,
    spacing_moving_mm: Spacing,
) -> NDArray[np.float64]:
    """Target registration error: distance between each warped landmark and its counterpart.

    Args:
        disp_vox: (3, I, J, K), voxels.
        fixed_landmarks_vox, moving_landmarks_vox: (N, 3), voxel coordinates, each in its own image.
        spacing_moving_mm: voxel size of the moving image along i, j, k.

    Returns: (N,), mm: || (p_fixed + u(p_fixed) - p_moving) * spacing ||; a case's score is its mean. The field is
        interpolated by a cubic spline and taken as 0 at landmarks outside the grid.
    Raises:
        InputError: the landmarks are not (N, 3), or the two lists differ in length.
    Source: Learn2Reg evaluation, `compute_tre`.
    """
    check_field(disp_vox)
    fixed = np.asarray(fixed_landmarks_vox, np.float64)
    moving = np.asarray(moving_landmarks_vox, np.float64)
    if fixed.shape != moving.shape or fixed.ndim != 2 or fixed.shape[1] != 3:
        raise InputError(
            f"got landmarks of shapes {fixed.shape} and {moving.shape}, expected (N, 3) for both, where row n of one "
            "matches row n of the other"
        )
    disp = [
        ndimage.map_coordinates(np.asarray(component, np.float64), fixed.T, order=LANDMARK_SPLINE_ORDER)
        for component in disp_vox
    ]
    offsets_mm = (fixed + np.stack(disp, -1) - moving) * np.asarray(spacing_moving_mm, np.float64)
    return np.asarray(np.linalg.norm(offsets_mm, axis=1))


def inverse_consistency_mm(disp_vox: Field, back_vox: Field, spacing_mm: Spacing) -> NDArray[np.float64]:
    """Inverse consistency error: how far from its start a point ends up after one field and then the opposite one.

    Args:
        disp_vox, back_vox: (3, I, J, K) each, voxels of one grid: x -> x + u(x), and back y -> y + v(y).
        spacing_mm: voxel size along i, j, k.

    Returns: (N,), mm: || u(x) + v(x + u(x)) || at the N voxels x for which x + u(x) lies inside the grid, with v
        linear between voxels; a case's score is its mean.
    Raises:
        InputError: the fields differ in shape.
    """
    check_field(disp_vox)
    if disp_vox.shape != back_vox.shape:
        raise InputError(
            f"got fields of shapes {disp_vox.shape} and {back_vox.shape}, expected the same shape; resample one"
        )
    index = np.indices(disp_vox.shape[1:], np.float64)
    there = index + disp_vox
    sizes = np.reshape(disp_vox.shape[1:], (3, 1, 1, 1))
    inside = ((there >= 0) & (there <= sizes - 1)).all(0)
    at = there[:, inside]
    back = np.stack([ndimage.map_coordinates(np.asarray(component, np.float64), at, order=1) for component in back_vox])
    missed = (at + back - index[:, inside]) * np.reshape(np.asarray(spacing_mm, np.float64), (3, 1))
    return np.asarray(np.linalg.norm(missed, axis=0))


def _score(
    measure: Callable[[NDArray[np.bool_], NDArray[np.bool_]], float],
    fixed_labels: Labels,
    warped_labels: Labels,
    moving_labels: Labels | None,
    labels: Iterable[int] | None,
) -> dict[int, float]:
    """A measure of each label, NaN if the label is absent from the fixed or the moving labels."""
    if fixed_labels.shape != warped_labels.shape:
        raise InputError(
            f"got fixed labels of shape {fixed_labels.shape} and warped labels of shape {warped_labels.shape}, "
            "expected the same grid; warp the moving labels onto the fixed grid first"
        )
    in_fixed = set(np.unique(fixed_labels).tolist())
    in_moving = None if moving_labels is None else set(np.unique(moving_labels).tolist())
    if labels is None:
        others = set(np.unique(warped_labels).tolist()) if in_moving is None else in_moving
        labels = sorted((in_fixed | others) - {BACKGROUND})
    scores = {}
    for label in labels:
        known = label in in_fixed and (in_moving is None or label in in_moving)
        scores[int(label)] = measure(fixed_labels == label, warped_labels == label) if known else float("nan")
    return scores
