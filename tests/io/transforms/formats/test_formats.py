"""Transform files of every format: the other tool makes of them what we make of them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from corereg.geometry.grid import Grid, transform_points
from corereg.integrations.images import transform_from_sitk
from corereg.io.images.image import Image
from corereg.io.images.itk import LPS_RAS, to_sitk
from corereg.io.transforms.formats.registry import FORMATS, detect_format
from corereg.io.transforms.transform import Transform
from helpers.refusals import refusal
from helpers.scenes import centred_grid, scan, voxels_mm
from helpers.transforms import (
    FILES,
    FIXED,
    MOVING,
    TOLERANCE_HU,
    away_from_border,
    small_affine,
    wave_displacement,
    wavy,
    written,
)

LPS = LPS_RAS[:3, :3]

FLOAT32_MM = 3e-4
"""A few roundings of positions of some 100 mm."""


def linear(moving: Image, coords_vox: NDArray[np.float64]) -> NDArray[np.float64]:
    """scipy's interpolation at voxel coordinates (I, J, K, 3)."""
    return map_coordinates(moving.array.astype(np.float64), np.moveaxis(coords_vox, -1, 0), order=1, mode="nearest")


def by_simpleitk(transform: Any, moving: Image, fixed: Grid) -> NDArray[np.float64]:
    like = to_sitk(np.zeros(fixed.shape, np.float32), fixed)
    warped = SimpleITK.Resample(to_sitk(moving.array, moving.grid), like, transform, SimpleITK.sitkLinear)
    return SimpleITK.GetArrayFromImage(warped).T


def field_in_simpleitk(path: Path) -> Any:
    return SimpleITK.DisplacementFieldTransform(SimpleITK.ReadImage(str(path), SimpleITK.sitkVectorFloat64))


def itk(path: Path, moving: Image, fixed: Grid) -> NDArray[np.float64]:
    return by_simpleitk(SimpleITK.ReadTransform(str(path)), moving, fixed)


def itk_field(path: Path, moving: Image, fixed: Grid) -> NDArray[np.float64]:
    return by_simpleitk(field_in_simpleitk(path), moving, fixed)


def ants(prefix: Path, moving: Image, fixed: Grid) -> NDArray[np.float64]:
    """As `antsApplyTransforms -t 1Warp -t 0GenericAffine`: a point passes the warp first."""
    stack = SimpleITK.CompositeTransform(3)
    stack.AddTransform(SimpleITK.ReadTransform(f"{prefix}0GenericAffine.mat"))
    stack.AddTransform(field_in_simpleitk(Path(f"{prefix}1Warp.nii.gz")))
    return by_simpleitk(stack, moving, fixed)


def learn2reg(path: Path, moving: Image, fixed: Grid) -> NDArray[np.float64]:
    """As the challenge's evaluation: identity grid plus displacement, in the order of the array's axes."""
    image = nibabel.load(path)
    assert int(image.header["intent_code"]) == 0
    assert int(image.header["sform_code"]) == 2
    assert_array_equal(image.affine, np.eye(4))
    return linear(moving, np.moveaxis(np.indices(fixed.shape), 0, -1) + image.get_fdata())


def niftyreg(path: Path, moving: Image, fixed: Grid) -> NDArray[np.float64]:
    """As reg_resample reads it: by intent_p1, positions or distances in the world of the sform."""
    image = nibabel.load(path)
    vectors = image.get_fdata()[:, :, :, 0]
    assert image.header["intent_name"].item() == b"NREG_TRANS"
    assert int(image.header["intent_code"]) == 1007
    if int(image.header["intent_p1"]) == 1:
        vectors = vectors + transform_points(image.header.get_sform(), np.moveaxis(np.indices(fixed.shape), 0, -1))
    return linear(moving, transform_points(np.linalg.inv(moving.grid.affine), vectors))


