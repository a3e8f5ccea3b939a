"""Views of a scan and its label map."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from corereg.training.config import LabelsConfig
from corereg.training.labels.augment import augmented as augmented_scan
from corereg.training.labels.loss import IGNORED

SHAPE = (48, 32, 64)
STILL = {crop: LabelsConfig(crop=crop, gain=0.0, offset=0.0, noise=0.0) for crop in (32, 64)}
"""By size of the part: views without a change of intensities."""


def augmented(
    image: torch.Tensor | None, classes: torch.Tensor, config: LabelsConfig, *, seed: int, peeled: Sequence[int] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    return augmented_scan(image, classes, config, seed=seed, count=2, peeled=peeled)


def scan() -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth image, and the half of it above 0.1 as label 1."""
    axes = torch.meshgrid(*(torch.linspace(0, 3, n) for n in SHAPE), indexing="ij")
    image = sum(torch.sin((n + 1) * axis) for n, axis in enumerate(axes))
    return image[None, None], (image > 0.1).to(torch.int16)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("crop", [32, 64])
def test_image_and_label_map_move_together(seed, crop):
    image, classes = augmented(*scan(), STILL[crop], seed=seed)
    assert image.shape[2:] == classes.shape == tuple(min(n, crop) for n in SHAPE)
    counted = classes != IGNORED
    assert counted.float().mean() > 0.3
    agree = ((image[0, 0] > 0.1) == (classes == 1))[counted]
    assert agree.float().mean() > 0.95


def test_parts_are_drawn_from_the_whole_scan():
    image, classes = scan()
    config = LabelsConfig(crop=16, affine=0.0, gain=0.0, offset=0.0, noise=0.0)
    corners = {float(augmented(image, classes, config, seed=seed)[0][0, 0, 0, 0, 0]) for seed in range(40)}
    places = [(image[0, 0] == corner).nonzero()[0] for corner in corners]
    spread = torch.stack(places)
    assert (spread.amin(0) < 8).all()
    assert (spread.amax(0) >= torch.tensor(SHAPE) - 16 - 8).all()


def test_a_view_depends_on_its_seed_alone():
    first, again, other = (augmented(*scan(), LabelsConfig(crop=16), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "change", [{"bend": 3.0}, {"zoom": 1.4}, {"mirrored": True}, {"affine": 0.0, "mirrored": True}]
)
def test_image_and_label_map_move_together_however_they_move(seed, change):
    image, classes = augmented(*scan(), replace(STILL[64], **change), seed=seed)
    counted = classes != IGNORED
    agree = ((image[0, 0] > 0.1) == (classes == 1))[counted]
    assert agree.float().mean() > 0.94
    still = augmented(*scan(), replace(STILL[64], affine=change.get("affine", STILL[64].affine)), seed=seed)[1]
    if "mirrored" not in change:
        assert not torch.equal(still, classes)


def test_half_of_the_views_are_mirrored_left_to_right_alone():
    config = replace(STILL[64], affine=0.0, mirrored=True)
    image, classes = scan()
    views = [augmented(image, classes, config, seed=seed)[0] for seed in range(30)]
    kept, mirrored = (sum(torch.allclose(view, each, atol=1e-4) for view in views) for each in (image, image.flip(2)))
    assert kept + mirrored == len(views)
    assert 8 < mirrored < 22


def test_a_view_is_enlarged_at_most_by_the_zoom():
    axis = torch.arange(64.0)
    image = axis.view(-1, 1, 1).expand(64, 48, 32)[None, None].contiguous()
    config = replace(STILL[64], affine=0.0, zoom=1.5)
    slopes = torch.tensor(
        [
            augmented(image, image[0, 0].short(), config, seed=seed)[0][0, 0, 30:34, 20, 20].diff().mean()
            for seed in range(40)
        ]
    )
    assert 1 / 1.5 <= slopes.min() < 0.75
    assert 1.3 < slopes.max() <= 1.5


def test_peeled_labels_go_from_the_outside_in_and_show_as_air():
    i = torch.arange(48)
    distance = torch.stack(torch.meshgrid(i, i[:40], i[:36], indexing="ij")).sub(
        torch.tensor([24, 20, 18]).view(3, 1, 1, 1)
    )
    radius = distance.float().norm(dim=0)
    classes = ((radius < 16).short() + (radius < 12).short() + (radius < 8).short()) % 4
    image = 1.0 + classes.float()[None, None]
    config = replace(STILL[64], affine=0.0)
    found = set()
    for seed in range(40):
        seen, drawn = augmented(image, classes, config, seed=seed, peeled=(1, 2))
        found.add(tuple(drawn.unique().tolist()))
        assert (seen[0, 0][drawn == 0] == seen.min()).all()
    assert found == {(0, 1, 2, 3), (0, 2, 3), (0, 3)}


def test_a_label_map_without_a_scan_is_painted():
    _, classes = scan()
    seen, drawn = augmented(None, classes, replace(STILL[32], bend=2.0, slices=3.0), seed=2)
    assert seen.shape[2:] == drawn.shape
    assert seen.isfinite().all()
    assert seen[0, 0].std() > 0
