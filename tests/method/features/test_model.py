"""What every feature model keeps to."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from corereg.method.features.mind import MindModel
from corereg.method.features.model import project_features
from corereg.method.features.network import random_model
from helpers.networks import made_up_model, noise


@pytest.mark.parametrize("model", [made_up_model(), MindModel(intensity=2.0)], ids=["network", "mind"])
def test_features_of_the_refinement_are_left_out_where_they_are_not_wanted(model):
    with torch.no_grad():
        full, short = (model.encode(noise((32, 48, 16)), (4, 8), shallow=wanted) for wanted in (True, False))
    assert short.shallow is None
    for stride in (4, 8):
        assert torch.equal(full.cost[stride], short.cost[stride])


def test_projected_features_lie_channels_last_in_memory():
    with torch.no_grad():
        shallow = made_up_model().encode(noise((32, 48, 16)), (8,)).shallow
    assert shallow is not None
    assert shallow.permute(0, 2, 3, 4, 1).is_contiguous()
    assert project_features(shallow, 5, seed=0).permute(0, 2, 3, 4, 1).is_contiguous()


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


def test_projection_is_seeded_and_leaves_few_channels_alone():
    features = torch.rand(1, 64, 3, 4, 5)
    assert_close(project_features(features, 32, seed=3), project_features(features, 32, seed=3))
    assert not torch.equal(project_features(features, 32, seed=3), project_features(features, 32, seed=4))
    assert project_features(features[:, :12], 32, seed=3).shape[1] == 12
