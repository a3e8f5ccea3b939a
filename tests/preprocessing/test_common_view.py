"""What both images of a pair show."""

import numpy as np
import pytest
import torch

from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.preprocessing.common_view import hold_beyond_common_view
from corereg.preprocessing.detection import Intensities
from corereg.preprocessing.pair import Scan, prepare_pair
from helpers.grids import make_grid
from helpers.scenes import centred_grid, scan

WORKING = Grid((32, 48, 32), np.diag([2.0, 2.0, 2.0, 1.0]))


def window(shape: tuple[int, int, int], first: tuple[int, int, int]) -> Grid:
    """A grid of the working grid's voxels."""
    affine = WORKING.affine.copy()
    affine[:3, 3] = WORKING.to_world(first)
    return Grid(shape, affine)


def test_values_beyond_the_common_view_are_those_at_its_edge() -> None:
    volumes = [torch.rand(1, 1, *WORKING.shape, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    views = [(window((20, 40, 32), (0, 4, 0)), None), (window((32, 30, 7), (5, 0, 12)), None)]
    found = hold_beyond_common_view(volumes, WORKING, views)
    nearest = np.ix_(*(np.arange(n).clip(*ends) for n, ends in zip(WORKING.shape, ((5, 19), (4, 29), (12, 18)))))  # noqa: B905
    for before, after in zip(volumes, found, strict=True):
        np.testing.assert_allclose(after[0, 0].numpy(), before[0, 0].numpy()[nearest], atol=1e-5)


def test_equal_views_leave_the_volumes_as_they_are() -> None:
    volumes = [torch.rand(1, 1, *WORKING.shape)] * 2
    view = window((20, 40, 32), (0, 4, 0))
    assert all(
        a is b for a, b in zip(hold_beyond_common_view(volumes, WORKING, [(view, None)] * 2), volumes, strict=True)
    )


def test_turned_view_ends_on_its_own_faces() -> None:
    """A ramp along the turned view's first axis is cut off at that view's first and last voxel."""
    view = make_grid((14, 20, 16), (2.0, 2.0, 2.0), "oblique", (20.0, 18.0, 16.0))
    coords = view.to_voxel(WORKING.to_world(np.stack(np.indices(WORKING.shape), -1)))
    ramp = torch.as_tensor(coords[..., 0], dtype=torch.float32)[None, None]
    held = hold_beyond_common_view([ramp, ramp], WORKING, [(WORKING, None), (view, None)])[0][0, 0].numpy()
    inside = ((coords >= 0) & (coords <= np.array(view.shape) - 1)).all(-1)
    np.testing.assert_allclose(held[inside], coords[..., 0][inside], atol=1e-4)
    reached = held[~inside]
    assert reached.min() > -2.5
    assert reached.max() < 15.5
    assert coords[..., 0].min() < -8


@pytest.mark.parametrize("masked", [False, True])
def test_weights_are_the_common_view_inside_each_mask(masked: bool) -> None:
    fixed, moving = scan(centred_grid((30, 28, 20), (4.0, 4.0, 4.0))), scan(centred_grid((30, 28, 8), (4.0, 4.0, 4.0)))
    mask = np.zeros(fixed.grid.shape, dtype=bool)
    mask[:15] = True
    ct = Intensities("ct")
    working = Grid((32, 32, 32), fixed.grid.affine)
    scans = [Scan(fixed, ct, mask if masked else None), Scan(moving, ct)]
    pair = prepare_pair(scans, working, affine=None, device=torch.device("cpu"))
    common = np.zeros(working.shape)
    common[:30, :28, 6:14] = 1
    np.testing.assert_array_equal(pair.moving_weight[0, 0].numpy(), common)
    if masked:
        common[15:] = 0
    np.testing.assert_array_equal(pair.fixed_weight[0, 0].numpy(), common)
    assert torch.equal(pair.fixed[0, 0, :, :, 0], pair.fixed[0, 0, :, :, 6])


def test_weight_is_omitted_where_everything_counts() -> None:
    grid = centred_grid((32, 48, 32), (4.0, 4.0, 4.0))
    pair = prepare_pair([Scan(scan(grid), Intensities("ct"))] * 2, grid, affine=None, device=torch.device("cpu"))
    assert pair.fixed_weight is None
    assert pair.moving_weight is None


def test_image_name_stands_in_the_refusal() -> None:
    near, far = (
        scan(centred_grid((20, 23, 18), (4.0, 3.6, 4.4), "oblique"), name="near"),
        centred_grid((9, 11, 8), (4.0, 5.0, 3.0), "LPS", (900.0, 0.0, 0.0)),
    )
    other = Image(np.random.default_rng(0).normal(size=far.shape).astype(np.float32), far, name="far")
    with pytest.raises(Exception, match="near and far, whose fields of view"):
        prepare_pair(
            [Scan(near, Intensities("ct")), Scan(other, Intensities("mr"))],
            near.grid,
            affine=None,
            device=torch.device("cpu"),
        )
