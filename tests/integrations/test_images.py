"""Objects of SimpleITK, nibabel, MONAI and torch."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from numpy.testing import assert_allclose, assert_array_equal

from corereg.geometry.grid import Grid
from corereg.integrations.images import (
    from_tensor,
    to_metatensor,
    to_nibabel,
    to_simpleitk,
    to_tensor,
    transform_from_sitk,
    transform_to_sitk,
    warp,
)
from corereg.io.images.image import Image, as_image
from corereg.io.images.itk import LPS_RAS, from_sitk
from corereg.io.transforms.transform import Transform
from helpers.programs import FIXED, MOVING, QUICK, registered
from helpers.refusals import refusal
from helpers.scenes import scan, wave
from helpers.transforms import label_map, wavy

needs_monai = pytest.mark.skipif(importlib.util.find_spec("monai") is None, reason="MONAI is an extra")

in_each_library = pytest.mark.parametrize(
    "make", [to_simpleitk, to_nibabel, pytest.param(to_metatensor, marks=needs_monai)], ids=["sitk", "nibabel", "monai"]
)


@in_each_library
def test_objects_of_other_libraries_hold_the_same_image(make: Callable[[Image], Any]) -> None:
    again = as_image(make(scan(FIXED)))
    assert_array_equal(again.array, scan(FIXED).array)
    assert again.grid.close_to(FIXED)


@in_each_library
def test_warped_image_is_of_the_type_that_was_given(make: Callable[[Image], Any]) -> None:
    given = make(scan(MOVING))
    warped = warp(wavy(FIXED), given)
    assert type(warped) is type(given)
    assert_allclose(as_image(warped).array, wavy(FIXED).apply(scan(MOVING)).array, atol=1e-2)
    assert as_image(warped).grid.close_to(FIXED)
    labels = warp(wavy(FIXED), make(label_map(MOVING, np.uint8)), labels=True)
    assert_array_equal(
        as_image(labels, labels=True).array, wavy(FIXED).apply(label_map(MOVING, np.uint8), labels=True).array
    )


def test_tensor_needs_its_affine() -> None:
    tensor = to_tensor(scan(FIXED))
    assert tensor.shape == (1, *FIXED.shape)
    again = from_tensor(tensor, FIXED.affine)
    assert again.grid == FIXED
    assert_array_equal(again.array, scan(FIXED).array)
    assert "expected its voxel-to-RAS matrix" in refusal(as_image, tensor)
    assert "single channel" in refusal(from_tensor, tensor.repeat(2, 1, 1, 1), FIXED.affine)


@needs_monai
def test_metatensor_in_lps_is_the_same_image() -> None:
    from monai.data.meta_tensor import MetaTensor

    affine = torch.as_tensor(LPS_RAS @ FIXED.affine)
    tensor = MetaTensor(to_tensor(scan(FIXED)), affine=affine, meta={"space": "LPS"})
    assert as_image(tensor).grid.close_to(FIXED)


@needs_monai
def test_channels_of_a_metatensor_are_warped_each() -> None:
    from monai.data.meta_tensor import MetaTensor

    both = torch.cat([to_tensor(scan(MOVING)), -to_tensor(scan(MOVING))])
    warped = warp(wavy(FIXED), MetaTensor(both, affine=torch.as_tensor(MOVING.affine.copy())), outside=0.0)
    assert warped.shape == (2, *FIXED.shape)
    assert_allclose(warped[0].numpy(), -warped[1].numpy(), atol=1e-3)


def test_transform_goes_to_simpleitk_and_back() -> None:
    theirs = transform_to_sitk(wavy(FIXED))
    points, lps = np.random.default_rng(0).uniform(-40, 40, (200, 3)), LPS_RAS[:3, :3]
    moved = np.array([theirs.TransformPoint((lps @ p).tolist()) for p in points]) @ lps
    assert_allclose(wavy(FIXED).apply_points(points), moved, atol=1e-3)
    assert_allclose(transform_from_sitk(theirs, fixed=FIXED).apply_points(points), moved, atol=1e-3)
    assert "2 dimensions" in refusal(transform_from_sitk, SimpleITK.Euler2DTransform())


@needs_monai
def test_monai_pipeline_registers_and_warps() -> None:
    from corereg.integrations.monai import CoreRegisterd

    data = {
        "fixed": to_metatensor(scan(FIXED)),
        "moving": to_metatensor(scan(MOVING, wave)),
        "organs": to_metatensor(label_map(MOVING, np.uint8)),
        "name": "patient 1",
    }
    step = CoreRegisterd(["moving", "organs"], label_keys=["organs"], **QUICK)
    found = step(data)
    assert found["name"] == "patient 1"
    assert_allclose(found["moving"].affine.numpy(), FIXED.affine)
    assert_allclose(found["moving"][0].numpy(), registered().apply(scan(MOVING, wave)).array, atol=1e-2)
    assert set(np.unique(found["organs"].numpy())) <= {0, 3, 17, 90}
    assert found["organs"].shape == (1, *FIXED.shape)
    assert_array_equal(data["organs"][0].numpy(), label_map(MOVING, np.uint8).array)
    assert isinstance(found["transform"], Transform)
    with pytest.raises(KeyError, match="lungs"):
        CoreRegisterd(["lungs"], **QUICK)(data)


def test_simpleitk_image_is_read_back_with_its_grid() -> None:
    array, grid = from_sitk(warp(wavy(FIXED), to_simpleitk(scan(MOVING))))
    assert array.shape == FIXED.shape
    assert grid.close_to(Grid(FIXED.shape, FIXED.affine))


def test_nibabel_image_keeps_the_header_of_the_fixed_image(tmp_path: Path) -> None:
    nibabel.Nifti1Image(scan(FIXED).array, FIXED.affine).to_filename(tmp_path / "fixed.nii")
    fixed = as_image(tmp_path / "fixed.nii")
    warped = warp(wavy(fixed), to_nibabel(scan(MOVING)))
    assert_allclose(warped.header.get_sform(), fixed.header.get_sform(), atol=0)
