"""The stages in order: planted shifts and known fields, on unequal grids."""

import pytest
import torch

from corereg.geometry.displacement import jacobian_determinant, sdlogj
from corereg.geometry.warp import warp
from corereg.method import pipeline as stages
from corereg.method.config import CoupledConvexConfig, PipelineConfig, RefineConfig
from corereg.method.features.label_codes import codes_of
from corereg.method.features.mind import MindModel
from corereg.method.features.network import NetworkConfig, random_model
from corereg.method.guidance.known import Guide
from corereg.method.guidance.labels import LabelGuide
from corereg.method.pipeline import register_volumes
from corereg.method.refine.correlation import contrast_agreement
from helpers.windows import SHAPE, scene, shifted_pair


@pytest.mark.parametrize(
    ("axis", "shift", "tolerance"),
    [
        *((0, 8, 0.3), (1, 13, 1.0), (2, 8, 0.3)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((0, 13, 1.0), (1, 8, 0.3), (2, 13, 1.0))),
    ],
)
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
    loose = RefineConfig(regularisation=1.0)
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


def test_registration_reaches_the_wanted_sdlogj():
    volume = 0.3 * scene(extra=0, seed=5)[None, None]
    other = 0.3 * scene(extra=0, seed=6)[None, None]
    config = PipelineConfig(target_sdlogj=0.025, fine=False)
    found = register_volumes(volume, 0.5 * volume + 0.5 * other, MindModel(), config)
    assert sdlogj(found.refined) == pytest.approx(0.025, abs=0.005)


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
    with pytest.raises((ValueError, TypeError), match=message):  # the tests' type checker may come first
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
        assert len(found.losses) == (36 if fine else 18)
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize(
    ("similarity", "bound"), [("features", "FINE_VOXELS"), ("correlation", "FINE_VOXELS_CORRELATED")]
)
def test_full_grid_is_refined_by_itself_where_it_is_small(similarity, bound, monkeypatch):
    volume = scene(extra=0, seed=4)[None, None]
    steps = {}
    for most in (volume.numel() - 1, volume.numel()):
        monkeypatch.setattr(stages, bound, most)
        config = PipelineConfig(refine=RefineConfig(steps=5, similarity=similarity))
        steps[most] = len(register_volumes(volume, volume, MindModel(), config).losses)
    assert list(steps.values()) == [5, 5 + 5]


def test_local_correlation_is_chosen_for_one_contrast_and_features_otherwise():
    """The same anatomy under a bias field, and with its intensities reversed."""
    volume = 0.3 * scene(extra=0, seed=4)[None, None]
    bias = torch.linspace(0.7, 1.3, SHAPE[1]).view(1, 1, 1, -1, 1)
    config = PipelineConfig(refine=RefineConfig(steps=1))
    assert register_volumes(volume, bias * volume, MindModel(), config).similarity == "correlation"
    assert register_volumes(volume, 1 - volume, MindModel(), config).similarity == "features"


def test_scans_that_share_a_border_but_not_the_order_of_tissues_are_compared_by_features():
    """As T1 with T2 of a skull-stripped brain: bright in the same dark surroundings, and inverted within."""
    volume = scene(extra=0, seed=4)[None, None]
    body = torch.zeros_like(volume)
    body[..., 8:-8, 8:-8, 8:-8] = 1
    first, second = body * (1 + 0.3 * volume), body * (3 - 0.3 * volume)
    assert contrast_agreement(first, second) > 2 * stages.ONE_CONTRAST
    config = PipelineConfig(refine=RefineConfig(steps=1))
    assert register_volumes(first, second, MindModel(), config).similarity == "features"
    assert register_volumes(first, 2 * first, MindModel(), config).similarity == "correlation"


def test_flat_regions_weigh_less_unless_labels_guide_there(monkeypatch):
    """What the refinement is given, at each voxel: images of one contrast, images with labels, and features alone."""
    fixed = 0.3 * scene(extra=0, seed=4)[None, None]
    fixed[..., :20, :] = 0  # air
    drawn = (fixed[0, 0] > 0.1).to(torch.int64)
    given = []
    plain = stages.refine_pair
    monkeypatch.setattr(stages, "refine_pair", lambda *pair: given.append(pair[0]) or plain(*pair))
    config = PipelineConfig(refine=RefineConfig(steps=1))
    register_volumes(fixed, fixed, MindModel(), config)
    register_volumes(fixed, fixed, MindModel(), config, guide=Guide(LabelGuide((drawn, drawn), codes_of(1), 3.0)))
    register_volumes(fixed, 1 - fixed, MindModel(), config)
    weights = [directions[0].half.weight for directions in given]
    assert float(weights[0][..., :8, :].max()) == 0
    assert float(weights[0].mean()) > 0.3
    assert weights[1] is weights[2] is None


def test_fine_features_put_a_network_without_descriptors_off():
    volume = scene(extra=0, seed=4)[None, None]
    config = PipelineConfig(passes=(8,), fine=True, refine=RefineConfig(steps=5, similarity="features"))
    model = random_model(config=NetworkConfig(strides=(8,)))
    assert len(register_volumes(volume, volume, model, config).losses) == 5
