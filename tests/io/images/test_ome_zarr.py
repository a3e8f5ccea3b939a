"""OME-Zarr images, whose metadata are written out here as the specification has them."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from corereg.io.images.image import read_image
from helpers.refusals import refusal
from helpers.scenes import centred_grid

zarr = pytest.importorskip("zarr", reason="pip install 'corereg[zarr]'")

ARRAY = np.random.default_rng(0).integers(-500, 900, (7, 6, 5)).astype(np.int16)
"""(z, y, x)"""

SCALE, TRANSLATION = [3.0, 1.5, 0.75], [40.0, -12.0, 8.0]


def write(path: Path, array: Any, axes: list[dict[str, Any]], *, zarr_format: int = 2, **more: Any) -> Path:
    lead = [1.0] * (array.ndim - 3)
    steps = [
        {"type": "scale", "scale": [*lead, *SCALE]},
        {"type": "translation", "translation": [0.0 * one for one in lead] + TRANSLATION},
    ]
    levels = [{"path": "0", "coordinateTransformations": steps}, {"path": "1", "coordinateTransformations": steps}]
    multiscales = [{"axes": axes, "datasets": levels, "version": "0.4", **more}]
    group = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
    for name, values in (("0", array), ("1", array[..., ::2])):
        group.create_array(name, data=np.ascontiguousarray(values), chunks=(2,) * array.ndim)
    group.attrs.update({"multiscales": multiscales} if zarr_format == 2 else {"ome": {"multiscales": multiscales}})
    return path


def axes(unit: str | None = "millimeter", *lead: dict[str, Any], **orientation: str) -> list[dict[str, Any]]:
    space = []
    for name in "zyx":
        axis: dict[str, Any] = {"name": name, "type": "space"}
        if unit:
            axis["unit"] = unit
        if name in orientation:
            axis["orientation"] = {"type": "anatomical", "value": orientation[name]}
        space.append(axis)
    return [*lead, *space]


@pytest.mark.filterwarnings("ignore:.*no orientation")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_finest_level_lies_where_itk_would_put_it(tmp_path: Path, zarr_format: int) -> None:
    image = read_image(write(tmp_path / "scan.ome.zarr", ARRAY, axes(), zarr_format=zarr_format))
    assert_array_equal(image.array, ARRAY.transpose(2, 1, 0))
    assert_allclose(image.grid.to_world([0, 0, 0]), [-8.0, 12.0, 40.0])
    assert_allclose(image.grid.to_world([4, 5, 6]), [-8.0 - 4 * 0.75, 12.0 - 5 * 1.5, 40.0 + 6 * 3.0])


def test_stated_orientation_and_unit_place_the_voxels(tmp_path: Path) -> None:
    sides = {"x": "superior-to-inferior", "y": "left-to-right", "z": "posterior-to-anterior"}
    channel = {"name": "c", "type": "channel"}
    image = read_image(write(tmp_path / "scan.zarr", ARRAY[None], axes("micrometer", channel, **sides)))
    assert_allclose(1000 * image.grid.to_world([0, 0, 0]), [-12.0, 40.0, -8.0])
    assert_allclose(1000 * image.grid.to_world([4, 5, 6]), [-12.0 + 5 * 1.5, 40.0 + 6 * 3.0, -8.0 - 4 * 0.75])


@pytest.mark.filterwarnings("ignore:.*no orientation")
def test_transformations_of_the_image_follow_those_of_the_level(tmp_path: Path) -> None:
    more = {"coordinateTransformations": [{"type": "scale", "scale": [2.0, 2.0, 2.0]}]}
    with pytest.warns(UserWarning, match="have no unit"):
        image = read_image(write(tmp_path / "scan.zarr", ARRAY, axes(None), **more))
    assert_allclose(image.grid.spacing, [1.5, 3.0, 6.0])
    assert_allclose(image.grid.to_world([0, 0, 0]), [-16.0, 24.0, 80.0])


def test_an_axis_without_an_orientation_is_announced_and_null_is_none(tmp_path: Path) -> None:
    unknown = axes()
    unknown[0]["orientation"] = None
    with pytest.warns(UserWarning, match="no orientation; x to the left"):
        image = read_image(write(tmp_path / "scan.zarr", ARRAY, unknown))
    assert image.grid.orientation == "LPS"


@pytest.mark.filterwarnings("ignore")  # ngff-zarr's own
@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("orientation", ["LPS", "RAS"])
def test_images_that_ngff_zarr_writes_lie_where_nibabel_and_itk_have_them(
    tmp_path: Path, orientation: str, version: str
) -> None:
    """From ITK, whose axes are LPS, and from nibabel, whose axes are RAS."""
    ngff = pytest.importorskip("ngff_zarr", reason="ngff-zarr is not installed: make test-interop")
    itkwasm = pytest.importorskip("itkwasm")
    grid = centred_grid((7, 6, 5), (0.75, 1.5, 3.0), orientation, (5.0, 2.0, -3.0))
    array = np.arange(210, dtype=np.int16).reshape(7, 6, 5)
    if orientation == "RAS":
        stored = ngff.nibabel_image_to_ngff_image(nibabel.Nifti1Image(array, grid.affine))
    else:
        kind = itkwasm.ImageType(3, itkwasm.IntTypes.Int16, itkwasm.PixelTypes.Scalar, 1)
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine
        scan = itkwasm.Image(kind, origin=lps[:3, 3].tolist(), spacing=list(grid.spacing), size=list(array.shape))
        scan.direction, scan.data = lps[:3, :3] / grid.spacing, np.ascontiguousarray(array.T)
        stored = ngff.itk_image_to_ngff_image(scan)
    stored.axes_units = dict.fromkeys("xyz", "millimeter")
    ngff.to_ngff_zarr(tmp_path / "scan.ome.zarr", ngff.to_multiscales(stored, scale_factors=[]), version=version)
    image = read_image(tmp_path / "scan.ome.zarr")
    assert_array_equal(image.array, array)
    assert_allclose(image.grid.affine, grid.affine, atol=1e-6)


def test_sizes_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    for name, shape, reason in (("long", 65535, "18 of 294912 chunks"), ("huge", 2**40, "free memory")):
        group = zarr.open_group(str(write(tmp_path / name, ARRAY[:4], axes(), zarr_format=3)), mode="a")
        group["0"].resize((shape, *ARRAY.shape[1:]))
        assert reason in refusal(read_image, tmp_path / name)


def test_what_is_no_single_volume_is_refused(tmp_path: Path) -> None:
    two = write(tmp_path / "two.zarr", np.stack([ARRAY, ARRAY]), axes("millimeter", {"name": "c", "type": "channel"}))
    assert "extract one channel" in refusal(read_image, two)
    turned = {"coordinateTransformations": [{"type": "rotation", "rotation": [1, 0, 0, 1]}]}
    assert "with a rotation" in refusal(read_image, write(tmp_path / "turned.zarr", ARRAY, axes(), **turned))
    zarr.open_group(str(tmp_path / "empty.zarr"), mode="w", zarr_format=2)
    assert "cannot be read as an OME-Zarr image" in refusal(read_image, tmp_path / "empty.zarr")
