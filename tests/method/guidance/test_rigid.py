"""Rigid structures: they keep their shape in any world, the rest deforms as before, and nothing folds."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from corereg import Transform, register
from corereg.geometry.displacement import Displacement, jacobian_determinant
from corereg.io.images.image import Image
from corereg.method.guidance.rigid import RigidGuide, largest_deviation_mm
from helpers.grids import make_grid
from helpers.motions import motion
from helpers.pairs import FIXED, pair
from helpers.refusals import refusal
from helpers.scenes import centred_grid, voxels_mm, wave

WORKING = centred_grid((40, 36, 32), (3.0, 3.0, 3.0), "RAS")

AFFINE = motion(degrees=(5, 12, -8), scale=1.15, shift_mm=(20, -12, 7))


def two_spheres(grid: Any) -> Any:
    points = voxels_mm(grid)
    first = np.linalg.norm(points - [-15, 5, 0], axis=-1) < 12
    second = np.linalg.norm(points - [14, -6, 8], axis=-1) < 10
    return np.select([first, second], [4, 9], 0)


def test_structures_move_rigidly_through_an_affine_map() -> None:
    """The structures are 10 mm apart, so that each lies within what gives way to the other."""
    offsets = np.moveaxis(wave(voxels_mm(WORKING)) - voxels_mm(WORKING), -1, 0)
    start = Displacement.from_mm(torch.as_tensor(offsets, dtype=torch.float32), WORKING)
    labels = two_spheres(WORKING)
    found = Displacement(RigidGuide(labels, WORKING, (AFFINE,)).stiffener()(start.disp_vox[None])[0], WORKING)
    structures = Image(labels, WORKING)
    before, after = (largest_deviation_mm(structures, Transform((d, AFFINE), fixed=WORKING)) for d in (start, found))
    assert before > 1.5
    assert after < 0.01
    fine = centred_grid((70, 66, 60), (1.7, 1.7, 1.7), "LPS")
    between = Image(np.where(two_spheres(fine) == 4, 1, 0), fine)
    assert largest_deviation_mm(between, Transform((found, AFFINE), fixed=WORKING)) < 0.1, "also between its voxels"
    far = np.linalg.norm(voxels_mm(WORKING) - [50, 40, -40], axis=-1) < 25
    assert_allclose(found.disp_vox.numpy()[:, far], start.disp_vox.numpy()[:, far])
    assert float(jacobian_determinant(found.disp_vox[None]).min()) > 0.2


def test_deviation_is_that_of_the_worst_point_of_the_worst_structure() -> None:
    grid = make_grid((30, 26, 22), (2.0, 2.5, 3.0), "oblique")
    labels = np.zeros(grid.shape, np.int16)
    labels[5:15, 6:12, 4:10] = 1
    labels[18:28, 14:24, 12:20] = 2
    stretch = Transform((np.diag([1.1, 1.0, 1.0, 1.0]),), fixed=grid)
    points = grid.to_world(np.argwhere(labels == 2))
    expected = 0.1 * np.abs(points[:, 0] - points[:, 0].mean()).max()
    assert abs(largest_deviation_mm(Image(labels, grid), stretch) - expected) < 0.05 * expected
    turned = Transform((motion(degrees=(20, 5, -30), shift_mm=(5, 6, 7)),), fixed=grid)
    assert largest_deviation_mm(Image(labels, grid), turned) < 1e-9


def test_registration_keeps_a_rigid_structure_in_shape() -> None:
    structures = Image(two_spheres(FIXED), FIXED)
    settings: Any = {"affine": "none", "spacing": 4.0, "refine_steps": 15, "regularisation": 1.0}
    found = register(*pair(), rigid_labels=structures, **settings)
    free = register(*pair(), **settings)
    assert found.metrics["rigid_deviation_mm"] < 0.5
    assert largest_deviation_mm(structures, free.transform) > 2 * found.metrics["rigid_deviation_mm"]
    assert found.metrics["fold_percent"] == 0.0


def test_structure_stays_rigid_without_refinement() -> None:
    structures = Image(two_spheres(FIXED), FIXED)
    found = register(*pair(), rigid_labels=structures, affine="none", spacing=4.0, refine_steps=0)
    assert found.metrics["rigid_deviation_mm"] < 0.5


def test_negative_numbers_are_structures_and_tiny_ones_are_named() -> None:
    labels = -two_spheres(FIXED).astype(np.int16)
    labels[20, 20, 20] = 7
    assert (labels == 7).sum() == 1
    with pytest.warns(UserWarning, match="rigid structures 7 have fewer than 8 voxels"):
        found = register(
            *pair(), rigid_labels=Image(labels, FIXED), affine="none", spacing=4.0, refine_steps=0
        )  # fmt: skip
    assert found.metrics["rigid_deviation_mm"] < 0.5


def test_line_is_not_twisted() -> None:
    """A straight structure, such as a needle, does not say how the tissue around it turns."""
    labels = np.zeros(WORKING.shape, np.int64)
    labels[6:30, 18, 16] = 1
    shift = torch.zeros(1, 3, *WORKING.shape)
    shift[:, 1] = 0.02 * torch.arange(WORKING.shape[0])[:, None, None]
    found = RigidGuide(labels, WORKING, ()).stiffener()(shift)
    assert_allclose(found.numpy(), shift.numpy(), atol=0.1)


def test_rigid_structures_elsewhere_are_refused() -> None:
    away = centred_grid((12, 10, 8), (3.0, 3.0, 3.0), centre_mm=(500.0, 0.0, 0.0))
    structures = Image(np.ones(away.shape, np.uint8), away, name="bones.nii.gz")
    assert "bones.nii.gz" in refusal(register, *pair(), rigid_labels=structures)
