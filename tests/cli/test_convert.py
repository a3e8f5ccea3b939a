"""`corereg convert`: there and back, and what is refused."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.image import Image, write_image
from corereg.io.images.itk import to_sitk
from corereg.io.transforms.convert import convert_transform
from corereg.io.transforms.formats.registry import FORMATS
from corereg.io.transforms.transform import Transform
from helpers.commands import Command, one_line
from helpers.refusals import refusal
from helpers.scenes import scan
from helpers.transforms import (
    FIXED,
    MOVING,
    wavy,
    written,
)


def by_simpleitk(transform: Any, moving: Image, fixed: Grid) -> NDArray[np.float64]:
    like = to_sitk(np.zeros(fixed.shape, np.float32), fixed)
    warped = SimpleITK.Resample(to_sitk(moving.array, moving.grid), like, transform, SimpleITK.sitkLinear)
    return SimpleITK.GetArrayFromImage(warped).T


def field_in_simpleitk(path: Path) -> Any:
    return SimpleITK.DisplacementFieldTransform(SimpleITK.ReadImage(str(path), SimpleITK.sitkVectorFloat64))


def itk(path: Path, moving: Image, fixed: Grid) -> NDArray[np.float64]:
    return by_simpleitk(SimpleITK.ReadTransform(str(path)), moving, fixed)


def ants(prefix: Path, moving: Image, fixed: Grid) -> NDArray[np.float64]:
    """As `antsApplyTransforms -t 1Warp -t 0GenericAffine`: a point passes the warp first."""
    stack = SimpleITK.CompositeTransform(3)
    stack.AddTransform(SimpleITK.ReadTransform(f"{prefix}0GenericAffine.mat"))
    stack.AddTransform(field_in_simpleitk(Path(f"{prefix}1Warp.nii.gz")))
    return by_simpleitk(stack, moving, fixed)


def test_command_line_names_every_format() -> None:
    from corereg.cli.transforms import FORMAT_NAMES

    assert set(FORMAT_NAMES.replace(" or ", ", ").split(", ")) == set(FORMATS)


def test_command_converts_there_and_back(tmp_path: Path, command: Command) -> None:
    wavy(FIXED).save(tmp_path / "transform.h5")
    write_image(tmp_path / "moving.nii.gz", scan(MOVING).array, MOVING)
    there = command("convert", tmp_path / "transform.h5", "-o", tmp_path / "warp.nii.gz", "--to", "fsl")
    assert (there.status, there.out.strip()) == (0, str(tmp_path / "warp.nii.gz"))
    assert "corereg: fsl holds one field: the parts deformation, affine are composed into it" in there.err
    arguments = ("convert", tmp_path / "warp.nii.gz", "-o", tmp_path / "back.tfm")
    assert "add --moving IMAGE" in one_line(command(*arguments))
    back = command(*arguments, "--moving", tmp_path / "moving.nii.gz")
    assert (back.status, back.err) == (0, "")
    points = np.random.default_rng(1).uniform(-25, 25, (50, 3))
    assert_allclose(
        Transform.load(tmp_path / "back.tfm").apply_points(points), wavy(FIXED).apply_points(points), atol=0.05
    )


def test_converted_parts_and_directions_are_those_asked_for(tmp_path: Path) -> None:
    transform = wavy(FIXED)
    transform.save(tmp_path / "transform.h5")
    points = np.random.default_rng(1).uniform(-25, 25, (50, 3))
    for options, expected in (
        ({"only": ["affine"]}, transform.named("affine")),
        ({"without": ["affine"]}, transform.without("affine")),
        ({"inverse": True}, transform.inverse()),
    ):
        convert_transform(tmp_path / "transform.h5", tmp_path / "out.mha", **options)
        assert_allclose(
            Transform.load(tmp_path / "out.mha").apply_points(points), expected.apply_points(points), atol=0.05
        )


def test_frames_of_reference_for_dicom_are_given_on_the_command_line(tmp_path: Path, command: Command) -> None:
    wavy(FIXED).save(tmp_path / "transform.h5")
    frames = ("--fixed-frame", "1.2.3", "--moving-frame", "1.2.4")
    arguments = ("convert", tmp_path / "transform.h5", "-o", tmp_path / "reg.dcm")
    assert "add --fixed FOLDER or --fixed-frame UID" in one_line(command(*arguments))
    assert command(*arguments, *frames, "--inverse").status == 0
    data = pydicom.dcmread(tmp_path / "reg.dcm")
    assert data.FrameOfReferenceUID == "1.2.4"  # the inverse resamples onto the moving image
    assert data.DeformableRegistrationSequence[0].SourceFrameOfReferenceUID == "1.2.3"


@pytest.mark.parametrize(
    ("to", "out", "other"),
    [
        ("elastix", "pair.txt", "pair_deformation.txt"),
        ("elastix", "pair.txt", "pair_deformation.nii.gz"),
        ("ants", "pair_", "pair_1InverseWarp.nii.gz"),
    ],
)
def test_no_file_of_a_set_is_replaced_without_force(
    tmp_path: Path, command: Command, to: str, out: str, other: str
) -> None:
    wavy(FIXED).save(tmp_path / "transform.h5")
    (tmp_path / other).write_text("mine", "utf-8")
    arguments = ("convert", tmp_path / "transform.h5", "-o", tmp_path / out, "--to", to)
    refused = one_line(command(*arguments))
    assert other in refused
    assert "--force" in refused
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["transform.h5", other])
    assert (tmp_path / other).read_bytes() == b"mine"
    assert command(*arguments, "--force").status == 0
    assert (tmp_path / other).read_bytes() != b"mine"


NOTHING: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("source", "out", "options", "message"),
    [
        ("transform.h5", "out.xyz", NOTHING, "add --to"),
        ("transform.h5", "out.nii.gz", NOTHING, "add --to"),
        ("transform.h5", "out.nii.gz", {"to": "itk"}, "rename it"),
        ("transform.h5", "out.nii.gz", {"to": "dartel"}, "expected one of itk, itk-field"),
        ("transform.h5", "out.h5", {"only": ["rigid"]}, "expected one of deformation, affine"),
        ("transform.h5", "nowhere/out.h5", NOTHING, "make it first"),
        ("nothing.h5", "out.h5", NOTHING, "check the path"),
        ("disp.nii.gz", "out.h5", NOTHING, "give the fixed image with it"),
        ("disp.nii.gz", "out.h5", {"fixed": FIXED}, "give the moving image with it"),
        ("disp.nii.gz", "out.h5", {"fixed": MOVING, "moving": FIXED}, "for the fixed image"),
        ("warp.nii.gz", "out.h5", NOTHING, "give the moving image with it"),
        ("coefficients.nii.gz", "out.h5", {"moving": MOVING}, "fnirtfileutils"),
        ("velocity.nii.gz", "out.h5", NOTHING, "reg_transform"),
        ("singular.tfm", "out.h5", NOTHING, "can be inverted"),
        ("flat.tfm", "out.h5", NOTHING, "expected 3"),
        ("broken.h5", "out.h5", NOTHING, "cannot be read"),
        ("broken.npz", "out.h5", {"fixed": FIXED, "moving": MOVING}, "damaged"),
        ("nan.h5", "out.h5", NOTHING, "NaN"),
        ("matrix.txt", "out.h5", NOTHING, "write it again by `corereg convert`"),
        ("pair_1Warp.nii.gz", "out.h5", {"source_format": "ants"}, "expected the prefix"),
    ],
)
def test_bad_conversions_are_refused_in_one_line_and_leave_nothing(
    tmp_path: Path, source: str, out: str, options: dict[str, Any], message: str
) -> None:
    bad_files(tmp_path, source)
    before = sorted(tmp_path.iterdir())
    assert message in refusal(convert_transform, tmp_path / source, tmp_path / out, **options)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("source", "message", "options"),
    [
        ("disp.nii.gz", "give the fixed image with it", "add --fixed IMAGE, or with --inverse --moving IMAGE"),
        ("matrix.txt", "write it again by `corereg convert`", "add --from niftyreg (world to world) or --from fsl"),
        ("notes.md", "say its format to `corereg convert`", "add --from"),
    ],
)
def test_options_are_named_by_the_commands_that_have_them(
    tmp_path: Path, command: Command, source: str, message: str, options: str
) -> None:
    (tmp_path / "notes.md").write_text("a transform?")
    bad_files(tmp_path, source)
    given = tmp_path / source
    for words in (("convert", given, "-o", tmp_path / "out.h5"), ("apply", given, given, "-o", tmp_path / "out.csv")):
        assert f"{message} ({options}" in one_line(command(*words))
    assert "--" not in refusal(Transform.load, given)


def bad_files(folder: Path, name: str) -> None:
    """The file of this name, good or bad."""
    transform, path = wavy(FIXED), folder / name
    if name == "transform.h5":
        transform.save(path)
    elif name in ("disp.nii.gz", "warp.nii.gz"):
        written(transform, folder, {"d": "learn2reg", "w": "fsl"}[name[0]], name)
    elif name in ("coefficients.nii.gz", "velocity.nii.gz"):
        written(transform, folder, {"c": "fsl", "v": "niftyreg"}[name[0]], name)
        image = nibabel.load(path)
        image.get_fdata()
        image.header["intent_code" if name[0] == "c" else "intent_p1"] = 2007 if name[0] == "c" else 3
        nibabel.save(nibabel.Nifti1Image(image.get_fdata(), None, image.header), path)
    elif name == "singular.tfm":
        flat = SimpleITK.AffineTransform(3)
        SimpleITK.WriteTransform(flat, str(path))
        path.write_text(
            path.read_text("utf-8").replace("Parameters: 1 0 0 0 1 0 0 0 1", "Parameters: 1 0 0 0 1 0 0 0 0")
        )
    elif name == "flat.tfm":
        SimpleITK.WriteTransform(SimpleITK.Euler2DTransform(), str(path))
    elif name == "nan.h5":
        values = np.zeros((*FIXED.shape, 3))
        values[3, 4, 5] = np.nan
        SimpleITK.WriteTransform(SimpleITK.DisplacementFieldTransform(to_sitk(values, FIXED)), str(path))
    elif name.startswith("broken"):
        transform.save(folder / "broken.h5")
        path.write_bytes((folder / "broken.h5").read_bytes()[:9000])
    elif name == "matrix.txt":
        np.savetxt(path, np.eye(4))
