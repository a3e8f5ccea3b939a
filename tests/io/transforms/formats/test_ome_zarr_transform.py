"""OME-Zarr's displacement transformations, against a reading of the metadata written out here."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.transforms.convert import convert_transform
from corereg.io.transforms.transform import Transform
from helpers.commands import Command, one_line
from helpers.refusals import refusal
from helpers.scenes import centred_grid, voxels_mm
from helpers.transforms import FIXED, MOVING, wavy, written

zarr = pytest.importorskip("zarr", reason="pip install 'corereg[zarr]'")

LPS = np.array([-1.0, -1.0, 1.0])

SIDES = {
    **{"right-to-left": (1, 0, 0), "left-to-right": (-1, 0, 0), "anterior-to-posterior": (0, 1, 0)},
    **{"posterior-to-anterior": (0, -1, 0), "inferior-to-superior": (0, 0, 1), "superior-to-inferior": (0, 0, -1)},
}
"""LPS directions."""

PAIRS = [("LPS", "LPS"), ("RAS", "PIR"), ("PIR", "LAS")]


def grids(fixed: str, moving: str) -> tuple[Grid, Grid]:
    return (
        centred_grid((13, 12, 15), (8.0, 8.4, 6.0), fixed, (5.0, 2.0, -3.0)),
        centred_grid((14, 11, 16), (8.0, 9.0, 7.0), moving, (-3.0, 6.0, 2.0)),
    )


def attributes(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "zarr.json").read_text("utf-8"))["attributes"]["ome"]


def directions(axes: list[dict[str, Any]]) -> NDArray[np.float64]:
    """A column for each of x, y and z."""
    by_name = {axis["name"]: SIDES[axis["orientation"]["value"]] for axis in axes if axis["name"] in "xyz"}
    return np.array([by_name[name] for name in "xyz"], dtype=np.float64).T


def matches(store: Path, moving: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the grid points of the field lie and where they lead to, in RAS+ mm.

    ITK's tools place the intrinsic position p of an image whose translation is t at D (p - t) + t.
    """
    document = attributes(store)
    (transformation,) = document["coordinateTransformations"]
    assert document["version"] == "0.6"
    assert (transformation["type"], transformation["interpolation"]) == ("displacements", "linear")
    systems = {system["name"]: directions(system["axes"]) for system in document["coordinateSystems"]}
    folder = store / transformation["path"]
    image = attributes(folder)["multiscales"][0]
    axes = image["coordinateSystems"][0]["axes"]
    assert [axis["name"] for axis in axes] == ["c", "z", "y", "x"]
    assert axes[0]["type"] == "displacement"
    assert {axis["unit"] for axis in axes[1:]} == {"millimeter"}
    level = image["datasets"][0]
    scale, translation = level["coordinateTransformations"][0]["transformations"]
    field = zarr.open_array(str(folder / level["path"]), mode="r")[...]
    steps, start = np.array(scale["scale"][1:]), np.array(translation["translation"][1:])
    intrinsic = np.moveaxis(np.indices(field.shape[1:]), 0, -1) * steps + start
    led = intrinsic + np.moveaxis(field, 0, -1)
    t = {"fixed": start[::-1], "moving": moving.affine[:3, 3] * LPS}
    placed = [
        ((at[..., ::-1] - t[name]) @ systems[transformation[end]["name"]].T + t[name]) * LPS
        for at, name, end in ((intrinsic, "fixed", "input"), (led, "moving", "output"))
    ]
    return placed[0], placed[1]


