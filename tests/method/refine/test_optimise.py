"""Instance optimisation."""

import pytest
import torch
from torch.testing import assert_close

from corereg.geometry.displacement import jacobian_determinant
from corereg.method.config import PipelineConfig, RefineConfig
from corereg.method.features.mind import MindModel
from corereg.method.pipeline import register_volumes
from corereg.method.refine.energy import Compared, energy
from corereg.method.refine.optimise import refine
from helpers.windows import scene, shifted_pair


def test_refinement_lowers_the_energy_and_starts_from_the_smoothed_start():
    fixed, moving = (f.encode(v, [8]).shallow for f, v in zip([MindModel()] * 2, shifted_pair(0, 2), strict=True))
    start = torch.zeros(1, 3, *fixed.shape[2:])
    config = RefineConfig(regularisation=1.0, learning_rate=0.2)
    disp, losses = refine(Compared((fixed, moving)), start, config)
    assert losses[0] == pytest.approx(float(energy(start, Compared((fixed, moving)), config)), rel=1e-4)
    assert losses[-1] < 0.5 * losses[0]
    assert energy(disp, Compared((fixed, moving)), config) < 0.5 * losses[0]


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
    clean = refine(Compared((fixed, moving), weight=weight), start, config)[0]
    assert_close(refine(Compared((fixed, spoilt), weight=weight), start, config)[0], clean)
    assert (refine(Compared((fixed, spoilt)), start, config)[0] - clean).abs().max() > 0.1


def test_a_start_near_the_optimum_is_not_left_for_a_worse_displacement():
    """Two of Adam's steps of half a voxel, away from the answer, cannot lead back to it."""
    fixed = 0.1 * torch.rand(1, 4, 6, 8, 7, generator=torch.Generator().manual_seed(1))
    moving = fixed + 1e-3 * torch.rand(fixed.shape, generator=torch.Generator().manual_seed(2))
    start = torch.zeros(1, 3, *fixed.shape[2:])
    config = RefineConfig(steps=2, learning_rate=0.5, regularisation=1.0)
    disp, losses = refine(Compared((fixed, moving)), start, config)
    assert losses[1] > 10 * losses[0]
    assert torch.equal(disp, start)


def test_flow_does_not_fold_where_displacements_tear():
    strangers = [0.3 * scene((48, 64, 32), seed=s, extra=0)[None, None] for s in (5, 6)]
    folds = []
    for parametrisation in ("displacement", "diffeomorphic"):
        refine = RefineConfig(regularisation=2.0, smoothing=3, reach=0, parametrisation=parametrisation)
        config = PipelineConfig(refine=refine, symmetric=False, fine=False)
        found = register_volumes(*strangers, MindModel(), config)
        folds.append(float((jacobian_determinant(found.refined) <= 0).double().mean()))
    assert folds[0] > 0.01
    assert folds[1] == 0
