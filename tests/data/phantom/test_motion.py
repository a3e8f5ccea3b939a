"""Breathing motion of the phantom: known truth must be true."""

import numpy as np
from numpy.testing import assert_array_equal
from scipy import ndimage

from corereg.data.phantom import LABELS, BreathingPair, make_subject
from helpers.phantoms import COARSE_MM, DEFAULT_MM, body, coords_of, pair_of


def inside_moving(pair: BreathingPair) -> np.ndarray:
    """Fixed voxels of the body whose counterpart lies in the moving image."""
    last = np.array(pair.grid.shape)[:, None, None, None] - 1
    coords = coords_of(pair)
    return body(pair.fixed) & (coords >= 0).all(0) & (coords <= last).all(0)


def test_moving_at_x_plus_u_is_fixed(pair: BreathingPair) -> None:
    """Within interpolation error: the pair itself is not interpolated, the check is."""
    where = inside_moving(pair)
    errors = {}
    for name, coords in (("none", np.indices(pair.grid.shape)), ("u", coords_of(pair))):
        resampled = ndimage.map_coordinates(pair.moving, coords, order=3, mode="nearest")
        errors[name] = np.abs(resampled - pair.fixed)[where]
    assert errors["u"].mean() < 0.15 * errors["none"].mean()
    assert np.median(errors["u"]) < 8
    assert errors["none"].mean() > 80


def test_moving_labels_at_x_plus_u_are_the_fixed_labels(pair: BreathingPair, kind: str) -> None:
    resampled = ndimage.map_coordinates(pair.moving_labels, coords_of(pair), order=0)
    where = inside_moving(pair)
    for name in ("liver", "aorta"):
        a, b = (labels[where] == LABELS[kind][name] for labels in (resampled, pair.fixed_labels))
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9


def test_known_field_does_not_fold(pair: BreathingPair) -> None:
    jacobian = np.stack([np.stack(np.gradient(axis)) for axis in coords_of(pair)])
    assert np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1))).min() > 0.2


def test_breathing_moves_the_body_by_three_voxels_on_average(pair: BreathingPair) -> None:
    length_mm = COARSE_MM * np.linalg.norm(pair.disp_vox, axis=0)[body(pair.fixed)]
    assert 3 * DEFAULT_MM <= length_mm.mean() < 6 * DEFAULT_MM
    assert 20 < length_mm.max() < 35


def test_breathing_in_lowers_the_liver_and_raises_the_front(pair: BreathingPair, kind: str) -> None:
    liver = pair.fixed_labels == LABELS[kind]["liver"]
    assert COARSE_MM * pair.disp_vox[2][liver].mean() < -10
    trunk = np.argwhere(body(pair.fixed))
    front = trunk[trunk[:, 1] > np.percentile(trunk[:, 1], 95)]
    assert COARSE_MM * pair.disp_vox[1][tuple(front.T)].mean() > 4


def test_breathing_leaves_the_spine_at_rest() -> None:
    pair = pair_of("chest")
    spine = pair.fixed_labels == LABELS["chest"]["spine"]
    assert COARSE_MM * np.linalg.norm(pair.disp_vox, axis=0)[spine].mean() < 1.5


def test_moving_is_the_subject_of_the_same_seed(pair: BreathingPair, kind: str) -> None:
    image, labels, grid = make_subject(0, kind, COARSE_MM, noise_hu=0.0)
    assert_array_equal(pair.moving, image)
    assert_array_equal(pair.moving_labels, labels)
    assert pair.grid == grid
