"""elastix's parameter files: written as elastix reads them, and read as elastix writes them."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.itk import LPS_RAS, to_sitk
from corereg.io.transforms.convert import convert_transform
from corereg.io.transforms.formats.registry import FORMATS, detect_format
from corereg.io.transforms.transform import Transform
from helpers.refusals import refusal
from helpers.transforms import FIXED, MOVING, small_affine, wavy, written

LPS = LPS_RAS[:3, :3]
POINTS = np.random.default_rng(0).uniform(-30, 30, (40, 3))
FLOAT32_MM = 3e-4


def parameters(path: Path) -> dict[str, list[str]]:
    """What a file states, by a reading of its own."""
    rows = re.findall(r"^\((\w+) (.*)\)$", path.read_text("utf-8"), flags=re.MULTILINE)
    return {key: value.replace('"', "").split() for key, value in rows}


def numbers(row: list[str]) -> NDArray[np.float64]:
    return np.array(row, dtype=np.float64)


def by_elastix(path: Path, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """A point passes the initial transform first, then this one: x -> M (x - c) + c + t, or x + d(x), in LPS."""
    stated = parameters(path)
    initial = stated["InitialTransformParameterFileName"][0]
    assert stated["InitialTransformParametersFileName"] == [initial]
    assert stated["HowToCombineTransforms"] == ["Compose"]
    points = points_mm @ LPS if initial == "NoInitialTransform" else by_elastix(path.parent / initial, points_mm) @ LPS
    if stated["Transform"] == ["AffineTransform"]:
        values, centre = numbers(stated["TransformParameters"]), numbers(stated["CenterOfRotationPoint"])
        return ((points - centre) @ values[:9].reshape(3, 3).T + centre + values[9:]) @ LPS
    assert stated["Transform"] == ["DeformationFieldTransform"]
    image = SimpleITK.ReadImage(str(path.parent / stated["DeformationFieldFileName"][0]), SimpleITK.sitkVectorFloat64)
    field = SimpleITK.DisplacementFieldTransform(image)
    return np.array([field.TransformPoint(point.tolist()) for point in points]) @ LPS


def transformed_as_elastix_would(path: Path, fixed: Grid) -> None:
    """The grid onto which transformix resamples is the fixed one."""
    stated = parameters(path)
    reference = to_sitk(np.zeros(fixed.shape, np.uint8), fixed)
    assert [int(size) for size in stated["Size"]] == list(fixed.shape)
    assert_allclose(numbers(stated["Spacing"]), reference.GetSpacing(), atol=1e-12)
    assert_allclose(numbers(stated["Origin"]), reference.GetOrigin(), atol=1e-9)
    # elastix states directions column by column.
    assert_allclose(numbers(stated["Direction"]).reshape(3, 3).T.ravel(), reference.GetDirection(), atol=1e-12)


@pytest.mark.parametrize("part", ["affine", "deformation", "both"])
def test_written_files_move_points_as_the_transform_does(tmp_path: Path, part: str) -> None:
    transform = wavy(FIXED) if part == "both" else wavy(FIXED).named(part)
    path = tmp_path / "TransformParameters.txt"
    FORMATS["elastix"].write(path, transform.stored())
    points = FIXED.to_world(np.random.default_rng(1).integers(1, 22, (40, 3)))  # where the fields agree by definition
    assert_allclose(by_elastix(path, points), transform.apply_points(points), atol=1e-3)
    transformed_as_elastix_would(path, FIXED)
    assert detect_format(path) == "elastix"
    assert_allclose(Transform.load(path).apply_points(points), transform.apply_points(points), atol=FLOAT32_MM)
    assert len(list(tmp_path.iterdir())) == (1 if part == "affine" else 3)


def test_registration_that_begins_with_another_is_read_part_by_part(tmp_path: Path) -> None:
    """As elastix leaves them: an affine result, then a B-spline on the fixed image with an absolute initial name."""
    spline = SimpleITK.BSplineTransformInitializer(to_sitk(np.zeros(FIXED.shape, np.uint8), FIXED), [4, 5, 6])
    spline.SetParameters(np.random.default_rng(0).normal(scale=2, size=len(spline.GetParameters())).tolist())
    fixed = np.array(spline.GetFixedParameters())
    FORMATS["elastix"].write(tmp_path / "TransformParameters.0.txt", wavy(FIXED).named("affine").stored())
    head, _, tail = (tmp_path / "TransformParameters.0.txt").read_text("utf-8").partition("(HowToCombine")
    rows = {
        "Transform": '"BSplineTransform"',
        "NumberOfParameters": len(spline.GetParameters()),
        "TransformParameters": " ".join(map(repr, spline.GetParameters())),
        "InitialTransformParameterFileName": '"C:\\results\\TransformParameters.0.txt"',
        "GridSize": " ".join(str(int(n)) for n in fixed[:3]),
        "GridIndex": "0 0 0",
        "GridOrigin": " ".join(map(repr, fixed[3:6].tolist())),
        "GridSpacing": " ".join(map(repr, fixed[6:9].tolist())),
        "GridDirection": " ".join(map(repr, fixed[9:].reshape(3, 3).T.ravel().tolist())),
        "BSplineTransformSplineOrder": 3,
    }
    text = "".join(f"({key} {value})\n" for key, value in rows.items()) + "(HowToCombine" + tail
    (tmp_path / "TransformParameters.1.txt").write_text(text, "utf-8")
    loaded = Transform.load(tmp_path / "TransformParameters.1.txt")
    start = FIXED.to_world(np.random.default_rng(2).integers(2, 20, (30, 3)))
    affine = wavy(FIXED).named("affine").apply_points(start)
    expected = np.array([spline.TransformPoint((LPS @ p).tolist()) for p in affine]) @ LPS
    assert loaded.names == ("affine", "deformation")
    assert_allclose(loaded.apply_points(start), expected, atol=1e-3)
    assert head.startswith("(Transform")


def test_lacking_pieces_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    FORMATS["elastix"].write(path, wavy(FIXED).stored())
    (tmp_path / "t_deformation.nii.gz").rename(tmp_path / "elsewhere.nii.gz")
    assert "t_deformation.nii.gz, expected that file next to it" in refusal(Transform.load, path)
    (tmp_path / "t_deformation.txt").unlink()
    assert "begins with t_deformation.txt" in refusal(Transform.load, path)
    path.write_text('// settings\n(Transform "EulerTransform")\n(MaximumNumberOfIterations 500)\n', "utf-8")
    assert "the settings of a registration" in refusal(Transform.load, path)
    Transform((small_affine(),), None, MOVING).save(tmp_path / "affine.tfm")
    assert "give the fixed image with it" in refusal(convert_transform, tmp_path / "affine.tfm", path, to="elastix")


TRANSFORMIX = """
import itk, numpy
settings = itk.ParameterObject.New()
settings.AddParameterFile("TransformParameters.txt")
moving = itk.image_from_array(numpy.zeros((4, 5, 6), numpy.float32))
transformix = itk.TransformixFilter.New(MovingImage=moving, TransformParameterObject=settings)
transformix.SetFixedPointSetFileName("points.txt")
transformix.SetOutputDirectory(".")
transformix.UpdateLargestPossibleRegion()
"""
"""In a process of its own, since two builds of ITK disturb each other."""


@pytest.mark.skipif(find_spec("itk") is None, reason="itk-elastix is not installed: make test-interop")
def test_transformix_moves_points_as_we_do(tmp_path: Path) -> None:
    transform = wavy(FIXED)
    written(transform, tmp_path, "elastix", "TransformParameters.txt")
    points = FIXED.to_world(np.random.default_rng(1).integers(3, 20, (20, 3)))
    lines = ["point", str(len(points)), *(" ".join(map(repr, point)) for point in (points @ LPS).tolist())]
    (tmp_path / "points.txt").write_text("\n".join(lines) + "\n", "utf-8")
    subprocess.run([sys.executable, "-c", TRANSFORMIX], cwd=tmp_path, check=True)
    found = re.findall(r"OutputPoint = \[ (.*?) \]", (tmp_path / "outputpoints.txt").read_text("utf-8"))
    moved = np.array([row.split() for row in found], dtype=float) @ LPS
    assert_allclose(moved, transform.apply_points(points), atol=1e-3)
