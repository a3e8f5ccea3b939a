"""ITK transforms of every kind and file: points go where ITK sends them, in files and in SimpleITK's objects."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from corereg.integrations.images import transform_from_sitk
from corereg.io.images.itk import LPS_RAS, to_sitk
from corereg.io.transforms.transform import Transform
from helpers.refusals import refusal
from helpers.scenes import voxels_mm
from helpers.transforms import FIXED, MOVING, wavy

LPS = LPS_RAS[:3, :3]

MATRIX = np.array([[0.95, -0.1, 0.04], [0.08, 1.03, -0.05], [-0.02, 0.06, 0.98]])
TRANSLATION, CENTRE = np.array([6.0, -4.0, 2.0]), np.array([10.0, 20.0, -5.0])
POINTS = np.random.default_rng(0).uniform(-40, 40, (30, 3))


def about_centre(points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """M (x - c) + c + t in LPS, of and to RAS."""
    return ((points_mm @ LPS - CENTRE) @ MATRIX.T + CENTRE + TRANSLATION) @ LPS


def by_itk(transform: Any, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([transform.TransformPoint((LPS @ p).tolist()) for p in points_mm]) @ LPS


def text_file(path: Path, *transforms: tuple[str, Any, Any]) -> Path:
    lines = ["#Insight Transform File V1.0"]
    for number, (kind, parameters, fixed) in enumerate(transforms):
        lines += [f"#Transform {number}", f"Transform: {kind}_double_3_3"]
        if kind != "CompositeTransform":
            lines += [f"{name}: {' '.join(map(repr, np.ravel(values).tolist()))}" for name, values in
                      (("Parameters", parameters), ("FixedParameters", fixed))]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return path


def h5_file(path: Path, *transforms: tuple[str, Any, Any], spelling: str = "Transform") -> Path:
    with h5py.File(path, "w") as file:
        file.create_group("TransformGroup")
        for number, (kind, parameters, fixed) in enumerate(transforms):
            group = file.create_group(f"TransformGroup/{number}")
            group["TransformType"] = np.array([f"{kind}_double_3_3"], dtype=h5py.string_dtype("ascii"))
            if kind != "CompositeTransform":
                group[f"{spelling}Parameters"] = np.ravel(parameters).astype(np.float64)
                group[f"{spelling}FixedParameters"] = np.ravel(fixed).astype(np.float64)
    return path


COMPOSITE = ("CompositeTransform", (), ())
OFFSET = (np.r_[MATRIX.ravel(), TRANSLATION], CENTRE)
CENTRED = (np.r_[MATRIX.ravel(), CENTRE, TRANSLATION], np.zeros(3))


@pytest.mark.parametrize(
    "transform",
    [
        ("AffineTransform", *OFFSET),
        ("MatrixOffsetTransformBase", *OFFSET),
        ("CenteredAffineTransform", *CENTRED),
        ("CenteredAffineTransform", CENTRED[0], ()),
    ],
    ids=lambda transform: transform[0],
)
@pytest.mark.parametrize("file", ["t.txt", "t.tfm", "t.h5"])
@pytest.mark.parametrize("in_composite", [False, True])
def test_matrix_about_a_centre_is_read_whatever_its_class(
    tmp_path: Path, transform: tuple[str, Any, Any], file: str, in_composite: bool
) -> None:
    transforms = [COMPOSITE, transform] if in_composite else [transform]
    path = (h5_file if file == "t.h5" else text_file)(tmp_path / file, *transforms)
    assert_allclose(Transform.load(path).apply_points(POINTS), about_centre(POINTS), atol=1e-9)


def test_matrix_offset_in_the_file_of_ants_is_read(tmp_path: Path) -> None:
    """ANTs writes its affine as MATLAB 4, under this name or as AffineTransform."""
    affine = SimpleITK.AffineTransform(3)
    affine.SetParameters(OFFSET[0].tolist())
    affine.SetFixedParameters(CENTRE.tolist())
    SimpleITK.WriteTransform(affine, str(tmp_path / "affine.mat"))
    assert_allclose(Transform.load(tmp_path / "affine.mat").apply_points(POINTS), about_centre(POINTS), atol=1e-9)
    content = (tmp_path / "affine.mat").read_bytes()
    old, new = b"AffineTransform_double_3_3\0", b"MatrixOffsetTransformBase_double_3_3\0"
    renamed = content.replace(len(old).to_bytes(4, "little") + old, len(new).to_bytes(4, "little") + new)
    assert renamed != content
    (tmp_path / "0GenericAffine.mat").write_bytes(renamed)
    assert_allclose(
        Transform.load(tmp_path / "0GenericAffine.mat").apply_points(POINTS), about_centre(POINTS), atol=1e-9
    )


LINEAR = {
    "Euler3DTransform": (SimpleITK.Euler3DTransform, [0.1, -0.05, 0.2, 3.0, 1.0, -2.0]),
    "VersorTransform": (SimpleITK.VersorTransform, [0.1, -0.2, 0.05]),
    "VersorRigid3DTransform": (SimpleITK.VersorRigid3DTransform, [0.1, -0.2, 0.05, 3.0, 1.0, -2.0]),
    "Similarity3DTransform": (SimpleITK.Similarity3DTransform, [0.1, -0.2, 0.05, 3.0, 1.0, -2.0, 1.1]),
    "ScaleVersor3DTransform": (SimpleITK.ScaleVersor3DTransform, [0.1, -0.2, 0.05, 3.0, 1.0, -2.0, 1.1, 0.9, 1.05]),
    "ComposeScaleSkewVersor3DTransform": (
        SimpleITK.ComposeScaleSkewVersor3DTransform,
        [0.1, -0.2, 0.05, 3.0, 1.0, -2.0, 1.1, 0.9, 1.05, 0.02, -0.03, 0.01],
    ),
    "ScaleTransform": (lambda: SimpleITK.ScaleTransform(3), [1.1, 0.9, 1.05]),
    "ScaleLogarithmicTransform": (lambda: SimpleITK.Transform(3, SimpleITK.sitkScaleLogarithmic), [0.1, -0.2, 0.05]),
    "QuaternionRigidTransform": (
        lambda: SimpleITK.Transform(3, SimpleITK.sitkQuaternionRigid),
        [*(np.array([0.1, -0.2, 0.05, 0.9]) / np.linalg.norm([0.1, -0.2, 0.05, 0.9])).tolist(), 3.0, 1.0, -2.0],
    ),
    "TranslationTransform": (lambda: SimpleITK.TranslationTransform(3), [6.0, -4.0, 2.0]),
    "IdentityTransform": (lambda: SimpleITK.Transform(3, SimpleITK.sitkIdentity), []),
}


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("suffix", [".tfm", ".h5", ".mat"])
def test_linear_transform_of_any_class_moves_points_as_in_itk(tmp_path: Path, kind: str, suffix: str) -> None:
    make, parameters = LINEAR[kind]
    theirs = make()
    if theirs.GetFixedParameters() and kind != "Euler3DTransform":
        theirs.SetFixedParameters(CENTRE.tolist())
    theirs.SetParameters(parameters)
    SimpleITK.WriteTransform(theirs, str(tmp_path / f"t{suffix}"))
    ours = Transform.load(tmp_path / f"t{suffix}")
    assert len(ours.parts) == 1
    assert_allclose(ours.apply_points(POINTS), by_itk(theirs, POINTS), atol=1e-9)


def field_parameters(values: float = 2.0) -> tuple[str, Any, Any]:
    """A displacement of `values` mm along x on a grid of unequal sizes around the origin, in LPS."""
    size, spacing = np.array([7, 6, 5]), np.array([20.0, 22.0, 25.0])
    vectors = np.zeros((*size[::-1], 3))
    vectors[..., 0] = values
    return "DisplacementFieldTransform", vectors, np.r_[size, -(size - 1) / 2 * spacing, spacing, np.eye(3).ravel()]


@pytest.mark.parametrize("spelling", ["Transform", "Tranform"])
def test_centred_affines_around_a_field_are_composed_as_unigradicon_writes_them(tmp_path: Path, spelling: str) -> None:
    """A point passes the transform that was added last first; old versions of ITK misspell the names in HDF5."""
    after = ("CenteredAffineTransform", np.r_[2 * np.eye(3).ravel(), np.zeros(3), 5.0, 6.0, 7.0], np.zeros(3))
    before = ("CenteredAffineTransform", np.r_[0.5 * np.eye(3).ravel(), np.zeros(3), np.ones(3)], np.zeros(3))
    path = h5_file(tmp_path / "icon.h5", COMPOSITE, after, field_parameters(), before, spelling=spelling)
    found = Transform.load(path).apply_points(np.array([[2.0, 3.0, 4.0]]) @ LPS) @ LPS
    assert_allclose(found, [[13.0, 11.0, 13.0]], atol=1e-5)


def test_simpleitk_objects_of_classes_that_it_has_no_type_for_are_read(tmp_path: Path) -> None:
    alone = SimpleITK.ReadTransform(str(text_file(tmp_path / "a.txt", ("MatrixOffsetTransformBase", *OFFSET))))
    assert_allclose(transform_from_sitk(alone).apply_points(POINTS), about_centre(POINTS), atol=1e-9)
    parts = [COMPOSITE, ("CenteredAffineTransform", *CENTRED), field_parameters(), ("AffineTransform", *OFFSET)]
    composite = SimpleITK.ReadTransform(str(h5_file(tmp_path / "b.h5", *parts)))
    ours = transform_from_sitk(composite)
    assert ours.names == ("affine", "deformation", "affine-2")
    assert_allclose(ours.apply_points(POINTS), by_itk(composite, POINTS), atol=1e-4)


@pytest.mark.parametrize("file", ["t.tfm", "t.h5"])
def test_several_transforms_without_a_composite_are_refused(tmp_path: Path, file: str) -> None:
    shifts = [("TranslationTransform", shift, ()) for shift in ([6.0, 0.0, 0.0], [0.0, 9.0, 0.0])]
    path = (h5_file if file == "t.h5" else text_file)(tmp_path / file, *shifts)
    assert "2 separate transforms" in refusal(Transform.load, path)
    path = (h5_file if file == "t.h5" else text_file)(tmp_path / file, COMPOSITE, *shifts)
    assert_allclose(Transform.load(path).apply_points(np.zeros((1, 3))) @ LPS, [[6.0, 9.0, 0.0]], atol=1e-12)


def b_spline(order: int = 3) -> Any:
    spline = SimpleITK.BSplineTransformInitializer(
        to_sitk(np.zeros(FIXED.shape, np.uint8), FIXED), [4, 5, 6], order=order
    )
    knots = np.random.default_rng(0).normal(scale=3, size=len(spline.GetParameters()))
    spline.SetParameters(knots.tolist())
    return spline


@pytest.mark.parametrize("suffix", [".tfm", ".h5"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_b_spline_behind_a_rotation_and_a_shift_is_exact_at_the_voxels(tmp_path: Path, suffix: str, order: int) -> None:
    euler = SimpleITK.Euler3DTransform((5.0, -3.0, 8.0), 0.3, -0.2, 0.25, (25.0, -15.0, 10.0))
    theirs = SimpleITK.CompositeTransform([b_spline(order), euler])  # a point passes the rotation first
    SimpleITK.WriteTransform(theirs, str(tmp_path / f"t{suffix}"))
    ours = Transform.load(tmp_path / f"t{suffix}", fixed=FIXED)
    points = voxels_mm(FIXED).reshape(-1, 3)[::7]
    expected = by_itk(theirs, points)
    assert np.linalg.norm(expected - by_itk(euler, points), axis=1).max() > 2
    assert_allclose(ours.apply_points(points), expected, atol=1e-3)
    assert not ours.extrapolated(points).any()
    assert_allclose(transform_from_sitk(theirs, fixed=FIXED).apply_points(points), expected, atol=1e-3)


def test_b_spline_behind_a_field_is_sampled_wherever_voxels_arrive(tmp_path: Path) -> None:
    """The field moves the outermost voxels beyond the fixed grid, where the B-spline still bends."""
    field = SimpleITK.DisplacementFieldTransform(
        SimpleITK.Cast(to_sitk(np.full((*FIXED.shape, 3), [14.0, -9.0, 11.0]), FIXED), SimpleITK.sitkVectorFloat64)
    )
    theirs = SimpleITK.CompositeTransform([b_spline(), field])
    SimpleITK.WriteTransform(theirs, str(tmp_path / "t.h5"))
    ours = Transform.load(tmp_path / "t.h5", fixed=FIXED)
    points = voxels_mm(FIXED).reshape(-1, 3)[::7]
    error = np.linalg.norm(ours.apply_points(points) - by_itk(theirs, points), axis=1)
    assert error.max() < 0.1
    assert not ours.extrapolated(points).any()


AXES = np.eye(3).ravel()
FIELD = "DisplacementFieldTransform"

UNUSABLE: dict[str, tuple[list[tuple[str, Any, Any]], str]] = {
    "old B-spline": ([("BSplineDeformableTransform", [0.0], [0.0])], "BSplineDeformableTransform"),
    "velocity": ([("TimeVaryingVelocityFieldTransform", [0.0], [0.0])], "TimeVaryingVelocityFieldTransform"),
    "a number short": ([("AffineTransform", OFFSET[0][:11], CENTRE)], "do not belong together"),
    "without a centre": ([("CenteredAffineTransform", OFFSET[0], CENTRE)], "do not belong together"),
    "short field": ([(FIELD, np.zeros(6), np.r_[1, 1, 3, np.zeros(3), np.ones(3), AXES])], "do not belong together"),
    "huge field": (
        [(FIELD, np.zeros(3), np.r_[3e4, 3e4, 3e4, np.zeros(3), np.ones(3), AXES])],
        "do not belong together",
    ),
    "huge spacing": (
        [(FIELD, np.zeros(3), np.r_[np.ones(3), np.zeros(3), np.full(3, 1e38), AXES])],
        "repair the spacing",
    ),
    "flat axes": ([(FIELD, np.zeros(3), np.r_[np.ones(3), np.zeros(3), np.ones(3), np.zeros(9)])], "singular"),
    "huge offsets": ([(FIELD, np.full(3, 3e38), np.r_[np.ones(3), np.zeros(3), np.ones(3), AXES])], "of up to"),
    "long versor": ([("VersorTransform", [0.9, 0.9, 0.9], CENTRE)], "VersorTransform that ITK refuses"),
    "singular": ([("AffineTransform", np.r_[np.zeros(9), TRANSLATION], CENTRE)], "can be inverted"),
    "NaN": ([("AffineTransform", np.r_[np.full(9, np.nan), TRANSLATION], CENTRE)], "NaN"),
    "1e200": ([("AffineTransform", np.r_[1e200 * MATRIX.ravel(), TRANSLATION], CENTRE)], "affine part"),
    "nested": ([COMPOSITE, COMPOSITE, ("AffineTransform", *OFFSET)], "composite inside another"),
    "nothing": ([], "without a transform"),
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("file", ["t.tfm", "t.h5"])
def test_unusable_transform_is_refused_in_one_line(tmp_path: Path, name: str, file: str) -> None:
    transforms, message = UNUSABLE[name]
    path = (h5_file if file == "t.h5" else text_file)(tmp_path / file, *transforms)
    assert message in refusal(Transform.load, path, fixed=FIXED)


UNIT = "[[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]"


def extras_of(names: str = "[]", fixed: str = "null") -> str:
    return f'{{"names": {names}, "fixed": {fixed}, "moving": null}}'


EXTRAS = {
    "cut short": "{",
    "list": "[]",
    "text": '"text"',
    "empty": "{}",
    "names are a number": extras_of("3"),
    "name is a number": extras_of("[1]"),
    "name of two lines": extras_of('["a\\nb"]'),
    "empty grid": extras_of(fixed="{}"),
    "two axes": extras_of(fixed=f'{{"shape": [3, 4], "affine": {UNIT}}}'),
    "size is a text": extras_of(fixed=f'{{"shape": [3, 4, "5"], "affine": {UNIT}}}'),
    "no voxels": extras_of(fixed=f'{{"shape": [0, 4, 5], "affine": {UNIT}}}'),
    "spacing of 1e38": extras_of(fixed=f'{{"shape": [3, 4, 5], "affine": {UNIT.replace("[0,1,", "[0,1e38,")}}}'),
    "NaN": extras_of(fixed=f'{{"shape": [3, 4, 5], "affine": {UNIT.replace("[[1,", "[[NaN,")}}}'),
    "nested 100,000 deep": "[" * 100_000,
}


@pytest.mark.parametrize("name", EXTRAS)
@pytest.mark.parametrize("suffix", [".h5", ".tfm"])
def test_damaged_names_and_grids_are_refused_in_one_line(tmp_path: Path, name: str, suffix: str) -> None:
    extras, path = EXTRAS[name], tmp_path / f"t{suffix}"
    wavy(FIXED).save(path)
    if suffix == ".h5":
        if len(extras) > 60_000:
            pytest.skip("HDF5 keeps attributes below 64 KiB")
        with h5py.File(path, "r+") as file:
            file["corereg"].attrs["extras"] = extras
    else:
        lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#corereg")]
        path.write_text("\n".join([*lines, f"#corereg {extras}", ""]))
    assert "damaged" in refusal(Transform.load, path)


def outside_storage(file: Any) -> None:
    """The parameters lie in another file, which HDF5 would read whatever it is."""
    del file["TransformGroup/1/TransformParameters"]
    file.create_dataset(
        "TransformGroup/1/TransformParameters", shape=(12,), dtype="f8", external=[("/etc/hostname", 0, 96)]
    )


def nan_inverse(file: Any) -> None:
    values = file["corereg/inverse/1"][()]
    values[0, 3, 4, 5] = np.nan
    file["corereg/inverse/1"][...] = values


def replaced(name: str, value: Any) -> Any:
    def damage(file: Any) -> None:
        del file[name]
        file[name] = value

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (nan_inverse, "NaN"),
        (replaced("corereg/inverse/0", np.full((4, 4), 1e200)), "affine part"),
        (replaced("corereg/inverse/0", np.zeros((2, 2))), "affine part"),
        (replaced("corereg/inverse/1", np.zeros((2, 5, 6, 7))), "4x4 matrix"),
        (replaced("corereg/inverse/1", b"text"), "cannot be read"),
        (replaced("TransformGroup/1/TransformParameters", b"text"), "cannot be read"),
        (replaced("TransformGroup/1/TransformType", 7), "which is not one of ITK's"),
        (replaced("TransformGroup/1/TransformType", b"Affine_double_2_2"), "2 to 2 dimensions"),
        (outside_storage, "refers to other files"),
        (lambda file: file.__delitem__("TransformGroup"), "cannot be read"),
        (lambda file: file.create_group("TransformGroup/x"), "cannot be read"),
        (lambda file: file.__delitem__("TransformGroup/2/TransformParameters"), "cannot be read"),
    ],
)
def test_damaged_h5_is_refused_in_one_line(tmp_path: Path, damage: Any, message: str) -> None:
    path = tmp_path / "t.h5"
    wavy(FIXED, MOVING).save(path)
    with h5py.File(path, "r+") as file:
        damage(file)
    assert message in refusal(Transform.load, path)


def test_h5_that_declares_more_than_it_holds_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    wavy(FIXED).save(path)
    with h5py.File(path, "r+") as file:
        group = file["TransformGroup/2"]
        del group["TransformParameters"]
        group.create_dataset("TransformParameters", shape=(3 * 30000**3,), dtype="f4", chunks=(2**20,), compression=1)
        group["TransformFixedParameters"][:3] = 30000
    assert "30000" in refusal(Transform.load, path) or "memory" in refusal(Transform.load, path)
