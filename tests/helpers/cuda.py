"""Triton kernels, on CUDA where there is one, else in Triton's interpreter on the CPU."""

import os

import pytest
import torch
from torch import Tensor

from corereg.geometry.strided import box_mean

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

DEVICE = torch.device("cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu")

SHAPES = [(5, 9, 7), (3, 4, 12)]

FAR = 30.0
"""Voxels: carries most positions beyond the volumes above."""


def smooth_noise(generator: torch.Generator, *shape: int, size: float = 1.0) -> Tensor:
    noise = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return (size * box_mean(noise, times=2)).float().to(DEVICE)


def assert_near(found: Tensor, exact: Tensor, *, relative: float = 1e-6) -> None:
    assert found.dtype == torch.float32
    assert exact.dtype == torch.float64
    assert found.shape == exact.shape
    assert float((found - exact).norm()) <= relative * float(exact.norm())


each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
