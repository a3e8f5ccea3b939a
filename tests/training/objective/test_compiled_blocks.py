"""The extractor's blocks in training on compiled kernels against its modules in float64."""

import pytest
import torch
from torch import Tensor, nn

from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE
from corereg.method.features.network import ConvNetModel, NetworkConfig, random_model
from corereg.settings import with_settings
from corereg.training.config import TrainConfig
from corereg.training.objective import compiled_blocks
from corereg.training.objective.objective import Objective, Phase

WIDE = NetworkConfig(shallow_channels=(32, 64), deep_channels=32, head_channels=6)
NARROW = NetworkConfig(shallow_channels=(5, 6), deep_channels=7, head_channels=4)
"""The first has kernels for its convolutions, the second leaves them to torch."""


@pytest.fixture(params=[WIDE, NARROW], ids=["wide", "narrow"])
def model(request: pytest.FixtureRequest) -> ConvNetModel:
    """With normalisation weights of either sign, and one that is zero."""
    made = random_model(1, request.param).train()
    generator = torch.Generator().manual_seed(2)
    for norm in (m for m in made.modules() if isinstance(m, nn.BatchNorm3d)):
        norm.weight.data.uniform_(-1.5, 1.5, generator=generator)
        norm.bias.data.uniform_(-0.5, 0.5, generator=generator)
        norm.weight.data[1] = 0
    return made


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_near(found: Tensor, expected: Tensor, relative: float) -> None:
    found, expected = found.detach(), expected.detach()
    assert found.shape == expected.shape
    assert float((found - expected).norm()) <= relative * float(expected.norm())


def statistics(blocks: tuple[nn.Sequential, ...]) -> list[Tensor]:
    return [getattr(b[1], name).clone() for b in blocks for name in ("running_mean", "running_var")]


@pytest.mark.parametrize("shape", [(16, 20, 24), (13, 10, 18)])
@pytest.mark.parametrize(("momentum", "bias", "relative"), [(0.1, 0.0, 3e-2), (None, 12.0, 1e-3)])
def test_blocks_and_their_gradients_are_those_of_the_modules(model, shape, momentum, bias, relative):
    """With a bias that lifts all values over the ReLU's kink, and without: there any rounding may pick the other slope,
    which counts in full for gradients that are noise."""
    blocks, images = model.extractor.blocks[:3], noise(3, 1, *shape)
    for block in blocks:
        block[1].momentum = momentum
        block[1].bias.data += bias
    weights = [p for block in blocks for p in block.parameters()]
    before = statistics(blocks)
    found = compiled_blocks.blocks(blocks, images)
    slopes = noise(*found.shape, seed=3)
    gradients = torch.autograd.grad((found * slopes).sum(), weights)
    updated, counted = statistics(blocks), int(blocks[0][1].num_batches_tracked)
    for old, (block, name) in zip(
        before, ((b, n) for b in blocks for n in ("running_mean", "running_var")), strict=True
    ):
        getattr(block[1], name).copy_(old)
        block[1].num_batches_tracked.zero_()
    exact = nn.Sequential(*blocks).double()
    expected = exact(images.double())
    assert counted == int(blocks[0][1].num_batches_tracked) == 1
    assert_near(found, expected, 1e-4)
    for one, other in zip(updated, statistics(blocks), strict=True):
        assert_near(one, other, 1e-4)
    exact_gradients = torch.autograd.grad((expected * slopes.double()).sum(), list(exact.parameters()))
    names = [name for name, _ in exact.named_parameters()]
    for name, one, other in zip(names, gradients, exact_gradients, strict=True):
        if name.endswith("0.bias"):  # of the convolution: what the normalisation takes away has no gradient
            assert not one.any()
            assert float(other.norm()) < 1e-9 * float(slopes.norm())
        else:
            assert_near(one, other, relative)


