"""Guiding labels: they draw structures onto each other, and leave everything else to the images."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from corereg import Transform, register
from corereg.evaluation.metrics import dice
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.method.config import GuidanceConfig
from corereg.method.features.label_codes import codes_of
from corereg.method.guidance.labels import LabelGuide, guiding_labels, joined
from corereg.method.refine.energy import Compared, data_energy
from helpers.motions import motion
from helpers.pairs import FIXED, MOVING
from helpers.refusals import refusal
from helpers.scenes import scan, voxels_mm

QUICK: Any = {"spacing": 4.0, "affine": "none"}

SHIFT_MM = np.array([6.0, -4.0, 5.0])
PLACES_MM = {3: (-20.0, 12.0, 10.0), 7: (24.0, -8.0, -14.0), 9: (-5.0, -25.0, 15.0)}


def spheres(grid: Grid, ids: Any = (3, 7, 9), shift_mm: Any = 0.0) -> Image:
    labels = np.zeros(grid.shape, np.uint8)
    for label in ids:
        labels[np.linalg.norm(voxels_mm(grid) - PLACES_MM[label] - shift_mm, axis=-1) < 13] = label
    return Image(labels, grid, name="the labels")


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({"similarity": "features"}, 0.8),
        ({"similarity": "correlation"}, 0.8),
        ({"parametrisation": "diffeomorphic", "refine_steps": 25, "fine": False}, 0.65),
    ],
)
def test_labels_draw_structures_that_the_images_do_not_show(settings: dict[str, Any], least: float) -> None:
    """The images agree as they are; one structure lies elsewhere."""
    fixed, moving = spheres(FIXED, (3,)), spheres(MOVING, (3,), SHIFT_MM)
    found = register(
        scan(FIXED), scan(MOVING), fixed_labels=fixed, moving_labels=moving, guide_labels=True, **QUICK, **settings
    )
    before, after = (
        dice(fixed.array, t.apply(moving, labels=True).array)[3] for t in (Transform((), fixed=FIXED), found.transform)
    )
    assert before < 0.5
    assert after > least
    points = voxels_mm(FIXED)[::3, ::3, ::3].reshape(-1, 3)
    far = np.linalg.norm(points - PLACES_MM[3], axis=1) > 50
    moved = np.linalg.norm(found.transform.apply_points(points) - points, axis=1)
    assert moved[far].mean() < 1.0, "a quarter of a voxel"
    assert found.metrics["fold_percent"] == 0.0


def test_labels_follow_an_initial_transform() -> None:
    turn = motion(degrees=(0, 0, 25), shift_mm=(40, 10, -20))
    moved = Grid(MOVING.shape, turn @ MOVING.affine)
    fixed, moving = spheres(FIXED, (3,)), spheres(MOVING, (3,), SHIFT_MM)
    settings: Any = {"guide_labels": True, "refine_steps": 5, "fixed_labels": fixed, **QUICK}
    found = register(
        scan(FIXED),
        Image(scan(MOVING).array, moved),
        initial=turn,
        moving_labels=Image(moving.array, moved),
        **settings,
    )
    expected = register(scan(FIXED), scan(MOVING), moving_labels=moving, **settings)
    assert torch.allclose(found.refined.disp_vox, expected.refined.disp_vox, atol=1e-3)


def test_only_common_or_listed_labels_guide() -> None:
    maps = spheres(FIXED, (3, 7)), spheres(MOVING, (7, 3, 9))
    for only, expected in ((None, [3, 7]), ((7,), [7])):
        found = guiding_labels(*maps, maps, GuidanceConfig(labels=True, only=only))
        assert found is not None
        assert found.ids == expected
    assert guiding_labels(*maps, maps, GuidanceConfig()) is None


@pytest.mark.parametrize("labels", [1, 4, 8, 9, 59, 117])
def test_every_label_has_a_code_of_its_own_in_few_channels(labels: int) -> None:
    codes = codes_of(labels)
    assert codes.shape[1] <= 9
    assert not codes[0].any(), "what does not guide"
    assert len(set(codes[1:].sum(1))) == 1, "all differ equally from the background"
    assert all((a != b).any() for a, b in combinations(codes, 2))


def test_nothing_is_compared_where_neither_image_has_a_label(generator: torch.Generator) -> None:
    shape = (10, 12, 8)
    fixed, moving = (torch.rand(1, 5, *shape, generator=generator) for _ in range(2))
    disp = torch.rand(1, 3, *shape, generator=generator)
    empty = torch.zeros(shape, dtype=torch.int64)
    guide = LabelGuide((empty, empty), codes_of(3), 1.0)
    alone = data_energy(disp, Compared((fixed, moving)))
    channels = guide.full()
    both = data_energy(disp, Compared((joined(fixed, channels[0]), joined(moving, channels[1]))))
    torch.testing.assert_close(both, alone)


def test_labels_that_cannot_guide_are_refused() -> None:
    scans = scan(FIXED), scan(MOVING)
    maps: Any = {"fixed_labels": spheres(FIXED, (3,)), "moving_labels": spheres(MOVING, (7,))}
    assert "common label" in refusal(register, *scans, guide_labels=True, **maps)
    assert "no label map" in refusal(register, *scans, guide_labels=True)
    maps["moving_labels"] = spheres(MOVING, (3, 7))
    assert "label 7" in refusal(register, *scans, guide_only=(3, 7), **maps)
    assert "moving label map alone" in refusal(register, *scans, guide_labels=True, moving_labels=maps["moving_labels"])
