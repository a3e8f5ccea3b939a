"""Compiled CPU kernels against the plain torch that defines their results."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE
from corereg.geometry.strided import box_mean

SHAPES = [(7, 10, 13), (18, 12, 9)]

FAR = 30.0
"""Voxels: carries most positions beyond the volumes above."""

Run = Callable[[], Tensor | tuple[Tensor, ...]]


def smooth_noise(generator: torch.Generator, *shape: int, size: float = 1.0) -> Tensor:
    noise = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return (size * box_mean(noise, times=2)).float()


def assert_same(monkeypatch: pytest.MonkeyPatch, run: Run, *, relative: float = 1e-5) -> None:
    """The kernels' result is torch's, and its bits are the same on one thread and on two."""
    monkeypatch.setenv(KERNELS_VARIABLE, "torch")
    expected = run()
    monkeypatch.setenv(KERNELS_VARIABLE, "numba")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run()
        torch.set_num_threads(2)
        found = run()
    finally:
        torch.set_num_threads(threads)
    for e, a, f in zip(*((r,) if isinstance(r, Tensor) else r for r in (expected, alone, found)), strict=True):
        assert f.dtype == e.dtype
        assert f.shape == e.shape
        assert torch.equal(a, f)
        assert float((f.double() - e).norm()) <= relative * float(e.double().norm())


each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
