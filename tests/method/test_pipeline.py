"""The stages against hand-written loops, planted shifts and known fields, on unequal grids."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.testing import assert_close

from corereg.geometry.displacement import compose, inverse_consistent, jacobian_determinant, sdlogj
from corereg.geometry.warp import warp
from corereg.method import pipeline as stages
from corereg.method.coarse.cost_volume import candidates_vox, cost_volume
from corereg.method.coarse.coupled_convex import CoupledConvexConfig, coupled_convex, match
from corereg.method.features.mind import MindModel, mind_ssc
from corereg.method.features.model import project_features
from corereg.method.features.network import FeatureExtractor, NetworkConfig, random_model
from corereg.method.pipeline import PipelineConfig, register_volumes
from corereg.method.refine.energy import Compared, RefineConfig, diffusion_energy, energy, volume_energy
from corereg.method.refine.optimise import refine
from corereg.method.refine.regularisation_search import search_regularisation

SHAPE = (64, 80, 96)


def scene(shape=SHAPE, seed=0, extra=32):
    """Smooth structure at several scales, with `extra` voxels more on every side than `shape`."""
    rng = np.random.default_rng(seed)
    full = [n + 2 * extra for n in shape]
    layers = [ndimage.gaussian_filter(rng.normal(size=full), s) * s**1.5 for s in (2, 4, 8)]
    volume = sum(layers) / np.std(sum(layers))
    return torch.as_tensor(volume, dtype=torch.float32)


def shifted_pair(axis, shift, extra=32):
    """Two windows of one scene: moving(x + shift along axis) = fixed(x)."""
    volume = 0.3 * scene(extra=extra)
    fixed = volume[tuple(slice(extra, extra + n) for n in SHAPE)]
    start = [extra - (shift if a == axis else 0) for a in range(3)]
    moving = volume[tuple(slice(s, s + n) for s, n in zip(start, SHAPE, strict=True))]
    return fixed[None, None].contiguous(), moving[None, None].contiguous()


# Features


def test_parameters_are_those_of_the_paper():
    assert sum(p.numel() for p in random_model(config=NetworkConfig()).parameters()) == pytest.approx(1.17e6, rel=0.01)


def test_stages_have_their_strides_and_channels():
    stages = FeatureExtractor(NetworkConfig())(torch.zeros(1, 1, 32, 48, 64))
    assert stages.shallow.shape == (1, 64, 16, 24, 32)
    assert stages.deep.shape == stages.deep_conv.shape == (1, 128, 8, 12, 16)


@pytest.mark.parametrize("model", [MindModel(), random_model()], ids=["mind", "random"])
def test_features_of_a_strided_grid_sit_on_the_strided_voxels(model):
    """A blob mirrored about voxel 8 i gives features mirrored about feature i: they do not sit on 8 i + 3.5."""
    n = 65
    axis = np.arange(n)
    blob = np.exp(-(((axis - 32) / 6.0) ** 2))
    volume = torch.as_tensor(blob[:, None, None] * blob[None, :, None] * blob[None, None, :], dtype=torch.float32)
    if model.name == "mind":
        features = model.encode(volume[None, None], [8]).cost[8]
        energy_at = (features - features.amax()).square().sum((0, 1))
        profile = energy_at.sum((1, 2))
        assert_close(profile, profile.flip(0), rtol=1e-3, atol=1e-3 * float(profile.max()))
    else:
        constant = model.extractor.block1[0]
        with torch.no_grad():
            constant.weight.copy_(constant.weight.abs().mean(dim=(2, 3, 4), keepdim=True).expand_as(constant.weight))
            response = constant(volume[None, None])[0, 0].sum((1, 2))
        assert int(response.argmax()) == 16


def test_mind_does_not_change_under_a_linear_intensity_map():
    volume = scene((20, 24, 28), extra=0)[None, None]
    assert_close(mind_ssc(volume), mind_ssc(-2.5 * volume + 7), rtol=1e-3, atol=1e-4)


def test_mind_of_a_constant_image_is_finite():
    assert torch.isfinite(mind_ssc(torch.full((1, 1, 12, 14, 10), 3.0))).all()


# Cost volume and coupled convex


def test_cost_volume_equals_a_loop():
    rng = np.random.default_rng(0)
    f, m = (torch.as_tensor(rng.normal(size=(1, 4, 5, 6, 7))) for _ in range(2))
    cost = cost_volume(f, m, radius=1)
    raw = np.empty((27, 5, 6, 7))
    for n, d in enumerate(itertools.product((-1, 0, 1), repeat=3)):
        for x in np.ndindex(5, 6, 7):
            y = tuple(np.clip(np.add(x, d), 0, (4, 5, 6)))
            raw[n][x] = float((f[(0, slice(None), *x)] - m[(0, slice(None), *y)]).abs().sum())
    x = (2, 3, 3)
    block = (slice(None), slice(1, 4), slice(2, 5), slice(2, 5))
    assert_close(cost[(0, slice(None), *x)], torch.as_tensor(raw[block].mean((1, 2, 3))))
    assert candidates_vox(1, like=f).tolist() == [list(map(float, d)) for d in itertools.product((-1, 0, 1), repeat=3)]


def test_coupled_convex_equals_its_definition_where_all_voxels_are_alike():
    """The means do nothing there and the alternation can be written out."""
    rng = np.random.default_rng(1)
    candidates = candidates_vox(2, like=torch.zeros(1, dtype=torch.float64))
    c, d = rng.uniform(0, 0.4, 125), candidates.numpy()
    cost = torch.as_tensor(c).view(1, 125, 1, 1, 1).expand(1, 125, 3, 4, 5).contiguous()

    def mean(total):
        weights = np.exp(-20 * (total - total.min()))
        return (weights[:, None] * d).sum(0) / weights.sum()

    u = mean(c)
    for a in (0.003, 0.03, 0.3):
        u = mean(c + a * ((d - u) ** 2).sum(1))
    found = coupled_convex(cost, candidates, sharpness=20.0, couplings=(0.003, 0.03, 0.3))
    assert_close(found[0, :, 1, 2, 3], torch.as_tensor(u))


def test_gradients_reach_both_images_through_the_optimiser():
    rng = np.random.default_rng(2)
    features = [torch.as_tensor(rng.normal(0, 0.1, (1, 2, 3, 4, 3))).requires_grad_() for _ in range(2)]
    config = CoupledConvexConfig(radius=1, inverse_consistency_steps=0)
    assert torch.autograd.gradcheck(lambda f, m: match(f, m, config), features, atol=1e-5, rtol=1e-3, fast_mode=True)


def test_inverse_consistency_brings_both_directions_together():
    rng = np.random.default_rng(3)
    forward, backward = (
        torch.as_tensor(ndimage.gaussian_filter(rng.normal(size=(1, 3, 12, 14, 16)), (0, 0, 3, 3, 3)) * 40)
        for _ in range(2)
    )
    backward = -forward + 0.3 * backward
    before = compose(backward, forward).norm(dim=1).mean()
    ours = inverse_consistent(forward, backward, steps=15)
    assert compose(ours[1], ours[0]).norm(dim=1).mean() < 0.2 * before


@pytest.mark.parametrize(("shift", "tolerance"), [(8, 0.3), (13, 1.0)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planted_shift_is_recovered_rim_included(axis, shift, tolerance):
    """Zero padding keeps 2.2 of 8 voxels at the border; reading features at 8 i + 3.5 is off by 3.5 voxels."""
    fixed, moving = shifted_pair(axis, shift)
    found = register_volumes(fixed, moving, MindModel(), PipelineConfig(refine=RefineConfig(regularisation=1.0)))
    truth = torch.zeros(1, 3, 1, 1, 1)
    truth[:, axis] = shift
    overlap = (..., *(slice(None, n - shift) if a == axis else slice(None) for a, n in enumerate(SHAPE)))
    coarse, refined = (float((u - truth)[overlap].norm(dim=1).mean()) for u in (found.coarse, found.refined))
    assert coarse < tolerance
    assert refined < 0.15


def test_second_pass_adds_what_the_first_has_left():
    """13 voxels are beyond what the soft-argmin of one 1/8 pass can say exactly."""
    fixed, moving = shifted_pair(1, 13)
    one, two = (
        register_volumes(fixed, moving, MindModel(), PipelineConfig(passes=passes, refine=RefineConfig(steps=0)))
        for passes in ((8,), (8, 8))
    )
    truth = torch.tensor([0.0, 13.0, 0.0]).view(1, 3, 1, 1, 1)
    errors = [float((r.coarse - truth)[:, :, :, :-13].norm(dim=1).mean()) for r in (one, two)]
    assert errors[1] < errors[0]


def test_known_smooth_field_is_recovered():
    volume = 0.3 * scene(extra=0, seed=4)[None, None]
    i, j, k = torch.meshgrid(*(torch.arange(float(n)) for n in SHAPE), indexing="ij")
    truth = torch.stack([4 * torch.sin(j / 16), 5 * torch.cos(k / 18), 3 * torch.sin((i + j) / 20)])[None]
    fixed = warp(volume, truth)
    found = register_volumes(fixed, volume, MindModel(), PipelineConfig())
    inner = (..., *(slice(8, -8),) * 3)
    assert (found.coarse - truth)[inner].norm(dim=1).mean() < 1.5
    assert (found.refined - truth)[inner].norm(dim=1).mean() < 0.4


def test_both_ways_at_once_fold_less_and_lose_no_accuracy():
    """Two scenes that do not belong together tear a displacement; a smooth motion is found as well as one way."""
    strangers = [0.3 * scene(extra=0, seed=s)[None, None] for s in (5, 6)]
    loose = RefineConfig(regularisation=2.0)
    folds = []
    for symmetric in (False, True):
        found = register_volumes(*strangers, MindModel(), PipelineConfig(refine=loose, symmetric=symmetric)).refined
        folds.append(float((jacobian_determinant(found) <= 0).double().mean()))
    assert folds[0] > 0.01
    assert folds[1] < 0.1 * folds[0]
    volume = strangers[0]
    i, j, k = torch.meshgrid(*(torch.arange(float(n)) for n in SHAPE), indexing="ij")
    truth = torch.stack([4 * torch.sin(j / 16), 5 * torch.cos(k / 18), 3 * torch.sin((i + j) / 20)])[None]
    found = register_volumes(warp(volume, truth), volume, MindModel(), PipelineConfig(symmetric=True))
    assert (found.refined - truth)[(..., *(slice(8, -8),) * 3)].norm(dim=1).mean() < 0.4


def test_shapes_that_are_no_multiple_of_16_are_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        register_volumes(torch.zeros(1, 1, 30, 32, 32), torch.zeros(1, 1, 30, 32, 32), MindModel(), PipelineConfig())


def test_model_with_the_paper_s_head_alone_runs_the_paper_s_passes():
    """Its file must work without an option: a pass on the 1/4 grid would ask for a head that it has not."""
    model = random_model(config=NetworkConfig(strides=(8,)))
    volume = 0.3 * scene((32, 48, 64), extra=0)[None, None]
    found = register_volumes(volume, volume, model, PipelineConfig(refine=RefineConfig(steps=0)))
    assert model.passes == (8, 8)
    assert found.coarse.abs().max() < 0.5


# Instance optimisation


def test_diffusion_of_a_linear_field_is_the_sum_of_its_squared_slopes():
    i, _, k = torch.meshgrid(*(torch.arange(float(n)) for n in (6, 7, 8)), indexing="ij")
    disp = torch.stack([0.5 * i, 0.2 * k, torch.zeros_like(i)])[None]
    assert_close(diffusion_energy(disp), torch.tensor((0.5**2 + 0.2**2) / 3))


def test_volume_energy_of_a_linear_displacement_is_its_squared_divergence():
    """A shear keeps the volume, a stretch by 1.3 and a squeeze by 0.9 do not."""
    i, j, k = torch.meshgrid(*(torch.arange(float(n)) for n in (5, 7, 6)), indexing="ij")
    disp = torch.stack([0.3 * i + 0.5 * k, -0.1 * j, 0.2 * i])[None]
    assert_close(volume_energy(disp), torch.tensor(0.2**2))
    assert volume_energy(disp[:, :, :2]) == 0


def test_refinement_lowers_the_energy_and_starts_from_the_smoothed_start():
    fixed, moving = (f.encode(v, [8]).shallow for f, v in zip([MindModel()] * 2, shifted_pair(0, 2), strict=True))
    start = torch.zeros(1, 3, *fixed.shape[2:])
    config = RefineConfig(regularisation=1.0, learning_rate=0.2)
    disp, losses = refine(fixed, moving, start, config)
    assert losses[0] == pytest.approx(float(energy(start, Compared(fixed, moving, None), config)), rel=1e-4)
    assert losses[-1] < 0.5 * losses[0]
    assert energy(disp, Compared(fixed, moving, None), config) < 0.5 * losses[0]


def test_voxels_of_no_weight_pull_on_nothing():
    """What the moving image shows where nothing counts must not change the field anywhere."""
    fixed, moving = (MindModel().encode(v, [8]).shallow for v in shifted_pair(0, 2))
    spoilt = moving.clone()
    # In the range of the rest, which the kernels' unit goes by: another one would round everything differently.
    noise = torch.rand(moving[:, :, :8].shape, generator=torch.Generator().manual_seed(0))
    spoilt[:, :, :8] = moving.amax() * noise
    weight = torch.ones(1, 1, *fixed.shape[2:])
    weight[:, :, :16] = 0
    start = torch.zeros(1, 3, *fixed.shape[2:])
    config = RefineConfig(steps=10, learning_rate=0.2, regularisation=1.0)
    clean = refine(fixed, moving, start, config, weight=weight)[0]
    assert_close(refine(fixed, spoilt, start, config, weight=weight)[0], clean)
    assert (refine(fixed, spoilt, start, config)[0] - clean).abs().max() > 0.1


def test_projection_is_seeded_and_leaves_few_channels_alone():
    features = torch.rand(1, 64, 3, 4, 5)
    assert_close(project_features(features, 32, seed=3), project_features(features, 32, seed=3))
    assert not torch.equal(project_features(features, 32, seed=3), project_features(features, 32, seed=4))
    assert project_features(features[:, :12], 32, seed=3).shape[1] == 12


# Smoothness as a target


def test_search_finds_the_regularisation_of_a_known_curve():
    tried = []

    def evaluate(r):
        tried.append(r)
        return 0.3 * r**-0.35, r

    r, outcome = search_regularisation(evaluate, target=0.07, start=1.0)
    assert abs(0.3 * r**-0.35 - 0.07) <= 0.005
    assert outcome == r
    assert len(tried) <= 8


def test_search_returns_the_closest_where_the_target_is_out_of_reach():
    r, _ = search_regularisation(lambda r: (0.02 / (1 + 1e-4 * r), None), target=0.5, start=10.0)
    assert r == pytest.approx(0.005)


def test_registration_reaches_the_wanted_sdlogj():
    volume = 0.3 * scene(extra=0, seed=5)[None, None]
    other = 0.3 * scene(extra=0, seed=6)[None, None]
    found = register_volumes(volume, 0.5 * volume + 0.5 * other, MindModel(), PipelineConfig(target_sdlogj=0.08))
    assert sdlogj(found.refined) == pytest.approx(0.08, abs=0.005)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PipelineConfig(passes=()), "passes"),
        (lambda: PipelineConfig(passes=(8, 3)), "passes"),
        (lambda: PipelineConfig(target_sdlogj=-0.1), "target_sdlogj"),
        (lambda: RefineConfig(steps=-1), "steps"),
        (lambda: RefineConfig(regularisation=-1.0), "regularisation"),
        (lambda: CoupledConvexConfig(radius=0), "radius"),
        (lambda: NetworkConfig(strides=(3,)), "strides"),
    ],
)
def test_impossible_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_refinement_on_the_full_grid_finds_what_the_half_grid_cannot():
    """A ripple of 10 voxels from crest to crest: five voxels of the 1/2 grid, which its smoothing takes out."""
    volume = 0.3 * scene(extra=0, seed=4)[None, None]
    i, _, k = torch.meshgrid(*(torch.arange(float(n)) for n in SHAPE), indexing="ij")
    ripple = 1.2 * torch.sin(2 * torch.pi * k / 10)
    truth = torch.stack([ripple, 0 * i, 0 * i])[None]
    errors = []
    for fine in (False, True):
        config = PipelineConfig(fine=fine, refine=RefineConfig(regularisation=1.0))
        found = register_volumes(warp(volume, truth), volume, MindModel(intensity=3.0), config)
        inner = (..., *(slice(8, -8),) * 3)
        errors.append(float((found.refined - truth)[inner].norm(dim=1).mean()))
        assert len(found.losses) == (80 if fine else 50)
    assert errors[1] < 0.8 * errors[0]


def test_full_grid_is_refined_by_itself_where_it_is_small(monkeypatch):
    volume = scene(extra=0, seed=4)[None, None]
    steps = {}
    for most in (volume.numel() - 1, volume.numel()):
        monkeypatch.setattr(stages, "FINE_VOXELS", most)
        config = PipelineConfig(refine=RefineConfig(steps=5))
        steps[most] = len(register_volumes(volume, volume, MindModel(), config).losses)
    assert list(steps.values()) == [5, 5 + 3]


def test_flow_does_not_fold_where_displacements_tear():
    strangers = [0.3 * scene(extra=0, seed=s)[None, None] for s in (5, 6)]
    folds = []
    for parametrisation in ("displacement", "diffeomorphic"):
        refine = RefineConfig(regularisation=2.0, parametrisation=parametrisation)
        config = PipelineConfig(refine=refine, symmetric=False, fine=False)
        found = register_volumes(*strangers, MindModel(), config)
        folds.append(float((jacobian_determinant(found.refined) <= 0).double().mean()))
    assert folds[0] > 0.01
    assert folds[1] == 0


def test_fine_features_put_a_network_without_descriptors_off():
    volume = scene(extra=0, seed=4)[None, None]
    config = PipelineConfig(passes=(8,), fine=True, refine=RefineConfig(steps=5))
    model = random_model(config=NetworkConfig(strides=(8,)))
    assert len(register_volumes(volume, volume, model, config).losses) == 5