def fsl(path: Path, moving: Image, fixed: Grid) -> NDArray[np.float64]:
    """As applywarp --rel: voxel index times pixdim, mirrored along the first axis of a neurological image."""
    image = nibabel.load(path)
    assert int(image.header["intent_code"]) == 2006
    pixdim, coords = image.header["pixdim"][1:4], np.moveaxis(np.indices(fixed.shape), 0, -1).astype(float)
    if np.linalg.det(image.affine) > 0:
        coords[..., 0] = fixed.shape[0] - 1 - coords[..., 0]
    match = (coords * pixdim + image.get_fdata()) / moving.grid.spacing
    if np.linalg.det(moving.grid.affine) > 0:
        match[..., 0] = moving.grid.shape[0] - 1 - match[..., 0]
    return linear(moving, match)


def plain(path: Path, moving: Image, fixed: Grid) -> NDArray[np.float64]:
    with np.load(path) as content:
        start = transform_points(content["affine"], np.moveaxis(np.indices(fixed.shape), 0, -1))
        there = start + np.moveaxis(content["disp_mm"], 0, -1)
        return linear(moving, transform_points(np.linalg.inv(content["moving_affine"]), there))


OTHERS: dict[str, Callable[[Path, Image, Grid], NDArray[np.float64]]] = {
    "itk": itk,
    "itk-field": itk_field,
    "ants": ants,
    "learn2reg": learn2reg,
    "niftyreg": niftyreg,
    "niftyreg-displacement": niftyreg,
    "fsl": fsl,
    "numpy": plain,
}


# Each format on oblique grids; those with frames of their own on grids of either handedness too.
@pytest.mark.parametrize(
    ("name", "fixed", "moving", "file"),
    [
        *((name, "oblique", "oblique", None) for name in FILES),
        *((name, "RAS", "LPS", None) for name in ("fsl", "learn2reg", "niftyreg")),
        *((name, "PIR", "RAS", None) for name in ("fsl", "learn2reg", "ants")),
        ("itk", "PIR", "oblique", "transform.tfm"),
        ("itk-field", "LPS", "oblique", "transform.nrrd"),
    ],
)
def test_other_tool_warps_with_our_file_as_we_do(
    tmp_path: Path, name: str, fixed: str, moving: str, file: str | None
) -> None:
    grid = centred_grid(FIXED.shape, FIXED.spacing, fixed)
    image = scan(centred_grid(MOVING.shape, MOVING.spacing, moving, (-3.0, 6.0, 2.0)))
    transform = wavy(grid, image)
    ours = transform.apply(image).array
    theirs = OTHERS[name](written(transform, tmp_path, name, file), image, grid)
    # Beyond its grid ITK ends a displacement, which is held here.
    inner = away_from_border(transform, image.grid) & ~transform.extrapolated(voxels_mm(grid))
    assert inner.mean() > 0.3
    assert np.abs(ours - theirs)[inner].max() < TOLERANCE_HU


@pytest.mark.parametrize("name", FILES)
def test_file_is_recognised_and_comes_back(tmp_path: Path, name: str) -> None:
    saved = wavy(FIXED)
    path = written(saved, tmp_path, name)
    assert detect_format(path).removesuffix("-displacement") == name.removesuffix("-displacement")
    loaded = Transform.load(path, fixed=FIXED, moving=MOVING)
    points = voxels_mm(FIXED)
    assert_allclose(loaded.apply_points(points), saved.apply_points(points), atol=FLOAT32_MM, rtol=0)


@pytest.mark.parametrize("name", [n for n in FILES if n != "learn2reg"])
def test_grid_of_the_fixed_image_comes_back_with_the_file(tmp_path: Path, name: str) -> None:
    assert Transform.load(written(wavy(FIXED), tmp_path, name), moving=MOVING).fixed_grid.close_to(FIXED)


@pytest.mark.parametrize("name", ["itk", "itk-field", "ants", "learn2reg", "fsl"])
def test_a_thousand_points_come_back_through_the_inverse_of_the_file(tmp_path: Path, name: str) -> None:
    loaded = Transform.load(written(wavy(FIXED), tmp_path, name), fixed=FIXED, moving=MOVING)
    start = np.random.default_rng(0).uniform(-30, 30, (1000, 3))
    error = np.linalg.norm(loaded.inverse().apply_points(loaded.apply_points(start)) - start, axis=1)
    assert np.linalg.norm(loaded.apply_points(start) - start, axis=1).mean() > 4
    assert error.mean() < 0.1
    assert error.max() < 0.5


