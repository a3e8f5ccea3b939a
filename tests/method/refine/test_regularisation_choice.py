"""The R that a pair chooses by a rehearsal: it follows the noise of the images."""

import pytest
import torch

from corereg.geometry.strided import box_mean
from corereg.geometry.warp import warp
from corereg.method.config import RefineConfig
from corereg.method.refine.energy import Compared
from corereg.method.refine.optimise import refine
from corereg.method.refine.regularisation_choice import (
    CANDIDATES,
    FIRST,
    choose_regularisation,
    noise_level,
    rehearsed,
)

SHAPE = (26, 31, 22)
CONTRAST = 0.6


def normal(generator: torch.Generator, channels: int, *, smooth: int = 0) -> torch.Tensor:
    """White noise of standard deviation 1, smoothed."""
    drawn = box_mean(torch.randn(1, channels, *SHAPE, generator=generator), times=smooth)
    return drawn / drawn.std()


def chosen(noise: float) -> float:
    """What a scene and its copy, moved smoothly by 1.5 voxels, choose with this much noise in each."""
    generator = torch.Generator().manual_seed(0)
    motion, scene = 1.5 * normal(generator, 3, smooth=12), CONTRAST * normal(generator, 1, smooth=4)
    fixed, moving = (image + noise * normal(generator, 1) for image in (warp(scene, motion), scene))
    start, config = 0.6 * box_mean(motion, times=20) + 0.3, RefineConfig(regularisation=FIRST)
    first, _ = refine(Compared(None, (fixed, moving)), start, config)
    pair = rehearsed(fixed, moving, first, one_contrast=True, generator=generator)
    return choose_regularisation(Compared(None, pair), start, first, torch.ones(1, 1, *SHAPE), config)


def test_a_noisier_pair_chooses_a_larger_r():
    assert CANDIDATES[0] <= chosen(0.0) < FIRST < chosen(CONTRAST) <= CANDIDATES[-1]


@pytest.mark.parametrize("noise", [0.06, 0.2])
def test_noise_is_measured_through_structure_and_ignores_padding(noise, generator):
    scene = CONTRAST * normal(generator, 1, smooth=8) + noise * normal(generator, 1)
    assert noise_level(scene) == pytest.approx(noise, rel=0.15)
    assert noise_level(torch.nn.functional.pad(scene, (0, 20, 0, 20, 0, 20), value=-1.0)) < 1.5 * noise
    assert noise_level(scene[..., :1]) == pytest.approx(noise, rel=0.3)
    assert noise_level(torch.ones(1, 1, *SHAPE)) == 0