def test_a_convolution_by_itself(model):
    conv = model.extractor.block4[0]
    source = noise(2, conv.in_channels, 6, 5, 7).requires_grad_(True)
    found = compiled_blocks.convolution(conv, source)
    slopes = noise(*found.shape, seed=3)
    gradients = torch.autograd.grad((found * slopes).sum(), [source, conv.weight, conv.bias])
    exact = source.detach().double().requires_grad_(True)
    expected = conv.double()(exact)
    assert_near(found, expected, 1e-5)
    for one, other in zip(
        gradients,
        torch.autograd.grad((expected * slopes.double()).sum(), [exact, conv.weight, conv.bias]),
        strict=True,
    ):
        assert_near(one, other, 1e-5)


def test_a_gradient_that_others_hold_is_left_alone(model):
    found = compiled_blocks.blocks(model.extractor.blocks[:3], noise(2, 1, 12, 10, 14))
    gradient = noise(*found.shape, seed=5)
    copy = gradient.clone()
    found.backward(gradient)
    assert torch.equal(gradient, copy)


def test_no_gradient_no_memory(model):
    with torch.no_grad():
        found = compiled_blocks.blocks(model.extractor.blocks[:3], noise(2, 1, 12, 10, 14))
    assert not found.requires_grad


def test_blocks_run_on_kernels_in_training_on_the_cpu_alone(model, monkeypatch):
    images, blocks = noise(2, 1, 12, 10, 14), model.extractor.blocks[:3]
    assert compiled_blocks.suits(blocks, images)
    assert not compiled_blocks.suits(blocks, images.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not compiled_blocks.suits(blocks, images)
    monkeypatch.setenv(KERNELS_VARIABLE, "torch")
    assert not compiled_blocks.suits(blocks, images)
    monkeypatch.delenv(KERNELS_VARIABLE)
    model.eval()
    assert not compiled_blocks.suits(blocks, images)


@pytest.mark.parametrize("objective", ["joint", "registration", "contrastive"])
def test_a_step_is_the_same_on_kernels_and_on_modules(objective, monkeypatch):
    config = with_settings(TrainConfig(), {"passes": [8], "contrast.points": 60})
    phase = {"joint": Phase(True, True), "registration": Phase(True, False), "contrastive": Phase(False, True)}
    fixed, moving, pseudo = noise(2, 1, 32, 48, 40), noise(2, 1, 32, 48, 40, seed=1), noise(2, 3, 16, 24, 20, seed=2)
    totals, gradients = [], []
    for choice in ("torch", "numba"):
        monkeypatch.setenv(KERNELS_VARIABLE, choice)
        model = random_model(0, NetworkConfig(head_channels=6)).train()
        total = Objective(model, config)(fixed, moving, pseudo, phase[objective], 3.0, 7).total
        total.backward()
        totals.append(float(total.detach()))
        gradients.append(torch.cat([p.grad.flatten() for p in model.extractor.parameters() if p.grad is not None]))
    assert totals[1] == pytest.approx(totals[0], rel=1e-3)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.995


def test_activations_computed_twice_count_once_in_the_statistics(monkeypatch):
    monkeypatch.setenv(KERNELS_VARIABLE, "torch")
    fixed, moving, pseudo = noise(1, 1, 32, 32, 48), noise(1, 1, 32, 32, 48, seed=1), noise(1, 3, 16, 16, 24, seed=2)
    found = []
    for twice in (False, True):
        config = with_settings(TrainConfig(), {"passes": [8], "checkpoint_activations": twice})
        model = random_model(0, NARROW).train()
        Objective(model, config)(fixed, moving, pseudo, Phase(True, False), 1.0, 7).total.backward()
        gradients = [p.grad for p in model.extractor.block1.parameters() if p.grad is not None]
        found.append([*gradients, *model.extractor.block1.buffers(), *model.extractor.block2.buffers()])
    assert len(found[0]) == len(found[1]) == 4 + 6
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