@pytest.mark.parametrize("file", ["transform.h5", "transform.tfm"])
def test_simpleitk_moves_a_thousand_points_as_we_do(tmp_path: Path, file: str) -> None:
    transform = wavy(FIXED)
    theirs = SimpleITK.ReadTransform(str(written(transform, tmp_path, "itk", file)))
    points = np.random.default_rng(1).uniform(-45, 45, (1000, 3))
    expected = np.array([theirs.TransformPoint((LPS @ p).tolist()) for p in points]) @ LPS
    assert_allclose(transform.apply_points(points), expected, atol=1e-3)
    assert_allclose(Transform.load(tmp_path / file).apply_points(points), expected, atol=1e-3)


@pytest.mark.parametrize("file", ["transform.h5", "transform.tfm"])
def test_composite_keeps_parts_names_and_grids(tmp_path: Path, file: str) -> None:
    saved = wavy(FIXED).split("deformation", wave_displacement().at(centred_grid((30, 31, 29), (4.6, 4.5, 4.4))))
    saved.save(tmp_path / file)
    loaded = Transform.load(tmp_path / file)
    assert loaded.names == ("fine", "coarse", "affine")
    assert loaded.fixed_grid.close_to(FIXED)
    assert loaded.moving_grid.close_to(MOVING)
    points = np.random.default_rng(1).uniform(-45, 45, (100, 3))
    for name in loaded.names:
        assert_allclose(
            loaded.named(name).apply_points(points), saved.named(name).apply_points(points), atol=FLOAT32_MM
        )


def test_same_transform_gives_the_same_bytes(tmp_path: Path) -> None:
    """Others need even sizes or axes along the patient's, name themselves, hold no displacement or state the date."""
    for name, form in FORMATS.items():
        if form.suffixes and name not in ("learn2reg-half", "elastix", "lta", "dicom", "ome-zarr"):
            first, second = (written(wavy(FIXED), tmp_path, name, f"{n}{form.suffixes[0]}").read_bytes() for n in "ab")
            assert first == second, name


