"""Views of a scan and its label map."""

import pytest
import torch

from corereg.training.config import LabelsConfig
from corereg.training.labels.augment import augmented
from corereg.training.labels.loss import IGNORED

SHAPE = (48, 32, 64)
STILL = {crop: LabelsConfig(crop=crop, gain=0.0, offset=0.0, noise=0.0) for crop in (32, 64)}
"""By size of the part: views without a change of intensities."""


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
