"""The refinement in Triton against plain torch in float64."""

import pytest
import torch
from torch import Tensor

from corereg.geometry.displacement import compose
from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE, use_triton
from corereg.geometry.strided import box_mean
from corereg.geometry.warp import warp
from corereg.method.coarse.coupled_convex import match
from corereg.method.config import CoupledConvexConfig, RefineConfig
from corereg.method.refine.energy import Compared, energy
from corereg.method.refine.optimise import refine
from corereg.method.refine.schedule import Schedule, Smoothing
from helpers.cuda import DEVICE, FAR, assert_near, each_shape, in_the_interpreter_too, smooth_noise

pytestmark = in_the_interpreter_too

SMOOTHING = Smoothing(3, reach=2)


def energy_problem(
    generator: torch.Generator,
    shape: tuple[int, ...],
    channels: int,
    *,
    size: float,
    weighted: bool,
    correlated: bool = False,
) -> tuple[Compared, Tensor]:
    """What two pairs compare, and displacements; without channels there are no features."""

    def two(channels: int, size: float = 1.0) -> tuple[Tensor, Tensor]:
        first, second = (smooth_noise(generator, 2, channels, *shape, size=size) for _ in range(2))
        return first, second

    weight = (torch.rand(2, 1, *shape, generator=generator) * 2 - 0.5).clamp(0, 1).to(DEVICE) if weighted else None
    features, images = two(channels) if channels else None, two(1) if correlated else None
    return Compared(features, images, weight), two(3, size)[0]


def check_energy_gradient(
    problem: tuple[Compared, Tensor], config: RefineConfig, *, smoothing: Smoothing = SMOOTHING
) -> None:
    """Energies and gradients of two pairs against autograd in float64, pair by pair."""
    from corereg.method.refine.kernels_cuda import Problem, energy_gradient

    compared, disp_vox = problem
    values, gradient = energy_gradient(Problem.of(compared, disp_vox, config), disp_vox, smoothing=smoothing)
    for n in range(2):
        exact = disp_vox[n : n + 1].double().requires_grad_(True)
        loss = energy(smoothing(exact), compared.pair(n).each(Tensor.double), config)
        (expected,) = torch.autograd.grad(loss, exact)
        assert values[n].item() == pytest.approx(loss.item(), rel=1e-5)
        assert_near(gradient[n : n + 1], expected, relative=1e-5)


@each_shape
@pytest.mark.parametrize("channels", [3, 40])
@pytest.mark.parametrize("size", [2.0, FAR])
@pytest.mark.parametrize("weighted", [False, True])
def test_energy_gradient_of_each_pair(cuda_kernels, shape, channels, size, weighted, generator):
    problem = energy_problem(generator, shape, channels, size=size, weighted=weighted)
    check_energy_gradient(problem, RefineConfig(regularisation=2.0, volume_preservation=0.0))


@pytest.mark.parametrize(
    "shape", [(3, 4, 12), (3, 11, 16)], ids=str
)  # the second has more voxels than one program takes
@pytest.mark.parametrize("weighted", [False, True])
def test_energy_gradient_with_the_volume_term(cuda_kernels, shape, weighted, generator):
    problem = energy_problem(generator, shape, 3, size=2.0, weighted=weighted)
    check_energy_gradient(problem, RefineConfig(volume_preservation=20.0))


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_energy_gradient_of_a_slab_that_has_no_inside_to_preserve(cuda_kernels, axis, generator):
    compared, disp_vox = energy_problem(generator, (5, 4, 7), 3, size=2.0, weighted=False)
    slab = compared.each(lambda part: part.narrow(axis, 1, 2)), disp_vox.narrow(axis, 1, 2).contiguous()
    check_energy_gradient(slab, RefineConfig(), smoothing=Smoothing(0))


@pytest.mark.parametrize(
    ("shape", "channels", "size", "weighted"),
    [
        ((5, 6, 7), 0, 1.0, False),
        ((5, 6, 7), 0, FAR, True),
        ((5, 6, 7), 3, 1.0, True),
        ((5, 9, 12), 0, 1.0, True),  # has more voxels than one program takes
    ],
    ids=str,
)
def test_energy_gradient_of_local_correlation(cuda_kernels, shape, channels, size, weighted, generator):
    problem = energy_problem(generator, shape, channels, size=size, weighted=weighted, correlated=True)
    check_energy_gradient(problem, RefineConfig())


@pytest.mark.parametrize(
    ("weighted", "volume_preservation", "correlated"), [(False, 0.0, False), (True, 1.0, False), (True, 1.0, True)]
)
def test_minimise_takes_torch_s_steps_with_each_pair_by_itself(
    cuda_kernels, weighted, volume_preservation, correlated, generator
):
    from corereg.method.refine.kernels_cuda import Problem, minimise

    compared, start = energy_problem(generator, (5, 5, 6), 2, size=2.0, weighted=weighted, correlated=correlated)
    config = RefineConfig(steps=3, learning_rate=0.02, volume_preservation=volume_preservation)

    def minimised(compared: Compared, start: Tensor) -> tuple[Tensor, Tensor]:
        return minimise(Problem.of(compared, start, config), start, Schedule.of(config), smoothing=Smoothing.of(config))

    together, energies = minimised(compared, start)
    expected, losses = refine(compared, start, config)
    assert_near(together, expected.double(), relative=1e-5)
    assert energies.mean(1).tolist() == pytest.approx(losses, rel=1e-4)
    alone, energies_alone = minimised(compared.pair(1), start[1:])
    assert torch.equal(together[1:], alone)
    assert torch.equal(energies[:, 1:], energies_alone)


def test_refine_without_steps_smoothes_the_start(cuda_kernels, generator):
    from corereg.method.refine.kernels_cuda import Problem, minimise

    compared, start = energy_problem(generator, (5, 4, 7), 3, size=2.0, weighted=False)
    config = RefineConfig(steps=0)
    found, energies = minimise(Problem.of(compared, start, config), start, Schedule.of(config), smoothing=SMOOTHING)
    assert_near(found, SMOOTHING(start.double()))
    assert energies.shape == (0, 2)


@pytest.mark.parametrize("correlated", [False, True])
def test_refine_takes_the_kernels_for_the_default_energy(cuda_kernels, monkeypatch, correlated, generator):
    """Both ways give the same, and are two ways."""
    compared, start = energy_problem(generator, (5, 5, 6), 2, size=2.0, weighted=True, correlated=correlated)
    config = RefineConfig(steps=3, learning_rate=0.02)
    expected, losses = refine(compared, start, config)
    monkeypatch.setattr("corereg.method.refine.optimise.use_triton", lambda *tensors: True)
    found, energies = refine(compared, start, config)
    assert config.volume_preservation > 0
    assert not torch.equal(found, expected)
    assert_near(found, expected.double(), relative=1e-4)
    assert energies == pytest.approx(losses, rel=1e-4)


@pytest.mark.skipif(DEVICE.type == "cpu", reason="no CUDA device here")
def test_public_functions_take_the_kernels_on_cuda(monkeypatch, generator):
    """Both ways give the same, and are two ways."""
    pytest.importorskip("triton")
    shape = (17, 22, 19)
    compared, start = energy_problem(generator, shape, 12, size=2.0, weighted=True, correlated=True)
    assert compared.features is not None
    fixed, moving = compared.features
    config = RefineConfig(steps=4, learning_rate=0.02)

    def run() -> list[Tensor]:
        refined = refine(compared, start, config)[0]
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