def test_plain_formats_need_no_medical_library(tmp_path: Path) -> None:
    code = """
import sys
for name in ("SimpleITK", "nibabel", "monai", "h5py", "vtkmodules"):
    sys.modules[name] = None
import numpy as np
from corereg import Grid, Transform
fixed, moving = Grid.from_spacing((5, 6, 7), (2, 3, 4)), Grid.from_spacing((6, 5, 8), (3, 2, 4))
matrix = np.eye(4)
matrix[:3, 3] = 1, 2, 3
from corereg.io.transforms.convert import convert_transform
from corereg.io.transforms.formats.registry import FORMATS
from pathlib import Path
FORMATS["numpy"].write(Path("a.npz"), Transform((matrix,), fixed, moving).stored())
convert_transform("a.npz", "b.npz", to="learn2reg")
loaded = Transform.load("b.npz", fixed=fixed, moving=moving)
assert np.allclose(loaded.apply_points([[4.0, 6.0, 8.0]]), [[5.0, 8.0, 11.0]], atol=1e-4)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_h5_holds_the_other_direction_as_it_was(tmp_path: Path) -> None:
    transform = wavy(FIXED)
    inverse = transform.inverse()
    transform.save(tmp_path / "transform.h5")
    loaded = Transform.load(tmp_path / "transform.h5")
    assert loaded.backward is not None
    points = voxels_mm(MOVING)
    assert_allclose(loaded.inverse().apply_points(points), inverse.apply_points(points), atol=FLOAT32_MM)
    assert loaded.inverse().inverse().parts[0] is loaded.parts[0]
    assert loaded.inverse_error().mean == pytest.approx(transform.inverse_error(inverse).mean, abs=1e-4)
    assert loaded.inverse().names == ("affine", "deformation")


def test_ants_pair_leads_back_as_ants_would_go(tmp_path: Path) -> None:
    transform = wavy(FIXED)
    prefix = written(transform, tmp_path, "ants")
    back = SimpleITK.CompositeTransform(3)
    back.AddTransform(field_in_simpleitk(Path(f"{prefix}1InverseWarp.nii.gz")))
    back.AddTransform(SimpleITK.ReadTransform(f"{prefix}0GenericAffine.mat").GetInverse())
    points = np.random.default_rng(1).uniform(-25, 25, (200, 3))
    there = transform.apply_points(points)
    returned = np.array([back.TransformPoint((LPS @ p).tolist()) for p in there]) @ LPS
    assert np.linalg.norm(returned - points, axis=1).max() < 0.3


@pytest.mark.parametrize("before", ["itk", "ants"])
def test_ants_pair_takes_the_inverse_that_is_known(tmp_path: Path, before: str) -> None:
    loaded = Transform.load(written(wavy(FIXED), tmp_path, before), moving=MOVING)
    again = Transform.load(written(loaded, tmp_path, "ants", "again_"), moving=MOVING)
    points = np.random.default_rng(1).uniform(-25, 25, (200, 3))
    assert_allclose(again.inverse().apply_points(points), loaded.inverse().apply_points(points), atol=0.05)


@pytest.mark.parametrize("layout", ["full npz", "full npz, components first"])
def test_other_layouts_of_learn2reg_are_read(tmp_path: Path, layout: str) -> None:
    transform = wavy(FIXED)
    path = written(transform, tmp_path, "learn2reg", "disp.npz")
    if layout != "full npz":
        with np.load(path) as content:
            (values,) = content.values()
        np.savez_compressed(path, np.moveaxis(values, -1, 0))
    loaded = Transform.load(path, fixed=FIXED, moving=MOVING)
    points = voxels_mm(FIXED)
    assert_allclose(loaded.apply_points(points), transform.apply_points(points), atol=FLOAT32_MM)


def test_itk_transforms_of_other_kinds_are_read(tmp_path: Path) -> None:
    euler = SimpleITK.Euler3DTransform((5.0, -3.0, 8.0), 0.1, -0.05, 0.2, (3.0, 1.0, -2.0))
    spline = SimpleITK.BSplineTransformInitializer(to_sitk(np.zeros(FIXED.shape, np.uint8), FIXED), [4, 5, 6])
    knots = np.random.default_rng(0).normal(scale=2, size=len(spline.GetParameters()))
    spline.SetParameters(knots.tolist())
    SimpleITK.WriteTransform(SimpleITK.CompositeTransform([euler, spline]), str(tmp_path / "other.h5"))
    theirs = SimpleITK.ReadTransform(str(tmp_path / "other.h5"))
    assert "give the fixed image with it" in refusal(Transform.load, tmp_path / "other.h5")
    loaded = Transform.load(tmp_path / "other.h5", fixed=FIXED)
    assert loaded.names == ("deformation", "affine")
    points = FIXED.to_world(np.random.default_rng(2).integers(2, 20, (50, 3)))
    expected = np.array([theirs.TransformPoint((LPS @ p).tolist()) for p in points]) @ LPS
    assert_allclose(loaded.apply_points(points), expected, atol=1e-3)
    nested = SimpleITK.CompositeTransform([euler, SimpleITK.CompositeTransform([euler, spline])])
    expected = np.array([nested.TransformPoint((LPS @ p).tolist()) for p in points]) @ LPS
    assert_allclose(transform_from_sitk(nested, fixed=FIXED).apply_points(points), expected, atol=1e-3)


def test_affine_file_has_no_grid_and_takes_one(tmp_path: Path) -> None:
    Transform((small_affine(),), fixed=None).save(tmp_path / "affine.tfm")
    loaded = Transform.load(tmp_path / "affine.tfm")
    assert_allclose(loaded.parts[0], small_affine(), atol=1e-12)
    assert "fixed image" in refusal(loaded.apply, scan(MOVING))
    assert loaded.apply(scan(MOVING), reference=FIXED).grid == FIXED
    np.savetxt(tmp_path / "affine.txt", small_affine())
    aladin = Transform.load(tmp_path / "affine.txt", source_format="niftyreg")
    assert_allclose(aladin.parts[0], small_affine(), atol=1e-12)


def test_warp_of_ants_alone_is_read_with_a_warning(tmp_path: Path) -> None:
    written(wavy(FIXED), tmp_path, "ants")
    with pytest.warns(UserWarning, match="give the prefix pair_ for both"):
        Transform.load(tmp_path / "pair_1Warp.nii.gz")
