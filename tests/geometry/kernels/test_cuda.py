"""The Triton kernels against plain torch in float64: on CUDA where there is one, else in Triton's interpreter.

    TRITON_INTERPRET=1 pytest tests/geometry/kernels/test_cuda.py

runs them without a GPU, where triton is installed: slowly, hence the small volumes.
"""

import os
import sys

import pytest
import torch
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.displacement import compose
from corereg.geometry.kernels import dispatch
from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE, use_triton
from corereg.geometry.strided import box_mean
from corereg.geometry.warp import identity_coords, sample, warp
from corereg.method.coarse.coupled_convex import CoupledConvexConfig, match
from corereg.method.refine.energy import Compared, RefineConfig, energy, energy_factors
from corereg.method.refine.optimise import refine

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu")
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # Triton's interpreter
SHAPES = [(5, 9, 7), (3, 4, 12)]
FAR = 30.0
"""Voxels: carries most positions beyond the volumes above."""


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    return request.param


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def kernels(monkeypatch):
    """The kernels under test; plain torch is what the public functions run meanwhile."""
    pytest.importorskip("triton")
    if DEVICE.type == "cpu" and not INTERPRETED:
        pytest.skip("no CUDA device here, and TRITON_INTERPRET is not 1")
    monkeypatch.setenv(KERNELS_VARIABLE, "torch")
    from corereg.geometry.kernels import cuda as kernels_cuda

    return kernels_cuda


def smooth_noise(generator: torch.Generator, *shape: int, size: float = 1.0) -> Tensor:
    noise = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return (size * box_mean(noise, times=2)).float().to(DEVICE)


def assert_near(found: Tensor, exact: Tensor, *, relative: float = 1e-6) -> None:
    assert found.dtype == torch.float32
    assert exact.dtype == torch.float64
    assert found.shape == exact.shape
    assert float((found - exact).norm()) <= relative * float(exact.norm())


@pytest.mark.parametrize("times", [1, 3])
def test_box_mean(kernels, shape, times, generator):
    volume = smooth_noise(generator, 2, 3, *shape)
    assert_near(kernels.box_mean(volume, times), box_mean(volume.double(), times=times))


def test_adjoint_smoothing_is_the_transpose_of_smoothing(kernels):
    def matrix(*, adjoint: bool) -> Tensor:
        basis = torch.eye(7, device=DEVICE).view(7, 1, 1, 1, 7)
        out = torch.empty_like(basis)
        kernels.filter_axis(basis, kernels.box_band(7, 3, DEVICE, adjoint=adjoint), 4, out)
        return out.view(7, 7)

    assert not torch.equal(matrix(adjoint=True), matrix(adjoint=False))
    torch.testing.assert_close(matrix(adjoint=True), matrix(adjoint=False).T)


