"""The uncertainty map: larger where the images tell less, and a bound of the true error where the motion is known."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from corereg import InputError, RegistrationResult, register
from corereg.data.phantom import make_breathing_pair
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.method.affine.coarse_copies import CoarseCopy
from corereg.method.quality.judged import Judged
from corereg.method.quality.uncertainty import LAW, LAW_ONE_WAY, bound_vox, signs_of, uncertainty_mm
from helpers.grids import make_grid
from helpers.pairs import FIXED, pair
from helpers.phantoms import KINDS, body
from helpers.scenes import in_body, voxels_mm

SHAPE = (32, 48, 64)
HALF = tuple(n // 2 for n in SHAPE)
FLAT = slice(10, 14), slice(16, 20), slice(3, 7)
TEXTURED = slice(10, 14), slice(16, 20), slice(24, 28)


def judged(**changes: Any) -> Judged:
    """A scan registered to itself: tissue with texture, but for one end along the last axis."""
    texture = torch.from_numpy(np.random.default_rng(0).normal(0, 0.2, (1, 1, *SHAPE)).astype(np.float32))
    texture[..., :24] = 0.0
    still = torch.zeros(1, 3, *SHAPE)
    grid = make_grid(SHAPE, (2.0, 2.0, 2.0), "oblique")
    copy = CoarseCopy(np.zeros((4, 5, 6), np.float32), grid)
    given = {"fixed": texture, "moving": texture, "coarse": still, "refined": still, "working": grid, "shown": SHAPE}
    given |= {"fixed_weight": None, "moving_weight": None, "disagreement_vox": None, "alignment": None}
    return Judged(**{**given, "copies": (copy, copy), **changes})


@pytest.mark.parametrize("law", [LAW, LAW_ONE_WAY])
@pytest.mark.parametrize("sign", range(3))
def test_the_bound_grows_with_every_sign(law: Any, sign: int) -> None:
    signs = torch.full((1, len(law.powers), 2, 3, 4), 0.3)
    if sign < signs.shape[1]:
        more = signs.clone()
        more[:, sign] = 0.6
        assert bool((bound_vox(more, law) > 1.05 * bound_vox(signs, law)).all())
    assert bool((bound_vox(0 * signs, law) >= 0).all())


def test_a_flat_region_is_less_certain_than_a_textured_one() -> None:
    spread = signs_of(judged())[0, 0]
    assert spread[FLAT].min() > 1.5 * spread[TEXTURED].max()
    assert spread[FLAT].mean() == pytest.approx(2 * math.sqrt(2), rel=0.01), "all 27 candidates fit equally well"


def test_nothing_is_certain_where_the_moving_image_has_no_data() -> None:
    counted = torch.ones(1, 1, *SHAPE)
    counted[..., 40:] = 0.0
    known, unknown = signs_of(judged())[0, 0], signs_of(judged(moving_weight=counted))[0, 0]
    assert unknown[TEXTURED].min() > 1.5 * known[TEXTURED].max()


def test_disagreement_and_strain_are_signs_where_they_occur() -> None:
    disagreement = torch.zeros(1, *HALF)
    disagreement[0, :8] = 2.0
    refined = torch.zeros(1, 3, *SHAPE)
    refined[:, 1] = 0.1 * torch.arange(48).view(1, 48, 1)
    spread, apart, strain = signs_of(judged(disagreement_vox=disagreement, refined=refined))[0]
    assert apart[0].mean() > 1.5 > 0.5 > apart[-1].mean()
    assert strain.mean() == pytest.approx(0.1, rel=1e-3)
    assert spread.shape == HALF


def test_the_map_lies_on_the_fixed_grid() -> None:
    pair_on_grid = judged()
    working = pair_on_grid.working
    finer = working.affine.copy()
    finer[:3, :3] *= 0.5
    fixed = Grid((40, 50, 60), finer)
    bound = uncertainty_mm(pair_on_grid, fixed)
    expected = 2.0 * bound_vox(signs_of(pair_on_grid))[0, 0].numpy()
    assert bound.shape == fixed.shape
    np.testing.assert_allclose(bound[::4, ::4, ::4], expected[:10, :13, :15], rtol=1e-3)


@pytest.fixture(scope="module")
def result() -> RegistrationResult:
    return register(*pair(), affine="none", refine_steps=0, uncertainty=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_holds_where_the_motion_is_known(kind: str) -> None:
    breath = make_breathing_pair(0, kind, 4.0)
    found = register(Image(breath.fixed, breath.grid), Image(breath.moving, breath.grid), uncertainty=True)
    inside = body(breath.fixed)
    truth_mm = breath.disp_vox * np.float32(breath.grid.spacing[0])
    error = np.linalg.norm(found.transform.total_mm() - truth_mm, axis=0)[inside]
    assert found.uncertainty is not None
    bound = found.uncertainty[inside]
    assert 0.9 < (error <= bound).mean() < 0.995
    assert bound.mean() < 4 * error.mean()
    assert spearmanr(error, bound).statistic > 0.4


def test_the_summary_holds_its_mean_and_95th_percentile(result: RegistrationResult) -> None:
    measures = json.loads(json.dumps(result.summary()))["quality"]["measures"]
    assert result.uncertainty is not None
    inside = result.uncertainty[in_body(voxels_mm(FIXED))]
    assert measures["uncertainty_mean_mm"] == pytest.approx(inside.mean(), rel=0.1)
    assert measures["uncertainty_p95_mm"] == pytest.approx(np.percentile(inside, 95), rel=0.1)
    assert result.uncertainty.shape == FIXED.shape


@pytest.mark.parametrize("other", [{"affine": "rigid-only"}, {"affine": "affine-only"}, {"points_only": True}])
def test_a_registration_that_compares_nothing_to_deform_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"got --uncertainty and --(affine|points-only)"):
        register("missing.nii.gz", "missing.nii.gz", uncertainty=True, **other)
