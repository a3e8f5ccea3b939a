"""Triton kernels, which run on CUDA if there is a GPU, and otherwise in Triton's interpreter on the CPU.

The interpreter is slow, hence the small volumes. `TRITON_INTERPRET=1` chooses it on a machine with a GPU too.
"""

import os

import pytest
import torch
from torch import Tensor

from corereg.geometry.strided import box_mean

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # triton reads it when a kernel is defined

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda")

SHAPES = [(3, 5, 7), (3, 4, 12)]
FAR = 30.0
"""Voxels; moves most positions out of the volumes above."""

each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
in_the_interpreter_too = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")


def smooth_noise(generator: torch.Generator, *shape: int, size: float = 1.0) -> Tensor:
    noise = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return (size * box_mean(noise, times=2)).float().to(DEVICE)


def assert_near(found: Tensor, exact: Tensor, *, relative: float = 1e-6) -> None:
    assert found.dtype == torch.float32
    assert exact.dtype == torch.float64
    assert found.shape == exact.shape
    assert float((found - exact).norm()) <= relative * float(exact.norm())
