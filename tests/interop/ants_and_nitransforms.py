"""Transforms between corereg, ANTs and nitransforms: what one writes, the other applies. Run by `make test-interop`."""

from pathlib import Path
from typing import Any

import ants
import nibabel
import nitransforms
import numpy as np
import pandas
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.image import write_image
from corereg.io.images.itk import LPS_RAS
from corereg.io.transforms.transform import Transform
from helpers.scenes import centred_grid, scan, voxels_mm, wave
from helpers.transforms import (
    FIXED,
    MOVING,
    RANGE_HU,
    TOLERANCE_HU,
    away_from_border,
    small_affine,
    wave_displacement,
    wavy,
    written,
)

LPS = LPS_RAS[:3, :3]
POINTS_MM = np.random.default_rng(3).uniform(-30, 30, (1000, 3))


def test_nitransforms_reads_our_lta_as_we_do(tmp_path: Path) -> None:
    Transform((small_affine(),), FIXED, MOVING).save(tmp_path / "affine.lta")
    theirs = nitransforms.linear.load(tmp_path / "affine.lta", fmt="lta")
    assert_allclose(theirs.map(POINTS_MM), Transform((small_affine(),), FIXED).apply_points(POINTS_MM), atol=1e-3)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_image(tmp_path / "fixed.nii.gz", scan(FIXED).array, FIXED)
    write_image(tmp_path / "moving.nii.gz", scan(MOVING).array, MOVING)
    return tmp_path


def by_ants(folder: Path, files: list[str], fixed: str = "fixed", moving: str = "moving", **options: Any) -> Any:
    return ants.apply_transforms(
        ants.image_read(str(folder / f"{fixed}.nii.gz")),
        ants.image_read(str(folder / f"{moving}.nii.gz")),
        transformlist=[str(folder / name) for name in files],
        interpolator="linear",
        **options,
    ).numpy()


def comparable(transform: Transform, fixed: Grid = FIXED, moving: Grid = MOVING) -> NDArray[np.bool_]:
    inner = away_from_border(transform, moving) & ~transform.extrapolated(voxels_mm(fixed))
    assert inner.mean() > 0.3
    return inner


@pytest.mark.parametrize(
    ("name", "file", "files"),
    [
        ("itk", "transform.h5", ["transform.h5"]),
        ("itk", "transform.tfm", ["transform.tfm"]),
        ("itk-field", "transform.nii.gz", ["transform.nii.gz"]),
        ("ants", "pair_", ["pair_1Warp.nii.gz", "pair_0GenericAffine.mat"]),
    ],
)
def test_ants_warps_with_our_files_as_we_do(images: Path, name: str, file: str, files: list[str]) -> None:
    transform = wavy(FIXED)
    written(transform, images, name, file)
    difference = np.abs(by_ants(images, files) - transform.apply(images / "moving.nii.gz").array)
    assert difference[comparable(transform)].max() < TOLERANCE_HU


def test_ants_goes_back_with_our_pair_as_we_do(images: Path) -> None:
    transform = wavy(FIXED)
    written(transform, images, "ants", "pair_")
    files = ["pair_0GenericAffine.mat", "pair_1InverseWarp.nii.gz"]
    theirs = by_ants(images, files, "moving", "fixed", whichtoinvert=[True, False])
    inverse = transform.inverse()
    inner = away_from_border(inverse, FIXED)
    assert np.abs(theirs - inverse.apply(images / "fixed.nii.gz").array)[inner].mean() < 2e-3 * RANGE_HU


def test_ants_moves_points_as_we_do(images: Path) -> None:
    transform = wavy(FIXED)
    written(transform, images, "itk", "transform.h5")
    table = pandas.DataFrame(POINTS_MM @ LPS, columns=["x", "y", "z"])
    moved = ants.apply_transforms_to_points(3, table, [str(images / "transform.h5")])
    assert_allclose(moved[["x", "y", "z"]].to_numpy() @ LPS, transform.apply_points(POINTS_MM), atol=1e-3)


def ants_registration(folder: Path, **options: Any) -> Any:
    moved = scan(MOVING, wave)
    write_image(folder / "moving.nii.gz", moved.array, MOVING)
    return ants.registration(
        ants.image_read(str(folder / "fixed.nii.gz")),
        ants.image_read(str(folder / "moving.nii.gz")),
        type_of_transform="SyN",
        outprefix=str(folder / "syn_"),
        reg_iterations=(10, 5, 0),
        random_seed=1,
        **options,
    )


def test_what_ants_found_is_read_as_ants_applies_it(images: Path) -> None:
    found = ants_registration(images)
    transform = Transform.load(images / "syn_", moving=images / "moving.nii.gz")
    assert transform.names == ("deformation", "affine")
    difference = np.abs(found["warpedmovout"].numpy() - transform.apply(images / "moving.nii.gz").array)
    assert difference[comparable(transform)].max() < TOLERANCE_HU
    back = by_ants(
        images, ["syn_0GenericAffine.mat", "syn_1InverseWarp.nii.gz"], "moving", "fixed", whichtoinvert=[True, False]
    )
    ours = transform.inverse().apply(images / "fixed.nii.gz").array
    inner = away_from_border(transform.inverse(), FIXED) & ~transform.inverse().extrapolated(voxels_mm(MOVING))
    assert np.abs(back - ours)[inner].max() < TOLERANCE_HU


def test_composite_of_ants_is_read_as_ants_applies_it(images: Path) -> None:
    found = ants_registration(images, write_composite_transform=True)
    transform = Transform.load(found["fwdtransforms"])
    difference = np.abs(found["warpedmovout"].numpy() - transform.apply(images / "moving.nii.gz").array)
    assert difference[comparable(transform)].max() < TOLERANCE_HU


@pytest.mark.parametrize("file", ["transform.h5", "transform.nii.gz"])
def test_nitransforms_warps_with_our_files_as_we_do(images: Path, file: str) -> None:
    # On the fixed grid, since nitransforms interpolates a displacement between its voxels by cubic splines.
    transform = Transform((wave_displacement().at(FIXED), small_affine()), fixed=FIXED)
    transform.save(images / file)
    if file.endswith(".h5"):
        theirs = nitransforms.manip.load(images / file, fmt="itk")
    else:
        theirs = nitransforms.nonlinear.load(images / file, fmt="itk")
    warped = nitransforms.resampling.apply(
        theirs, nibabel.load(images / "moving.nii.gz"), reference=nibabel.load(images / "fixed.nii.gz"), order=1
    )
    difference = np.abs(warped.get_fdata() - transform.apply(images / "moving.nii.gz").array)
    assert difference[comparable(transform)].max() < TOLERANCE_HU


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR"])
def test_converted_files_of_ants_agree_in_every_storage_order(images: Path, orientation: str) -> None:
    fixed = centred_grid(FIXED.shape, FIXED.spacing, orientation)
    write_image(images / "fixed.nii.gz", scan(fixed).array, fixed)
    transform = wavy(fixed)
    written(transform, images, "ants", "pair_")
    theirs = by_ants(images, ["pair_1Warp.nii.gz", "pair_0GenericAffine.mat"])
    difference = np.abs(theirs - transform.apply(images / "moving.nii.gz").array)
    assert difference[comparable(transform, fixed)].max() < TOLERANCE_HU
