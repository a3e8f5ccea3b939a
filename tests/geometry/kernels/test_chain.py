"""Compiled operations on displacements against plain torch."""

import numpy as np
import pytest
import torch

from corereg.geometry.displacement import (
    Displacement,
    compose,
    inverse_consistent,
    invert,
    jacobian_determinant,
)
from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE
from corereg.io.images.image import Image
from corereg.io.transforms.transform import Transform
from helpers.kernels import FAR, assert_same, each_shape, smooth_noise
from helpers.scenes import centred_grid

pytest.importorskip("numba")


@each_shape
@pytest.mark.parametrize("size", [2.0, FAR])
def test_compose(shape, size, generator, monkeypatch):
    first, then = (smooth_noise(generator, 2, 3, *shape, size=size) for _ in range(2))
    assert_same(monkeypatch, lambda: compose(first, then))


@each_shape
def test_invert(shape, generator, monkeypatch):
    disp_vox = smooth_noise(generator, 1, 3, *shape, size=0.7)
    assert_same(monkeypatch, lambda: invert(disp_vox, iterations=5, tolerance_vox=0.0)[0])
    monkeypatch.setenv(KERNELS_VARIABLE, "numba")
    assert float(invert(disp_vox)[1].amax()) < 2e-3


@each_shape
def test_invert_leaves_its_argument_as_it_is_whatever_its_strides(shape, generator, monkeypatch):
    monkeypatch.setenv(KERNELS_VARIABLE, "numba")
    disp_vox = smooth_noise(generator, 1, 3, *shape[::-1], size=0.7).permute(0, 1, 4, 3, 2)
    before = disp_vox.clone()
    inverse, _ = invert(disp_vox)
    assert torch.equal(disp_vox, before)
    assert torch.equal(inverse, invert(before.contiguous())[0])


@each_shape
def test_large_volumes_are_inverted_like_small_ones(shape, generator, monkeypatch):
    disp_vox = smooth_noise(generator, 1, 3, *shape, size=0.5)
    whole, _ = invert(disp_vox)
    monkeypatch.setattr("corereg.geometry.displacement.LARGE_VOXELS", 200)
    monkeypatch.setattr("corereg.geometry.displacement.FINAL_ITERATIONS", 50)
    assert float((invert(disp_vox)[0] - whole).norm(dim=1).amax()) < 5e-3


@pytest.mark.parametrize("count", [0, 1, 2])
def test_chain_of_maps(count, generator, monkeypatch):
    """Through displacements on grids of their own and matrices between them, some positions beyond them all."""
    grids = [centred_grid(shape, (5.0, 4.0, 3.5), o) for shape, o in (((9, 14, 11), "oblique"), ((12, 8, 10), "LPS"))]
    parts: list = [np.array([[1.1, 0.1, 0, 4], [0, 0.9, -0.1, 2], [0.1, 0, 1, -7], [0, 0, 0, 1.0]])]
    for grid in grids[:count]:
        parts += [Displacement(smooth_noise(generator, 3, 1, *grid.shape, size=2.0)[:, 0], grid), parts[0]]
    fixed, moving = centred_grid((17, 7, 13), (3.0, 4.5, 4.0), "PIR"), centred_grid((8, 15, 6), (6.0, 3.0, 7.0))
    image = Image(smooth_noise(generator, 1, 1, *moving.shape)[0, 0].numpy(), moving)
    transform = Transform(tuple(parts), fixed=fixed, moving=moving)
    monkeypatch.setattr("corereg.geometry.kernels.chain.BLOCK_VOXELS", 200)
    assert_same(monkeypatch, lambda: torch.as_tensor(transform.total_mm()))
    assert_same(monkeypatch, lambda: torch.as_tensor(transform.apply(image).array))


@each_shape
def test_inverse_consistency(shape, generator, monkeypatch):
    forward, backward = (smooth_noise(generator, 1, 3, *shape, size=2) for _ in range(2))
    assert_same(monkeypatch, lambda: inverse_consistent(forward, backward, steps=15))


@each_shape
def test_jacobian_determinant(shape, generator, monkeypatch):
    disp_vox = smooth_noise(generator, 2, 3, *shape, size=3)
    assert_same(monkeypatch, lambda: jacobian_determinant(disp_vox))