@pytest.mark.parametrize("orientations", PAIRS, ids="-".join)
def test_displacement_leads_from_intrinsic_to_intrinsic_position(tmp_path: Path, orientations: tuple[str, str]) -> None:
    fixed, moving = grids(*orientations)
    transform = wavy(fixed, moving)
    store = written(transform, tmp_path, "ome-zarr", "transform.ome.zarr")
    start, end = matches(store, moving)
    assert_allclose(start, voxels_mm(fixed).transpose(2, 1, 0, 3), atol=1e-4)
    assert_allclose(end, transform.apply_points(start), atol=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["transform.ome.zarr"]


def test_store_is_read_with_the_moving_image(tmp_path: Path) -> None:
    fixed, moving = grids("RAS", "PIR")
    store = written(wavy(fixed, moving), tmp_path, "ome-zarr", "transform.ome.zarr")
    assert "give the moving image" in refusal(Transform.load, store)
    loaded = Transform.load(store, moving=moving)
    assert loaded.fixed_grid.close_to(fixed)
    assert_allclose(
        loaded.apply_points(voxels_mm(fixed)), wavy(fixed, moving).apply_points(voxels_mm(fixed)), atol=1e-3
    )


def ngff_image(grid: Grid) -> Any:
    """As ngff-zarr reads a scan by ITK."""
    import ngff_zarr

    sides = {direction: side for side, direction in SIDES.items()}
    columns = np.round(LPS[:, None] * grid.linear / grid.spacing).astype(int).T.tolist()
    orientations = {
        name: ngff_zarr.AnatomicalOrientation(value=ngff_zarr.AnatomicalOrientationValues(sides[tuple(column)]))
        for name, column in zip("xyz", columns, strict=True)
    }
    return ngff_zarr.NgffImage(
        data=np.zeros(grid.shape[::-1], np.float32),
        dims=("z", "y", "x"),
        scale=dict(zip("xyz", grid.spacing, strict=True)),
        translation=dict(zip("xyz", (grid.affine[:3, 3] * LPS).tolist(), strict=True)),
        axes_orientations=orientations,
    )


@pytest.mark.skipif(find_spec("ngff_zarr") is None, reason="ngff-zarr is not installed: make test-interop")
@pytest.mark.parametrize("orientations", PAIRS, ids="-".join)
def test_ngff_zarr_makes_the_same_itk_field_of_it(tmp_path: Path, orientations: tuple[str, str]) -> None:
    import ngff_zarr

    fixed, moving = grids(*orientations)
    transform = wavy(fixed, moving)
    store = written(transform, tmp_path, "ome-zarr", "transform.ome.zarr")
    read = ngff_zarr.from_ome_zarr(str(store), kind="transformation", validate=True)
    field = ngff_zarr.from_ome_zarr(str(store / read.path), validate=True)
    images = [ngff_image(grid) for grid in (fixed, moving)]
    (itk,) = ngff_zarr.ngff_displacement_field_to_itk_transform(
        read, field, ("z", "y", "x"), fixed=images[0], moving=images[1]
    )
    found = np.asarray(itk.parameters).reshape(*fixed.shape[::-1], 3) * LPS
    points = voxels_mm(fixed).transpose(2, 1, 0, 3)
    assert_allclose(np.asarray(itk.fixedParameters)[3:6], fixed.affine[:3, 3] * LPS, atol=1e-6)
    assert_allclose(points + found, transform.apply_points(points), atol=1e-3)


def test_oblique_grid_is_refused_and_nothing_left(tmp_path: Path) -> None:
    message = refusal(written, wavy(FIXED), tmp_path, "ome-zarr", "transform.zarr")
    assert "oblique fixed grid" in message
    fixed, _ = grids("LPS", "RAS")
    assert "oblique moving grid" in refusal(written, wavy(fixed, MOVING), tmp_path, "ome-zarr", "transform.zarr")
    assert not list(tmp_path.iterdir())


def test_store_is_replaced_only_with_force_and_no_other_folder_ever(tmp_path: Path, command: Command) -> None:
    fixed, moving = grids("LPS", "RAS")
    wavy(fixed, moving).save(tmp_path / "transform.h5")
    Transform((np.eye(4),), fixed, moving).save(tmp_path / "identity.h5")
    store = tmp_path / "pair.ome.zarr"
    assert command("convert", tmp_path / "identity.h5", "-o", store).status == 0
    assert "--force" in one_line(command("convert", tmp_path / "transform.h5", "-o", store))
    assert command("convert", tmp_path / "transform.h5", "-o", store, "--force").status == 0
    start, end = matches(store, moving)
    assert np.linalg.norm(end - start, axis=-1).max() > 1
    (tmp_path / "mine.zarr").mkdir()
    assert "no Zarr store" in refusal(convert_transform, tmp_path / "transform.h5", tmp_path / "mine.zarr")


def test_what_is_no_transformation_is_refused(tmp_path: Path) -> None:
    zarr.open_group(str(tmp_path / "empty.zarr"), mode="w", zarr_format=3)
    assert "cannot be read as an OME-Zarr transformation" in refusal(Transform.load, tmp_path / "empty.zarr")
    group = zarr.open_group(str(tmp_path / "affine.zarr"), mode="w", zarr_format=3)
    group.attrs["ome"] = {"version": "0.6", "coordinateTransformations": [{"type": "affine", "affine": []}]}
    assert "of affine, expected displacements" in refusal(Transform.load, tmp_path / "affine.zarr")
