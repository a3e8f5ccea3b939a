"""The compiled CPU kernels against the plain torch that defines the results."""

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.displacement import (
    Displacement,
    compose,
    inverse_consistent,
    invert,
    jacobian_determinant,
    upsample_displacement,
)
from corereg.geometry.kernels import dispatch
from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE, use_kernels
from corereg.geometry.strided import box_mean, strided_shape, subsample, upsample
from corereg.geometry.warp import identity_coords, sample, warp
from corereg.io.images.image import Image
from corereg.io.transforms.transform import Transform
from corereg.method.coarse.coupled_convex import CoupledConvexConfig, match
from corereg.method.features.mind import mind_ssc, mind_ssc_half
from corereg.method.refine.energy import DATA_WEIGHT, DIFFUSION_WEIGHT, FEATURE_SCALE, Compared, RefineConfig, energy
from corereg.method.refine.optimise import refine
from helpers.scenes import centred_grid

pytest.importorskip("numba")

SHAPES = [(7, 10, 13), (18, 12, 9)]
FAR = 30.0
"""Voxels: carries most positions beyond the volumes above."""

Run = Callable[[], Tensor | tuple[Tensor, ...]]


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    return request.param


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


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


@pytest.mark.parametrize("times", [1, 2, 3])
def test_box_mean(shape, times, generator, monkeypatch):
    volume = torch.randn(2, 3, *shape, generator=generator)
    assert_same(monkeypatch, lambda: box_mean(volume, times=times))


def test_box_mean_of_a_volume_that_is_not_contiguous(shape, generator, monkeypatch):
    volume = torch.randn(1, 3, *(2 * n for n in shape), generator=generator)
    assert_same(monkeypatch, lambda: box_mean(subsample(volume, 2)))


@pytest.mark.parametrize(("factor", "smoothing"), [(2, 3), (4, 2), (8, 2), (4, 0), (1, 2)])
def test_upsample_displacement(shape, factor, smoothing, generator, monkeypatch):
    fine = tuple(factor * n - 1 for n in shape) if factor > 1 else shape
    disp_vox = torch.randn(2, 3, *strided_shape(fine, factor), generator=generator)
    assert_same(monkeypatch, lambda: upsample_displacement(disp_vox, factor, fine, smoothing=smoothing))


def test_upsample_holds_the_last_coarse_point(shape, generator, monkeypatch):
    volume = torch.randn(1, 2, *shape, generator=generator)
    assert_same(monkeypatch, lambda: upsample(volume, 3, [3 * n for n in shape]))


