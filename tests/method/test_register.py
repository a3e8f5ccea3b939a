"""`register`: known motions found in any geometry, results that say what was done, and the same pair the same bytes."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from numpy.testing import assert_allclose

from corereg import RegisterConfig, RegistrationResult, Transform, register, write_image
from corereg.geometry.displacement import sdlogj
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image, read_image
from corereg.method.config import PipelineConfig
from corereg.method.refine.regularisation_choice import CANDIDATES
from corereg.preprocessing.working_grid import choose_working_grid
from corereg.workflows.register import register_to_folder
from helpers.motions import motion
from helpers.pairs import FIXED, MOVING, pair
from helpers.refusals import refusal
from helpers.scenes import affine_map, centred_grid, in_body, scan, voxels_mm, wave
from helpers.transforms import reoriented

QUICK: Any = {"affine": "none", "spacing": 4.5, "refine_steps": 5}
"""For what does not depend on how far the optimisation goes."""


@cache
def result() -> RegistrationResult:
    return register(*pair(), affine="none", regularisation=30.0)


@cache
def quick_result() -> RegistrationResult:
    return register(*pair(), **QUICK)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name, image in zip(("fixed", "moving"), pair(), strict=True):
        write_image(tmp_path / f"{name}.nii.gz", image.array, image.grid)
    return tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz"


def body_points() -> Any:
    points = voxels_mm(FIXED)
    return points[in_body(points / 0.95)]


def error_mm(transform: Transform, truth: Any = wave) -> float:
    """Mean distance, over the body, between a point and where its match shows that it is."""
    points = body_points()
    return float(np.linalg.norm(truth(transform.apply_points(points)) - points, axis=1).mean())


def test_known_motion_between_unequal_grids_is_found() -> None:
    initial = error_mm(Transform((np.eye(4),), fixed=FIXED))
    assert initial > 4
    found = register(*pair(), affine="none", spacing=2.25)
    assert_allclose(found.refined.grid.spacing, 2.25)
    assert error_mm(found.transform) < 0.4 * initial


def test_refinement_improves_on_the_coarse_displacement() -> None:
    coarse = Transform((result().coarse,), fixed=FIXED)
    assert error_mm(result().transform) < error_mm(coarse)
    half = result().losses[: result().config.stages.refine.steps]
    assert half[-1] < half[0], "the full grid has another energy"


def test_result_tells_what_was_done() -> None:
    found = result()
    assert found.coarse.grid == found.refined.grid == choose_working_grid(FIXED, MOVING)
    assert len(found.losses) == 2 * found.config.stages.refine.steps  # on the 1/2 grid, then on the full one
    assert found.alignment is None
    assert found.model.name == found.config.model
    assert found.regularisation == 30.0
    assert found.transform.fixed_grid == FIXED
    assert found.inverse_transform.fixed_grid == MOVING
    assert found.inverse_error.mean < 0.5
    assert found.peak_memory_mb > 10
    assert set(found.metrics) == {
        *("sdlogj", "fold_percent", "inverse_error_mean_mm", "inverse_error_p95_mm", "inverse_error_max_mm"),
    }
    assert {"read", "resample", "features", "coupled_convex", "refine", "invert"} <= set(found.seconds)
    summary = json.loads(json.dumps(found.summary()))
    assert summary["configuration"]["stages"]["refine"]["regularisation"] == 30.0
    assert summary["grids"]["working"]["shape"] == list(found.refined.grid.shape)


def test_warped_image_resembles_the_fixed_one() -> None:
    points = voxels_mm(FIXED)
    fixed, moving = pair()
    before = Transform((np.eye(4),), fixed=fixed).apply(moving).array
    after = result().warped()
    assert after.grid == FIXED
    mask = in_body(points)
    error = [np.abs(array - fixed.array)[mask].mean() for array in (before, after.array)]
    assert error[1] < 0.5 * error[0]


def test_sdlogj_is_measured_in_the_fixed_field_of_view_without_padding() -> None:
    refined = result().refined
    coords = refined.grid.to_voxel(voxels_mm(FIXED))
    i, j, k = (int(np.ceil(n - 1e-3)) + 1 for n in coords.max((0, 1, 2)))
    assert (i, j, k) != refined.grid.shape
    assert result().metrics["sdlogj"] == sdlogj(refined.disp_vox[None, :, :i, :j, :k])


@pytest.mark.parametrize("target", [0.02, pytest.param(0.015, marks=pytest.mark.slow)])
def test_target_sdlogj_is_reached_within_0005_where_it_is_reported(target: float) -> None:
    found = register(*pair(), affine="none", spacing=4.5, target_sdlogj=target)
    assert abs(found.metrics["sdlogj"] - target) <= 0.005
    assert found.regularisation != found.config.stages.refine.regularisation


def test_auto_chooses_one_r_for_a_pair_and_folds_nothing() -> None:
    first, second = (register(*pair(), **QUICK | {"regularisation": "auto"}) for _ in range(2))
    assert first.regularisation == second.regularisation
    assert first.regularisation in CANDIDATES
    assert torch.equal(first.refined.disp_vox, second.refined.disp_vox)
    assert first.metrics["fold_percent"] == 0
    assert first.summary()["regularisation"] == first.regularisation
    assert first.summary()["configuration"]["stages"]["refine"]["regularisation"] == "auto"
    fixed = register(*pair(), **QUICK | {"regularisation": first.regularisation})
    assert torch.equal(fixed.refined.disp_vox, first.refined.disp_vox)


def test_without_refinement_the_refined_displacement_is_the_coarse_one() -> None:
    found = register(*pair(), **QUICK | {"refine_steps": 0})
    assert torch.equal(found.refined.disp_vox, found.coarse.disp_vox)
    assert torch.equal(found.coarse.disp_vox, quick_result().coarse.disp_vox)
    assert found.losses == ()


def test_affine_and_deformable_parts_add_up_to_the_known_motion() -> None:
    truth = motion(degrees=(6, -5, 8), scale=(1.05, 0.97, 1.02), shift_mm=(14, -10, 9))
    back = affine_map(np.linalg.inv(truth))
    moving = scan(centred_grid((46, 42, 40), (3.2, 3.2, 3.3), "PIR", (14.0, -10.0, 9.0)), lambda q: wave(back(q)))
    found = register(pair()[0], moving)
    assert found.alignment is not None
    assert found.alignment.needed
    affine_only = Transform((found.alignment.affine,), fixed=FIXED)
    errors = [error_mm(transform, lambda q: wave(back(q))) for transform in (affine_only, found.transform)]
    assert errors[0] < 2.5
    assert errors[1] < 0.8 * errors[0]
    np.testing.assert_array_equal(found.transform.parts[1], found.alignment.affine)


def test_same_pair_gives_the_same_bytes_of_every_file(tmp_path: Path, files: tuple[Path, Path]) -> None:
    summaries = []
    for run in ("first", "second"):
        settings: Any = {"spacing": 4.5, "refine_steps": 10}
        register_to_folder(*files, tmp_path / run / "out", command="corereg register", **settings)
        summary = json.loads((tmp_path / run / "out" / "result.json").read_text("utf-8"))
        assert summary.pop("seconds")["total"] > 0
        assert summary.pop("peak_memory_mb") > 0
        summaries.append(summary)
    assert summaries[0] == summaries[1]
    names = [sorted(file.name for file in (tmp_path / run / "out").iterdir()) for run in ("first", "second")]
    assert names[0] == names[1]
    for name in set(names[0]) - {"result.json"}:
        contents = [(tmp_path / run / "out" / name).read_bytes() for run in ("first", "second")]
        assert contents[0] == contents[1], name


def test_seed_changes_the_random_model() -> None:
    found = [register(*pair(), **QUICK, model="random", seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(found[0].refined.disp_vox, found[1].refined.disp_vox)
    assert not torch.equal(found[0].refined.disp_vox, found[2].refined.disp_vox)


def test_simpleitk_and_nibabel_images_give_what_paths_give(files: tuple[Path, Path]) -> None:
    sources: list[tuple[Any, Any]] = [
        files,
        (str(files[0]), read_image(files[1])),
        (SimpleITK.ReadImage(str(files[0])), nibabel.load(files[1])),
        (nibabel.load(files[0]), SimpleITK.ReadImage(str(files[1]))),
    ]
    moved = [register(*s, **QUICK).transform.apply_points(body_points()) for s in sources]
    np.testing.assert_array_equal(moved[0], moved[1])
    # Headers hold geometry in float32, and SimpleITK takes it from the quaternion: the last digits differ.
    for other in moved[2:]:
        assert_allclose(other, moved[0], atol=0.02)


@pytest.mark.parametrize("letters", ["PIR", "LPS"])
def test_storage_order_of_the_images_does_not_change_the_transform(letters: str) -> None:
    fixed, moving = pair()
    for f, m in ((reoriented(fixed, letters), moving), (fixed, reoriented(moving, letters))):
        found = register(f, m, **QUICK)
        # The same working grid from the same voxels: what is left is the rounding of their positions.
        expected = quick_result().transform.apply_points(body_points())
        assert_allclose(found.transform.apply_points(body_points()), expected, atol=0.02)


def write_mask(path: Path, inside: Any, image: Image) -> Path:
    write_image(path, inside(voxels_mm(image.grid)), image.grid)
    return path


@pytest.mark.parametrize("which", ["fixed_mask", "moving_mask"])
def test_what_lies_outside_a_mask_is_not_matched(tmp_path: Path, which: str) -> None:
    image = pair()[0] if which == "fixed_mask" else pair()[1]
    mask = write_mask(tmp_path / "mask.nii.gz", lambda p: p[..., 2] >= 0, image)
    masked = register(*pair(), affine="none", regularisation=30.0, **{which: mask})
    points = body_points()
    coarse, free, kept = (
        np.linalg.norm(wave(t.apply_points(points)) - points, axis=1)
        for t in (Transform((masked.coarse,), fixed=FIXED), result().transform, masked.transform)
    )
    upper, lower = points[:, 2] > 3, points[:, 2] < -10
    assert free[lower].mean() < 0.7 * coarse[lower].mean()
    assert kept[lower].mean() > 1.5 * free[lower].mean()
    assert kept[upper].mean() < 1.2 * free[upper].mean() < 0.65 * coarse[upper].mean()


def test_mask_may_be_an_array_or_an_image(tmp_path: Path) -> None:
    fixed = pair()[0]
    path = write_mask(tmp_path / "mask.nii.gz", lambda p: p[..., 2] >= 0, fixed)
    inside = voxels_mm(FIXED)[..., 2] >= 0
    sitk_mask = SimpleITK.ReadImage(str(path))
    found = [
        register(*pair(), fixed_mask=mask, **QUICK).refined.disp_vox
        for mask in (path, inside, inside.astype(np.float32), Image(inside.astype(np.uint8), FIXED), sitk_mask)
    ]
    assert all(torch.equal(each, found[0]) for each in found[1:])
    assert not torch.equal(quick_result().refined.disp_vox, found[0])


def test_masks_that_share_nothing_are_refused(tmp_path: Path) -> None:
    fixed, moving = pair()
    masks = {
        "fixed_mask": write_mask(tmp_path / "fixed.nii.gz", lambda p: p[..., 2] > 20, fixed),
        "moving_mask": write_mask(tmp_path / "moving.nii.gz", lambda p: p[..., 2] < -20, moving),
    }
    assert "nothing in common" in refusal(register, fixed, moving, affine="none", **masks)


def test_pair_without_overlap_is_refused_where_the_headers_are_trusted() -> None:
    fixed = pair()[0]
    away = scan(centred_grid((40, 38, 36), (3.0, 3.0, 3.0), "LPS", (300.0, 0.0, 0.0)), lambda p: p - (300.0, 0.0, 0.0))
    assert "do not overlap" in refusal(register, fixed, away, affine="none")


@pytest.mark.parametrize("slices", [2, 5])
def test_thin_slab_is_registered(slices: int) -> None:
    fixed = scan(centred_grid((48, 40, slices), (3.0, 3.0, 5.0), "oblique"))
    found = register(fixed, pair()[1], affine="none", spacing=3.0, refine_steps=5)
    assert found.warped().array.shape == fixed.grid.shape
    assert np.isfinite(found.warped().array).all()


@pytest.mark.parametrize(
    ("axis", "slices"),
    [
        *((0, 3), (1, 8), (2, 2)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((0, 2), (0, 8), (1, 2), (1, 3), (2, 3), (2, 8))),
    ],
)
def test_slab_cut_out_of_the_moving_image_is_found_in_its_place(axis: int, slices: int) -> None:
    whole = scan(SLABBED)
    corner = [0, 0, 0]
    corner[axis] = SLABBED.shape[axis] // 2 - 3
    cut = tuple(slice(c, c + slices if a == axis else None) for a, c in enumerate(corner))
    affine = SLABBED.affine.copy()
    affine[:3, 3] = SLABBED.to_world(corner)
    array = np.ascontiguousarray(whole.array[cut])
    grid = Grid(array.shape, affine)
    found = register(Image(array, grid), whole)
    distance = np.linalg.norm(found.transform.apply_points(voxels_mm(grid)) - voxels_mm(grid), axis=-1)
    assert np.quantile(distance, 0.95) < 0.5 * min(SLABBED.spacing)


SLABBED = centred_grid((48, 44, 40), (3.0, 3.2, 3.5), "oblique")


def test_settings_override_a_configuration() -> None:
    config = RegisterConfig(affine="none", stages=PipelineConfig(passes=(8,), seed=3))
    found = register(*pair(), config=config, refine_steps=2, passes=None)
    assert found.config.stages.passes == (8,)
    assert found.config.stages.seed == 3
    assert len(found.losses) == 2 + 2  # on the 1/2 grid, then on the full one


def test_setting_by_an_unknown_name_is_refused() -> None:
    with pytest.raises(TypeError, match="refine_step'"):
        register(*pair(), refine_step=2)


@pytest.mark.parametrize(
    "settings",
    [
        {"modality": "pet"},
        {"affine": "rigidly"},
        {"device": "tpu"},
        {"model": "mindd"},
        {"passes": (5,)},
        {"passes": ()},
        {"refine_steps": -1},
        {"regularisation": -1.0},
        {"regularisation": float("nan")},
        {"regularisation": float("inf")},
        {"target_sdlogj": 0.0},
        {"target_sdlogj": float("nan")},
        {"spacing": 0.0},
        {"spacing": float("nan")},
        {"seed": -1},
        {"seed": 2**32},
        {"model": "random", "passes": (16,)},
    ],
)
def test_setting_that_cannot_be_is_refused_in_one_line(settings: dict[str, Any]) -> None:
    from corereg import InputError

    with pytest.raises(InputError) as caught:
        register(*pair(), **{"affine": "none", **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_missing_device_is_refused() -> None:
    assert "cuda" in refusal(register, *pair(), device="cuda")


def test_itk_resamples_blank_planes_of_the_fixed_scan_alike(tmp_path: Path) -> None:
    fixed, moving = pair()
    array = fixed.array.copy()
    array[:, -5:] = array.min()
    array[:6] = array.min()
    found = register(Image(array, fixed.grid), moving, spacing=4.5, refine_steps=5)
    assert np.prod(found.refined.grid.shape) < np.prod(found.transform.parts[0].grid.shape)  # type: ignore[union-attr]
    found.transform.save(tmp_path / "transform.h5")
    write_image(tmp_path / "moving.nii", moving.array.astype(np.float32), moving.grid)
    write_image(tmp_path / "fixed.nii", array, fixed.grid)
    images = [SimpleITK.ReadImage(tmp_path / f"{name}.nii") for name in ("moving", "fixed")]
    itk = SimpleITK.ReadTransform(tmp_path / "transform.h5")
    seen = SimpleITK.GetArrayFromImage(SimpleITK.Resample(*images, itk, SimpleITK.sitkLinear, -9e9)).T
    inside = seen > -8e9
    assert inside[:6].any()
    assert inside[:, -5:].any()
    assert_allclose(found.warped().array[inside], seen[inside], atol=0.05)


def test_two_dimensional_array_is_refused() -> None:
    affines: Any = {"fixed_affine": np.eye(4), "moving_affine": np.eye(4)}
    assert "expected a 3-D volume" in refusal(register, np.ones((34, 52)), np.ones((34, 52, 35)), **affines)


def test_target_sdlogj_out_of_reach_is_told() -> None:
    with pytest.warns(UserWarning, match=r"instead of 0\.9: no R that is tried"):
        register(*pair(), **QUICK, target_sdlogj=0.9)
    assert "--refine-steps 0" in refusal(register, *pair(), **{**QUICK, "refine_steps": 0}, target_sdlogj=0.03)