@pytest.mark.parametrize("size", [2.0, FAR])
@pytest.mark.parametrize("outside", [None, -1.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_warp(kernels, shape, size, outside, channels, generator):
    volume, disp_vox = smooth_noise(generator, 2, channels, *shape), smooth_noise(generator, 2, 3, *shape, size=size)
    found = kernels.pull(volume, disp_vox, from_identity=True, outside=outside)
    assert_near(found, warp(volume.double(), disp_vox.double(), outside=outside))


def test_sample_of_one_volume_at_two_sets_of_positions(kernels, shape, generator):
    volume = smooth_noise(generator, 1, 2, *shape)
    coords = identity_coords((4, 5, 6), like=volume) + smooth_noise(generator, 2, 3, 4, 5, 6, size=3.0)
    exact = sample(volume.double().expand(2, -1, -1, -1, -1), coords.double())
    assert_near(kernels.pull(volume, coords, from_identity=False), exact)


def test_sample_of_a_volume_with_a_single_slice(kernels, generator):
    volume = torch.randn(1, 2, 1, 6, 5, generator=generator).to(DEVICE)
    coords = 4 * torch.rand(1, 3, 4, 3, 2, generator=generator).to(DEVICE)
    assert_near(kernels.pull(volume, coords, from_identity=False), sample(volume.double(), coords.double()))


def test_pull_blends_the_displacement_with_what_it_reads(kernels, shape, generator):
    first, then = (smooth_noise(generator, 2, 3, *shape, size=2.0) for _ in range(2))
    found = kernels.pull(first, then, from_identity=True, own=0.5, sampled=-0.5)
    assert_near(found, then.double() - compose(first.double(), then.double()) / 2)


@pytest.mark.parametrize(("channels", "radius"), [(16, 1), (5, 2)])
def test_match_one_way(kernels, channels, radius, generator):
    from corereg.method.coarse.kernels_cuda import coupled_convex_of_features

    fixed, moving = (smooth_noise(generator, 2, channels, 3, 5, 4) for _ in range(2))
    config = CoupledConvexConfig(radius=radius, inverse_consistency_steps=0)
    found = coupled_convex_of_features(
        fixed,
        moving,
        radius=radius,
        scale=config.feature_scale,
        sharpness=config.sharpness,
        couplings=config.couplings,
    )
    assert_near(found, match(fixed.double(), moving.double(), config), relative=1e-5)


def energy_problem(generator: torch.Generator, shape: tuple[int, ...], channels: int, *, size: float, weighted: bool):
    fixed, moving = (smooth_noise(generator, 2, channels, *shape) for _ in range(2))
    weight = (torch.rand(2, 1, *shape, generator=generator) * 2 - 0.5).clamp(0, 1).to(DEVICE) if weighted else None
    return fixed, moving, smooth_noise(generator, 2, 3, *shape, size=size), weight


def check_energy_gradient(problem: tuple[Tensor | None, ...], config: RefineConfig, *, smoothing: int = 3) -> None:
    """Energies and gradients of two pairs against autograd in float64, pair by pair."""
    from corereg.method.refine.kernels_cuda import Problem, energy_gradient

    fixed, moving, disp_vox, weight = problem
    factors = energy_factors(fixed, disp_vox, config, weight)
    values, gradient = energy_gradient(Problem.of(fixed, moving, weight, *factors), disp_vox, smoothing=smoothing)
    for n in (slice(0, 1), slice(1, 2)):
        exact = disp_vox[n].double().requires_grad_(True)
        part = None if weight is None else weight[n].double()
        smooth = box_mean(exact, times=smoothing)
        loss = energy(smooth, Compared(fixed[n].double(), moving[n].double(), part), config)
        (expected,) = torch.autograd.grad(loss, exact)
        assert values[n].item() == pytest.approx(loss.item(), rel=1e-5)
        assert_near(gradient[n], expected, relative=1e-5)


@pytest.mark.parametrize("channels", [3, 40])
@pytest.mark.parametrize("size", [2.0, FAR])
@pytest.mark.parametrize("weighted", [False, True])
def test_energy_gradient_of_each_pair(kernels, shape, channels, size, weighted, generator):
    problem = energy_problem(generator, shape, channels, size=size, weighted=weighted)
    check_energy_gradient(problem, RefineConfig(regularisation=2.0, volume_preservation=0.0))


@pytest.mark.parametrize("shape", [(3, 4, 12), (7, 9, 11)], ids=str)  # more voxels than one program takes
@pytest.mark.parametrize("weighted", [False, True])
def test_energy_gradient_with_the_volume_term(kernels, shape, weighted, generator):
    problem = energy_problem(generator, shape, 3, size=2.0, weighted=weighted)
    check_energy_gradient(problem, RefineConfig(volume_preservation=20.0))


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_energy_gradient_of_a_slab_that_has_no_inside_to_preserve(kernels, axis, generator):
    *whole, _ = energy_problem(generator, (5, 4, 7), 3, size=2.0, weighted=False)
    slab = [part.narrow(axis, 1, 2).contiguous() for part in whole]
    check_energy_gradient((*slab, None), RefineConfig(), smoothing=0)


@pytest.mark.parametrize(("weighted", "volume_preservation"), [(False, 0.0), (True, 1.0)])
def test_minimise_takes_torch_s_steps_with_each_pair_by_itself(kernels, weighted, volume_preservation, generator):
    from corereg.method.refine.kernels_cuda import Problem, minimise

    fixed, moving, start, weight = energy_problem(generator, (6, 9, 7), 5, size=2.0, weighted=weighted)
    config = RefineConfig(steps=4, learning_rate=0.02, volume_preservation=volume_preservation)

    def minimised(n: slice) -> tuple[Tensor, Tensor]:
        part = None if weight is None else weight[n]
        problem = Problem.of(fixed[n], moving[n], part, *energy_factors(fixed[n], start[n], config, part))
        return minimise(problem, start[n], steps=4, learning_rate=0.02, smoothing=3)

    together, energies = minimised(slice(None))
    expected, losses = refine(fixed, moving, start, config, weight=weight)
    assert_near(together, expected.double(), relative=1e-5)
    assert energies.mean(1).tolist() == pytest.approx(losses, rel=1e-4)
    alone, energies_alone = minimised(slice(1, 2))
    assert torch.equal(together[1:], alone)
    assert torch.equal(energies[:, 1:], energies_alone)


def test_refine_without_steps_smoothes_the_start(kernels, generator):
    from corereg.method.refine.kernels_cuda import Problem, minimise

    fixed, moving, start, _ = energy_problem(generator, (5, 4, 7), 3, size=2.0, weighted=False)
    problem = Problem.of(fixed, moving, None, *energy_factors(fixed, start, RefineConfig(), None))
    found, energies = minimise(problem, start, steps=0, learning_rate=0.5, smoothing=2)
    assert_near(found, box_mean(start.double(), times=2))
    assert energies.shape == (0, 2)


# Dispatch


def test_refine_takes_the_kernels_for_the_default_energy(kernels, monkeypatch, generator):
    """Both ways give the same, and are two ways."""
    fixed, moving, start, weight = energy_problem(generator, (6, 9, 7), 5, size=2.0, weighted=True)
    config = RefineConfig(steps=3, learning_rate=0.02)
    expected, losses = refine(fixed, moving, start, config, weight=weight)
    monkeypatch.setattr("corereg.method.refine.optimise.use_triton", lambda *tensors: True)
    found, energies = refine(fixed, moving, start, config, weight=weight)
    assert config.volume_preservation > 0
    assert not torch.equal(found, expected)
    assert_near(found, expected.double(), relative=1e-4)
    assert energies == pytest.approx(losses, rel=1e-4)


@pytest.mark.skipif(DEVICE.type == "cpu", reason="no CUDA device here")
def test_public_functions_take_the_kernels_on_cuda(monkeypatch, generator):
    """Both ways give the same, and are two ways."""
    pytest.importorskip("triton")
    shape = (17, 22, 19)
    fixed, moving, start, weight = energy_problem(generator, shape, 12, size=2.0, weighted=True)
    config = RefineConfig(steps=4, learning_rate=0.02)

    def run() -> list[Tensor]:
        refined = refine(fixed, moving, start, config, weight=weight)[0]
        found = match(fixed, moving, CoupledConvexConfig())
        return [refined, found, warp(moving, start), compose(start, start), box_mean(fixed, times=2)]

    monkeypatch.setenv(KERNELS_VARIABLE, "torch")
    expected = run()
    monkeypatch.setenv(KERNELS_VARIABLE, "triton")
    assert use_triton(fixed, None)
    assert not use_triton(fixed, fixed.double())
    for found, plain in zip(run(), expected, strict=True):
        assert not torch.equal(found, plain)
        assert_near(found, plain.double(), relative=1e-4)


def test_tensors_on_the_cpu_never_go_to_triton(monkeypatch):
    for choice in ("", "triton", "numba", "torch"):
        monkeypatch.setenv(KERNELS_VARIABLE, choice)
        assert not use_triton(torch.zeros(1, 1, 3, 4, 5))


def test_without_triton_torch_does_it_unless_triton_was_named(monkeypatch):
    monkeypatch.setattr(dispatch, "_suit", lambda device, tensors: device == "cuda")  # as if they were on CUDA
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "corereg.geometry.kernels.cuda", raising=False)
    dispatch._triton_works.cache_clear()
    volume = torch.zeros(1, 1, 3, 4, 5)
    monkeypatch.delenv(KERNELS_VARIABLE, raising=False)
    assert not use_triton(volume)
    monkeypatch.setenv(KERNELS_VARIABLE, "triton")
    with pytest.raises(InputError, match="triton cannot run a kernel here"):
        use_triton(volume)
    dispatch._triton_works.cache_clear()
