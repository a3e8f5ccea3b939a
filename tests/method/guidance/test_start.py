"""A starting transform and rigid or affine results: what is known is kept, and nothing more is done than required."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from numpy.testing import assert_allclose, assert_array_equal

from corereg import RegistrationResult, Transform, read_image, register
from corereg.geometry.displacement import Displacement
from corereg.io.images.image import Image, write_image
from corereg.io.transforms.convert import convert_transform
from corereg.preprocessing.working_grid import field_of_view
from corereg.workflows.register import register_to_folder
from helpers.motions import motion
from helpers.pairs import FIXED, pair
from helpers.refusals import refusal
from helpers.scenes import affine_map, centred_grid, in_body, scan, voxels_mm, wave

QUICK: Any = {"spacing": 4.5, "refine_steps": 10}

REACHED_MM = 2.2
"""Error to which these quick settings register the pair from half of the wave."""

TURN = motion(degrees=(12, -8, 20), shift_mm=(60, -45, 30))
"""Too far for the stages alone."""

AWAY = centred_grid((46, 42, 40), (3.2, 3.2, 3.3), "PIR", (60.0, -45.0, 30.0))


def truth(points_mm: Any) -> Any:
    return affine_map(TURN)(wave_inverse(points_mm))


def wave_inverse(points_mm: Any) -> Any:
    found = points_mm
    for _ in range(30):
        found = found - (wave(found) - points_mm)
    return found


@cache
def turned() -> Image:
    """The moving scan, which shows at truth(p) what the fixed one shows at p."""
    return scan(AWAY, lambda q: wave(affine_map(np.linalg.inv(TURN))(q)), name="turned")


def points() -> Any:
    found = voxels_mm(FIXED)
    return found[in_body(found / 0.9)]


def error_mm(transform: Transform) -> float:
    return float(np.linalg.norm(transform.apply_points(points()) - truth(points()), axis=1).mean())


def matrix() -> Transform:
    return Transform((TURN,), fixed=FIXED)


def field() -> Transform:
    """Half of the wave, then the turn."""
    offsets = np.moveaxis((wave_inverse(voxels_mm(FIXED)) - voxels_mm(FIXED)) / 2, -1, 0)
    return Transform((Displacement.from_mm(torch.as_tensor(offsets, dtype=torch.float32), FIXED), TURN), fixed=FIXED)


@pytest.mark.parametrize(("start", "suffix"), [(matrix, ".tfm"), (field, ".nii.gz"), (field, ".h5")])
def test_registration_continues_from_an_initial_transform(tmp_path: Path, start: Any, suffix: str) -> None:
    path = tmp_path / f"initial{suffix}"
    start().save(path)
    found = register(pair()[0], turned(), initial=path, **QUICK)
    assert found.alignment is None
    assert error_mm(found.before) == pytest.approx(error_mm(start()), abs=0.1)
    assert error_mm(found.transform) < max(0.8 * error_mm(start()), REACHED_MM)
    assert found.inverse_error.mean < 0.5
    back = found.inverse_transform.apply_points(found.transform.apply_points(points()))
    assert np.linalg.norm(back - points(), axis=1).mean() < 0.5


def test_parts_of_an_initial_transform_are_the_last_parts_of_the_result() -> None:
    start = field()
    found = register(pair()[0], turned(), initial=start, **QUICK)
    assert len(found.transform.parts) == 3
    assert found.transform.parts[1] is start.parts[0]
    assert_array_equal(found.transform.parts[2], TURN)
    assert found.transform.names == ("deformation", "deformation-2", "affine")
    i, j, k = field_of_view(FIXED, found.refined.grid)
    volumes = found.transform.jacobian_determinant(found.refined.grid)[2 : i - 2, 2 : j - 2, 2 : k - 2]
    assert found.metrics["sdlogj"] == pytest.approx(np.log(volumes + 3).std(), rel=0.05), "both deformations count"


def test_initial_matrix_gives_what_a_corrected_header_gives() -> None:
    corrected = Image(turned().array, type(AWAY)(AWAY.shape, np.linalg.inv(TURN) @ AWAY.affine), name="corrected")
    found = register(pair()[0], turned(), initial=TURN, **QUICK)
    expected = register(pair()[0], corrected, affine="none", **QUICK)
    assert torch.equal(found.refined.disp_vox, expected.refined.disp_vox)


@cache
def linear(affine: str, *, started: bool = False) -> RegistrationResult:
    rough = motion(degrees=(10, -5, 16), shift_mm=(57, -47, 33))
    moving = scan(AWAY, affine_map(np.linalg.inv(TURN)), name="turned rigidly")
    return register(pair()[0], moving, affine=affine, initial=rough if started else None)


def rigid_error_mm(transform: Transform) -> float:
    there = affine_map(TURN)(points())
    return float(np.linalg.norm(transform.apply_points(points()) - there, axis=1).mean())


@pytest.mark.parametrize("started", [False, True])
def test_rigid_result_is_one_rigid_map_near_the_truth(started: bool) -> None:
    found = linear("rigid-only", started=started)
    assert all(isinstance(part, np.ndarray) for part in found.transform.parts)
    (own,) = found.transform.parts[:1]
    assert_allclose(own[:3, :3] @ own[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(own[:3, :3]) == pytest.approx(1)
    assert rigid_error_mm(found.transform) < 1.0 < rigid_error_mm(found.before)
    assert found.metrics["sdlogj"] == found.metrics["fold_percent"] == 0.0
    assert ("affine started from the initial transform, grid" in repr(found)) is started


def test_affine_result_is_one_matrix_near_the_truth() -> None:
    found = linear("affine-only")
    assert len(found.transform.parts) == 1
    assert rigid_error_mm(found.transform) < 1.5
    stretches = np.linalg.svd(np.asarray(found.transform.parts[0])[:3, :3], compute_uv=False)
    assert abs(stretches - 1).max() > 1e-6, "an affine map, not a rigid one"


def test_rigid_pre_alignment_is_followed_by_a_deformation() -> None:
    found = register(pair()[0], turned(), affine="rigid", **QUICK)
    deformation, own = found.transform.parts
    assert isinstance(deformation, Displacement)
    assert_allclose(own[:3, :3] @ own[:3, :3].T, np.eye(3), atol=1e-9)
    assert error_mm(found.transform) < 0.9 * error_mm(found.before)


def test_rigid_result_has_all_files_and_opens_elsewhere(tmp_path: Path) -> None:
    for name, image in (("fixed", pair()[0]), ("moving", turned())):
        write_image(tmp_path / f"{name}.nii.gz", image.array, image.grid)
    paths = tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz"
    out = tmp_path / "out"
    found = register_to_folder(*paths, out, affine="rigid-only")
    assert {file.name for file in out.iterdir()} == {
        *("warped.nii.gz", "transform.nii.gz", "inverse_transform.nii.gz", "transform.h5"),
        *("result.json", "report.html"),
    }
    convert_transform(out / "transform.h5", out / "rigid.tfm", to="itk")
    itk = SimpleITK.ReadTransform(str(out / "rigid.tfm"))
    lps = np.array([-1.0, -1.0, 1.0])
    place = np.array([20.0, -11.0, 7.0])
    expected = found.transform.apply_points(place[None])[0]
    assert_allclose(lps * itk.TransformPoint((lps * place).tolist()), expected, atol=1e-4)
    convert_transform(out / "transform.h5", out / "flirt.mat", to="fsl")
    again = Transform.load(out / "flirt.mat", fixed=read_image(paths[0]), moving=read_image(paths[1]))
    assert_allclose(again.apply_points(place[None])[0], expected, atol=1e-3)


def test_flirt_matrix_is_refused_for_a_deformation(tmp_path: Path) -> None:
    moving = centred_grid((30, 28, 26), (4.0, 4.0, 4.5))
    Transform(field().parts, fixed=FIXED, moving=moving).save(tmp_path / "field.h5")
    message = refusal(convert_transform, tmp_path / "field.h5", tmp_path / "field.mat", to="fsl")
    assert "--only" in message
    assert not (tmp_path / "field.mat").exists()


def test_transform_of_another_patient_is_refused(tmp_path: Path) -> None:
    far = motion(shift_mm=(900, 0, 0))
    assert "do not overlap" in refusal(register, *pair(), initial=far)
    other = centred_grid((20, 22, 24), (3.0, 3.0, 3.0), centre_mm=(0.0, 0.0, 700.0))
    away = Displacement(torch.zeros(3, *other.shape), other)
    Transform((away,), fixed=other).save(tmp_path / "other.h5")
    assert "other.h5" in refusal(register, *pair(), initial=tmp_path / "other.h5")


def test_what_is_no_transform_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.tfm").write_text("nothing", "utf-8")
    refusal(register, *pair(), initial=tmp_path / "notes.tfm")
    refusal(register, *pair(), initial=tmp_path / "missing.h5")
    refusal(register, *pair(), initial=7)
