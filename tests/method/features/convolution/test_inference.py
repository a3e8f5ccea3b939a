"""The folded network against the modules in float64, and its slabs against the whole."""

import pytest
import torch
from torch import Tensor, nn

from corereg import register
from corereg.method.features import network as features
from corereg.method.features.convolution import inference
from corereg.method.features.convolution.inference import computing_type, convolve, extract, fold
from helpers.networks import made_up_model, noise
from helpers.scenes import centred_grid, scan

SHAPES = [(48, 32, 80), (37, 30, 41)]

CPU = torch.device("cpu")


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    return request.param


def difference(found: Tensor | None, expected: Tensor | None) -> float:
    assert found is not None
    assert expected is not None
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    return float((found - expected).double().detach().norm() / expected.double().detach().norm())


@pytest.mark.parametrize("slab_voxels", [1, 3000, 10**9])
def test_features_are_those_of_the_modules_in_float64(shape, slab_voxels, monkeypatch):
    monkeypatch.setattr(inference, "SLAB_VOXELS", slab_voxels)
    monkeypatch.setattr(inference, "LEAST_PLANES", 1)
    model = made_up_model()
    with torch.no_grad():
        found = model.encode(noise(shape), (8, 4))
    with torch.enable_grad():
        expected = model.double().encode(noise(shape).double(), (8, 4))
    assert difference(found.shallow, expected.shallow) < 1e-6
    for stride in (8, 4):
        assert difference(found.cost[stride], expected.cost[stride]) < 2e-6


def test_slabs_of_any_size_give_what_the_whole_gives(shape, monkeypatch):
    model = made_up_model()
    results = []
    for slab_voxels in (1, 2000, 10**9):
        monkeypatch.setattr(inference, "SLAB_VOXELS", slab_voxels)
        monkeypatch.setattr(inference, "LEAST_PLANES", 1)
        with torch.no_grad():
            results.append(extract(model.extractor.blocks, noise(shape), torch.float32, shallow=True))
    for shallow, deep in results[:-1]:
        assert difference(shallow, results[-1][0]) < 1e-6
        assert difference(deep, results[-1][1]) < 1e-6


def test_planes_of_a_convolution_from_part_of_its_input():
    block = made_up_model().extractor.block3
    layer = fold(block, torch.float32)
    source = torch.randn(1, 12, 15, 6, 7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = convolve(layer, source)
        for first, last in ((0, 3), (2, 5), (4, 8)):
            origin = max(2 * first - 1, 0)
            part = source[:, :, origin : 2 * last]
            found = convolve(layer, part, origin=origin, first=first, last=last)
            assert difference(found, whole[:, :, first:last]) < 1e-6


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.03), ("fp16", 0.004)])
def test_half_precision_is_near_and_not_the_same(shape, precision, tolerance):
    model = made_up_model()
    with torch.no_grad():
        exact = model.encode(noise(shape), (8, 4))
        model.precision = precision
        rough = model.encode(noise(shape), (8, 4))
    for found, expected in ((rough.shallow, exact.shallow), (rough.cost[8], exact.cost[8])):
        assert 1e-5 < difference(found, expected) < tolerance


def test_gradients_flow_where_they_are_recorded():
    model = made_up_model()
    model.encode(noise((32, 48, 16)), (8,)).cost[8].sum().backward()
    assert all(p.grad is not None for p in model.extractor.parameters())


def test_training_normalises_by_the_batch_also_without_gradients():
    model = made_up_model().train()
    before = [m.num_batches_tracked.item() for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    with torch.no_grad():
        model.encode(noise((32, 48, 16)), (8,))
    after = [m.num_batches_tracked.item() for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    assert after == [n + 1 for n in before]


@pytest.mark.parametrize("change", ["state", "step", "data", "statistics"])
def test_changed_weights_count_at_once(change):
    model, image = made_up_model(), noise((32, 48, 16))
    with torch.no_grad():
        before = model.encode(image, (8,)).cost[8]
    weight = model.extractor.block1[0].weight
    if change == "state":
        model.load_state_dict({k: 0.5 * v if v.is_floating_point() else v for k, v in model.state_dict().items()})
    elif change == "step":
        optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
        model.encode(image, (8,)).cost[8].sum().backward()
        optimiser.step()
    elif change == "data":
        weight.data *= 0.5
    else:
        model.extractor.block2[1].running_var *= 3
    with torch.no_grad():
        after = model.encode(image, (8,)).cost[8]
    assert difference(after, before) > 1e-2
    expected = model.double().encode(image.double(), (8,)).cost[8]
    assert difference(after, expected) < 2e-6


@pytest.mark.parametrize(("units", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_automatic_precision_goes_by_the_processors_matrix_units(units, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units, raising=False)
    assert computing_type("auto", CPU) == expected
    assert computing_type("bf16", CPU) == torch.bfloat16
    assert computing_type("fp32", CPU) == torch.float32


def test_automatic_precision_where_torch_does_not_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert computing_type("auto", CPU) == torch.float32


FIXED, MOVING = (scan(centred_grid(shape, (3.0, 3.0, 3.5))) for shape in ((48, 40, 36), (44, 42, 38)))


def test_precision_reaches_the_network(monkeypatch):
    seen = []
    monkeypatch.setattr(features, "computing_type", lambda precision, _: seen.append(precision) or torch.float32)
    register(FIXED, MOVING, affine="none", model="random", precision="bf16", refine_steps=0)
    assert set(seen) == {"bf16"}


def test_memory_bound_makes_the_working_grid_coarser_and_says_so():
    free = register(FIXED, MOVING, affine="none", refine_steps=0)
    with pytest.warns(UserWarning, match="--memory"):
        bound = register(FIXED, MOVING, affine="none", refine_steps=0, memory=0.015)
    assert bound.refined.grid.spacing[0] > 1.05 * free.refined.grid.spacing[0]
