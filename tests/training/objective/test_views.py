"""Augmented views and the pseudo-labels carried onto them."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from corereg.geometry.warp import sample
from corereg.training.objective.views import (
    bezier_map,
    change_appearance,
    for_stride,
    random_affine,
    transport,
    valid_region,
    view,
)

SHAPE = (20, 16, 24)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_field(shape: tuple[int, int, int], amplitude: float, period: float = 19.0) -> torch.Tensor:
    grids = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
    waves = [torch.sin(2 * torch.pi * (grids[(a + 1) % 3] / period + a / 5)) for a in range(3)]
    return amplitude * torch.stack(waves)[None]


def test_an_affine_of_the_paper_is_drawn_in_coordinates_from_minus_one_to_one():
    drawn = torch.stack([random_affine(0.1, SHAPE, generator=seeded(s)) for s in range(400)])
    to_norm = torch.eye(4, dtype=torch.float64)
    for axis, size in enumerate(SHAPE):
        to_norm[axis, axis], to_norm[axis, 3] = 2 / (size - 1), -1
    normalised = to_norm @ drawn @ torch.linalg.inv(to_norm) - torch.eye(4, dtype=torch.float64)
    assert float(normalised[:, :3].std()) == pytest.approx(0.1, rel=0.05)
    assert float(normalised[:, 3].abs().max()) < 1e-9


def test_a_strided_map_is_the_same_map():
    affine = random_affine(0.2, SHAPE, generator=seeded())
    point = torch.tensor([3.0, 2.0, 5.0, 1.0], dtype=torch.float64)
    coarse = for_stride(affine, 4) @ point
    fine = affine @ torch.cat([4 * point[:3], point[3:]])
    torch.testing.assert_close(4 * coarse[:3], fine[:3])


def test_view_is_scipys_affine_transform():
    image = torch.randn(1, 1, *SHAPE, generator=seeded())
    affine = random_affine(0.1, SHAPE, generator=seeded(3))
    matrix = affine.numpy()
    expected = ndimage.affine_transform(image[0, 0].numpy(), matrix[:3, :3], matrix[:3, 3], order=1, mode="nearest")
    np.testing.assert_allclose(view(image, [affine])[0, 0].numpy(), expected, atol=1e-4)


def test_a_view_is_valid_where_it_shows_the_image():
    image = torch.zeros(1, 1, *SHAPE)
    shift = torch.eye(4, dtype=torch.float64)
    shift[0, 3] = 5
    valid = valid_region(image, [shift])
    assert bool(valid[:, :, :15].all())
    assert not bool(valid[:, :, 15:].any())


def test_pseudo_labels_are_transported_exactly():
    """The augmented label warps the augmented moving image onto the augmented fixed one: F'(x) = M'(x + u'(x))."""
    shape, stride = (48, 40, 56), 2
    a1 = random_affine(0.03, shape, generator=seeded(5))
    a2 = random_affine(0.02, shape, generator=seeded(6), after=a1)
    half = tuple(n // stride for n in shape)
    u_half = smooth_field(half, 1.5)

    def moving_at(coords: torch.Tensor) -> torch.Tensor:  # an image known everywhere, in voxels of the full grid
        return torch.sin(coords[:, 0] / 5) + torch.cos(coords[:, 1] / 6) + torch.sin((coords[:, 2] + coords[:, 0]) / 7)

    moved = transport(u_half, [a1], [a2], stride=stride)
    x = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in half), indexing="ij"))[None]
    to_full = lambda coords, affine: _applied(affine, stride * coords)  # noqa: E731
    fixed_side = to_full(x, a1)
    u_there = sample(u_half, fixed_side / stride)
    through_label = moving_at(fixed_side + stride * u_there)
    through_view = moving_at(to_full(x + moved, a2))
    torch.testing.assert_close(through_view, through_label, atol=1e-9, rtol=0)


def _applied(matrix: torch.Tensor, coords: torch.Tensor) -> torch.Tensor:
    return torch.einsum("ac,bcxyz->baxyz", matrix[:3, :3], coords) + matrix[:3, 3].view(1, 3, 1, 1, 1)


def test_a_bezier_map_keeps_the_range_and_the_order_of_intensities_or_turns_it():
    image = torch.rand(1, 1, *SHAPE, generator=seeded()) * 3 - 1
    order = image.flatten().argsort()
    falling = 0
    for seed in range(20):
        mapped = bezier_map(image, generator=seeded(seed))
        assert float(mapped.amin()) >= float(image.amin()) - 1e-5
        assert float(mapped.amax()) <= float(image.amax()) + 1e-5
        steps = mapped.flatten()[order].diff()
        rises, falls = bool((steps >= -1e-5).all()), bool((steps <= 1e-5).all())
        assert rises or falls
        falling += falls
    assert 3 < falling < 17


def test_monai_changes_are_seeded():
    pytest.importorskip("monai", reason="an extra")
    image = torch.rand(1, 1, *SHAPE, generator=seeded())
    kinds = ("bias-field", "noise", "contrast")
    first, second, other = (change_appearance(image, kinds, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert not torch.equal(first, image)
