"""The error of an inverse is that of the points that count."""

import numpy as np
import pytest
import torch

from corereg.geometry.grid import Grid
from corereg.geometry.inverse_error import inverse_error
from helpers.grids import make_grid


def test_points_that_do_not_count_have_no_say(grid: Grid) -> None:
    centre = torch.tensor(grid.to_world((np.array(grid.shape) - 1) / 2)).view(1, 3, 1, 1, 1)

    def missing(positions: torch.Tensor) -> torch.Tensor:
        return 1 + 0.1 * (positions - centre).norm(dim=1, keepdim=True)

    def inverse(positions: torch.Tensor) -> torch.Tensor:
        return positions + torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1, 1) * missing(positions)

    index = np.argwhere(np.ones(grid.shape, bool))
    points = torch.tensor(grid.to_world(index + 0.5)).T.reshape(1, 3, *grid.shape)
    truth = missing(points)[0, 0].numpy()
    where = truth < np.median(truth)
    roomy = make_grid((70, 80, 90), (4.0, 5.0, 6.0), origin_mm=(-170.0, -180.0, -50.0))
    everywhere = inverse_error(lambda p: p, inverse, roomy, grid)
    counted = inverse_error(lambda p: p, inverse, roomy, grid, where=where)
    assert everywhere.max == pytest.approx(truth.max(), rel=1e-6)
    assert counted.max == pytest.approx(truth[where].max(), rel=1e-6)
    assert counted.mean == pytest.approx(truth[where].mean(), rel=1e-6)
    assert np.isnan(inverse_error(lambda p: p, inverse, roomy, grid, where=np.zeros_like(where)).max)
