"""The energy of the refinement."""

import torch
from torch.testing import assert_close

from corereg.method.refine.energy import Compared, data_energy, diffusion_energy, volume_energy


def test_few_counted_voxels_weigh_as_a_quarter_of_the_grid():
    """All differences are 0.2, the factor is 12 and features are scaled by 5: the mean would be 12."""
    features = torch.zeros(1, 2, 4, 5, 10), torch.full((1, 2, 4, 5, 10), 0.2)
    disp = torch.zeros(1, 3, 4, 5, 10)
    for counted, share in ((10, 1.0), (5, 1.0), (2, 0.8), (1, 0.4), (0, 0.0)):
        weight = torch.zeros(1, 1, 4, 5, 10)
        weight[..., :counted] = 1
        assert_close(data_energy(disp, Compared(features, weight=weight)), torch.tensor(12.0 * share))


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