@pytest.mark.parametrize("size", [2.0, FAR])
@pytest.mark.parametrize("outside", [None, -1.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_warp_and_sample(shape, size, outside, channels, generator, monkeypatch):
    volume = smooth_noise(generator, 2, channels, *shape)
    disp_vox = smooth_noise(generator, 2, 3, *shape, size=size)
    coords = (identity_coords((5, 6, 4), like=volume) + smooth_noise(generator, 2, 3, 5, 6, 4, size=size)).contiguous()
    assert_same(monkeypatch, lambda: (warp(volume, disp_vox, outside=outside), sample(volume, coords, outside=outside)))


def test_sample_of_a_volume_with_a_single_slice(generator, monkeypatch):
    volume = torch.randn(1, 2, 1, 6, 5, generator=generator)
    coords = 4 * torch.rand(1, 3, 7, 3, 2, generator=generator)
    assert_same(monkeypatch, lambda: sample(volume, coords))


@pytest.mark.parametrize("size", [2.0, FAR])
def test_compose(shape, size, generator, monkeypatch):
    first, then = (smooth_noise(generator, 2, 3, *shape, size=size) for _ in range(2))
    assert_same(monkeypatch, lambda: compose(first, then))


def test_invert(shape, generator, monkeypatch):
    disp_vox = smooth_noise(generator, 1, 3, *shape, size=0.7)
    assert_same(monkeypatch, lambda: invert(disp_vox, iterations=5, tolerance_vox=0.0)[0])
    monkeypatch.setenv(KERNELS_VARIABLE, "numba")
    assert float(invert(disp_vox)[1].amax()) < 2e-3


def test_invert_leaves_its_argument_as_it_is_whatever_its_strides(shape, generator, monkeypatch):
    monkeypatch.setenv(KERNELS_VARIABLE, "numba")
    disp_vox = smooth_noise(generator, 1, 3, *shape[::-1], size=0.7).permute(0, 1, 4, 3, 2)
    before = disp_vox.clone()
    inverse, _ = invert(disp_vox)
    assert torch.equal(disp_vox, before)
    assert torch.equal(inverse, invert(before.contiguous())[0])


def test_large_volumes_are_inverted_like_small_ones(shape, generator, monkeypatch):
    disp_vox = smooth_noise(generator, 1, 3, *shape, size=0.5)
    whole, _ = invert(disp_vox)
    monkeypatch.setattr("corereg.geometry.displacement.LARGE_VOXELS", 200)
    monkeypatch.setattr("corereg.geometry.displacement.FINAL_ITERATIONS", 50)
    assert float((invert(disp_vox)[0] - whole).norm(dim=1).amax()) < 5e-3


@pytest.mark.parametrize("count", [0, 1, 2])
def test_chain_of_maps(count, generator, monkeypatch):
    """Through displacements on grids of their own and matrices between them, some positions beyond them all."""
    grids = [centred_grid(shape, (5.0, 4.0, 3.5), o) for shape, o in (((9, 14, 11), "oblique"), ((12, 8, 10), "LPS"))]
    parts: list = [np.array([[1.1, 0.1, 0, 4], [0, 0.9, -0.1, 2], [0.1, 0, 1, -7], [0, 0, 0, 1.0]])]
    for grid in grids[:count]:
        parts += [Displacement(smooth_noise(generator, 3, 1, *grid.shape, size=2.0)[:, 0], grid), parts[0]]
    fixed, moving = centred_grid((17, 7, 13), (3.0, 4.5, 4.0), "PIR"), centred_grid((8, 15, 6), (6.0, 3.0, 7.0))
    image = Image(smooth_noise(generator, 1, 1, *moving.shape)[0, 0].numpy(), moving)
    transform = Transform(tuple(parts), fixed=fixed, moving=moving)
    monkeypatch.setattr("corereg.geometry.kernels.chain.BLOCK_VOXELS", 200)
    assert_same(monkeypatch, lambda: torch.as_tensor(transform.total_mm()))
    assert_same(monkeypatch, lambda: torch.as_tensor(transform.apply(image).array))


def test_inverse_consistency(shape, generator, monkeypatch):
    forward, backward = (smooth_noise(generator, 1, 3, *shape, size=2) for _ in range(2))
    assert_same(monkeypatch, lambda: inverse_consistent(forward, backward, steps=15))


def test_jacobian_determinant(shape, generator, monkeypatch):
    disp_vox = smooth_noise(generator, 2, 3, *shape, size=3)
    assert_same(monkeypatch, lambda: jacobian_determinant(disp_vox))


@pytest.mark.parametrize(("channels", "radius", "steps"), [(16, 2, 15), (5, 1, 0)])
def test_match(shape, channels, radius, steps, generator, monkeypatch):
    fixed, moving = (smooth_noise(generator, 2, channels, *shape) for _ in range(2))
    config = CoupledConvexConfig(radius=radius, inverse_consistency_steps=steps)
    assert_same(monkeypatch, lambda: match(fixed, moving, config))


@pytest.mark.parametrize("shape", [*SHAPES, (68, 21, 16)], ids=str)
@pytest.mark.parametrize("dilation", [1, 2])
def test_mind_on_the_half_grid(shape, dilation, generator, monkeypatch):
    image = smooth_noise(generator, 2, 1, *shape)
    image[:, :, :, : shape[1] // 3] = 0.25  # flat: its variance is bounded from below
    assert_same(monkeypatch, lambda: mind_ssc_half(image, dilation=dilation))
    monkeypatch.setenv(KERNELS_VARIABLE, "torch")
    assert torch.equal(mind_ssc_half(image), subsample(box_mean(mind_ssc(image)), 2))


def energy_problem(generator: torch.Generator, shape: tuple[int, ...], channels: int, *, size: float, weighted: bool):
    fixed, moving = (smooth_noise(generator, 1, channels, *shape) for _ in range(2))
    weight = (torch.rand(1, 1, *shape, generator=generator) * 2 - 0.5).clamp(0, 1) if weighted else None
    return fixed, moving, smooth_noise(generator, 1, 3, *shape, size=size), weight


@pytest.mark.parametrize("channels", [3, 12, 16, 32])
@pytest.mark.parametrize("size", [3.0, FAR])
@pytest.mark.parametrize(("weighted", "preserved"), [(False, 0.0), (False, 3.0), (True, 3.0)])
def test_energy_gradient_against_float64(shape, channels, size, weighted, preserved, generator):
    from corereg.method.refine.kernels_cpu import Factors, energy_gradient

    config = RefineConfig(regularisation=2.0, volume_preservation=preserved)

    fixed, moving, disp_vox, weight = energy_problem(generator, shape, channels, size=size, weighted=weighted)
    exact = disp_vox.double().requires_grad_(True)
    loss = energy(box_mean(exact, times=3), Compared(fixed.double(), moving.double(), weight), config)
    (expected,) = torch.autograd.grad(loss, exact)
    counted = fixed[0, 0].numel() if weight is None else float(weight.sum())
    data = DATA_WEIGHT * FEATURE_SCALE**2 / (channels * counted)
    smooth = tuple(2.0 * DIFFUSION_WEIGHT / disp_vox.diff(dim=axis).numel() for axis in (2, 3, 4))
    volume = 2.0 * DIFFUSION_WEIGHT * preserved / max(math.prod(n - 2 for n in shape), 1)
    value, gradient = energy_gradient(
        *(f[0].permute(1, 2, 3, 0).contiguous().numpy() for f in (fixed, moving)),
        disp_vox[0].numpy(),
        None if weight is None else weight[0, 0].numpy(),
        Factors(data, smooth, volume),
        smoothing=3,
    )
    assert value == pytest.approx(loss.item(), rel=1e-5)
    assert np.linalg.norm(gradient - expected[0].numpy()) < 1e-4 * float(expected.norm())


@pytest.mark.parametrize("weighted", [False, True])
def test_refine_with_small_steps(shape, weighted, generator, monkeypatch):
    fixed, moving, start, weight = energy_problem(generator, shape, 12, size=2.0, weighted=weighted)
    config = RefineConfig(steps=5, learning_rate=0.02)
    assert_same(monkeypatch, lambda: refine(fixed, moving, start, config, weight=weight)[0], relative=1e-4)


def test_refine_of_a_batch(shape, generator, monkeypatch):
    fixed, moving = (smooth_noise(generator, 2, 5, *shape) for _ in range(2))
    start = torch.full((2, 3, *shape), 0.3)  # on the voxels themselves torch's rounding picks the side of the slope

    def run():
        disp_vox, losses = refine(fixed, moving, start, RefineConfig(steps=3, learning_rate=0.02, smoothing=1))
        return disp_vox, torch.tensor(losses)

    # Adam divides by the gradient's size, so that the features' rounding counts where it nearly vanishes.
    assert_same(monkeypatch, run, relative=3e-4)


def test_refine_reaches_the_same_energy(shape, generator, monkeypatch):
    fixed, moving, start, _ = energy_problem(generator, shape, 12, size=2.0, weighted=False)
    last = {}
    for choice in ("torch", "numba"):
        monkeypatch.setenv(KERNELS_VARIABLE, choice)
        last[choice] = refine(fixed, moving, start, RefineConfig(steps=50))[1][-1]
    assert last["numba"] == pytest.approx(last["torch"], rel=3e-3)  # few voxels of noise, where rounding grows fast


def test_choice_of_implementation(monkeypatch):
    plain = torch.zeros(1, 1, 3, 4, 5)
    learned = plain.clone().requires_grad_(True)
    for choice in ("", "numba"):
        monkeypatch.setenv(KERNELS_VARIABLE, choice)
        assert use_kernels(plain, None)
        assert not use_kernels(plain, plain.double())
        assert not use_kernels(plain, learned)
        with torch.no_grad():
            assert use_kernels(plain, learned)
    monkeypatch.setenv(KERNELS_VARIABLE, "torch")
    assert not use_kernels(plain)


def test_unknown_implementation_is_refused(monkeypatch):
    monkeypatch.setenv(KERNELS_VARIABLE, "cuda")
    with pytest.raises(InputError, match="COREREG_KERNELS=cuda"):
        box_mean(torch.zeros(1, 1, 3, 4, 5))


def test_without_numba_everything_runs_on_torch(monkeypatch):
    monkeypatch.setattr(dispatch, "_numba_imports", lambda: False)
    monkeypatch.delenv(KERNELS_VARIABLE, raising=False)
    assert not use_kernels(torch.zeros(1))
    monkeypatch.setenv(KERNELS_VARIABLE, "numba")
    with pytest.raises(InputError, match="install numba"):
        use_kernels(torch.zeros(1))


def test_gradients_flow_through_operations_that_have_kernels(shape, generator):
    disp_vox = smooth_noise(generator, 1, 3, *shape).requires_grad_(True)
    compose(box_mean(disp_vox), upsample(disp_vox, 1, shape)).sum().backward()
    assert float(disp_vox.grad.abs().sum()) > 0


LIFE_IN_A_CHILD = """
import os, sys, torch
from corereg.geometry.strided import box_mean
import corereg.method.pipeline
assert "numba" not in sys.modules
box_mean(torch.ones(1, 1, 3, 4, 5))
child = os.fork()
if child == 0:
    os._exit(int(float(box_mean(torch.ones(1, 1, 3, 4, 5)).sum()) != 60))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_numba_is_imported_late_and_kernels_survive_a_fork():
    subprocess.run([sys.executable, "-W", "ignore", "-c", LIFE_IN_A_CHILD], check=True, timeout=120)
