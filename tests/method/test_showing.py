"""How a result shows itself, and that arrays and tensors register like files."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from corereg import InputError, RegistrationResult, register
from corereg.method.quality.quality import Quality
from helpers.pairs import FIXED, MOVING, pair
from helpers.refusals import refusal

QUICK = {"affine": "none", "refine_steps": 3, "spacing": 4.5}


@pytest.fixture(scope="module")
def result() -> RegistrationResult:
    return register(*pair(), **QUICK)


def test_repr_has_three_lines_with_images_work_and_quality(result: RegistrationResult) -> None:
    first, second, third = repr(result).splitlines()
    assert first == "RegistrationResult: moving onto fixed"
    assert second.startswith("  CT, affine off, grid ")
    assert "at 4.5 mm, model mind, " in second
    assert third.startswith(f"  PASS, SDlogJ {result.metrics['sdlogj']:.3f}, folds ")


def test_repr_gives_the_reasons_of_a_verdict_that_is_not_a_pass(result: RegistrationResult) -> None:
    doubted = replace(result, quality=Quality("warn", ("half of the fixed body lies outside",), {}))
    assert re.search(r"\n  WARN, SDlogJ .*\n  half of the fixed body lies outside$", repr(doubted))


def test_notebook_shows_the_middle_slice_with_front_on_top_and_right_at_the_left(result: RegistrationResult) -> None:
    page = result._repr_html_()
    assert "moving onto fixed" in page
    (uri,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    picture = imread(io.BytesIO(base64.b64decode(uri)))[..., 0]
    i, j, k = FIXED.shape
    assert picture.shape == (j, 3 * i)
    # The grid's axes run to the right, the front and the head.
    assert np.all(np.diag(FIXED.affine)[:3] > 0)
    fixed = result.fixed.array[::-1, ::-1, k // 2].T.astype(float)
    assert np.corrcoef(picture[:, :i].ravel(), fixed.ravel())[0, 1] > 0.95


def test_arrays_with_affines_give_what_images_give(result: RegistrationResult) -> None:
    fixed, moving = pair()
    found = register(
        fixed.array, moving.array, fixed_affine=FIXED.affine, moving_affine=MOVING.affine.tolist(), **QUICK
    )
    assert found.refined.disp_vox.abs().max() > 1
    assert torch.equal(found.refined.disp_vox, result.refined.disp_vox)
    assert found.fixed.grid.close_to(FIXED, 1e-9)
    assert repr(found).startswith("RegistrationResult: the moving image onto the fixed image")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_with_channel_and_batch_give_tensors(result: RegistrationResult, dtype: torch.dtype) -> None:
    fixed, moving = (torch.as_tensor(image.array.astype(np.float32)).to(dtype)[None, None] for image in pair())
    found = register(fixed, moving, fixed_affine=torch.tensor(FIXED.affine), moving_affine=MOVING.affine, **QUICK)
    tolerance = 1e-6 if dtype == torch.float32 else 0.5
    assert (found.refined.disp_vox - result.refined.disp_vox).abs().mean() < tolerance
    warped = found.transform.apply(moving)
    assert isinstance(warped, torch.Tensor)
    assert warped.device == moving.device
    assert warped.shape == (1, 1, *FIXED.shape)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tensors_stay_on_their_device() -> None:
    fixed, moving = (torch.as_tensor(image.array.astype(np.float32)).cuda() for image in pair())
    found = register(fixed, moving, fixed_affine=FIXED.affine, moving_affine=MOVING.affine, **QUICK)
    assert found.transform.apply(moving).device == moving.device


def test_transform_applies_to_arrays_of_the_moving_grid_and_of_others(result: RegistrationResult) -> None:
    moving = pair()[1]
    expected = result.transform.apply(moving)
    np.testing.assert_array_equal(result.transform.apply(moving.array), expected.array)
    cropped, shift = moving.array[2:], np.eye(4)
    shift[0, 3] = 2
    with pytest.raises(InputError, match="affine="):
        result.transform.apply(cropped)
    again = result.transform.apply(cropped, affine=MOVING.affine @ shift)
    inside = np.index_exp[8:-8, 8:-8, 8:-8]
    np.testing.assert_allclose(again[inside], expected.array[inside], atol=0.05 * float(np.ptp(moving.array)))
    back = result.inverse_transform.apply(pair()[0].array)
    assert back.shape == MOVING.shape


def test_mask_may_be_a_tensor(result: RegistrationResult) -> None:
    mask = torch.zeros(FIXED.shape, dtype=torch.bool)
    mask[10:-10, 8:-8, 8:-8] = True
    masked = register(*pair(), fixed_mask=mask, **QUICK)
    assert torch.equal(masked.refined.disp_vox, register(*pair(), fixed_mask=mask.numpy(), **QUICK).refined.disp_vox)


@pytest.mark.parametrize(
    ("affines", "words"),
    [
        ({}, "fixed_affine="),
        ({"fixed_affine": np.eye(3), "moving_affine": np.eye(4)}, r"shape \(3, 3\)"),
        ({"fixed_affine": np.zeros((4, 4)), "moving_affine": np.eye(4)}, "the fixed image"),
        ({"fixed_affine": "RAS", "moving_affine": np.eye(4)}, "affine"),
    ],
    ids=["none", "3 x 3", "singular", "text"],
)
def test_affine_that_cannot_be_used_is_refused(affines: dict[str, object], words: str) -> None:
    arrays = (image.array for image in pair())
    assert re.search(words, refusal(register, *arrays, **affines, **QUICK))


def test_affine_of_an_image_that_has_one_is_refused() -> None:
    assert "has its own" in refusal(register, *pair(), fixed_affine=np.eye(4), **QUICK)
