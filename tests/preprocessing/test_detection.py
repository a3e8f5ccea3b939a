"""CT or MR: by the distribution of the values, never by a single voxel, and both images of a pair together."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from corereg.data.phantom.images import make_subject
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image, read_image
from corereg.preprocessing.detection import Intensities, agree, find_intensities, judge_intensities

Values = NDArray[np.float64]
HEAD = {-1000.0: 0.45, -90.0: 0.12, 35.0: 0.31, 60.0: 0.05, 300.0: 0.04, 900.0: 0.03}
LUNG = {-1000.0: 0.3, -840.0: 0.25, -100.0: 0.14, 40.0: 0.25, 250.0: 0.04, 700.0: 0.02}
INSIDE = {-100.0: 0.3, 40.0: 0.6, 250.0: 0.07, 700.0: 0.03}


def tissues(shares: dict[float, float], *, noise_hu: float = 15.0, size: int = 40_000) -> Values:
    """HU of made-up voxels, of which a share lies around each value."""
    rng = np.random.default_rng(2)
    values = rng.choice(list(shares), size, p=np.array(list(shares.values())) / sum(shares.values()))
    return np.asarray(np.rint(np.maximum(values + noise_hu * rng.normal(size=size), -1024)))


def mr(largest: float = 4000.0) -> Values:
    """Magnitudes: noise around the body, then tissues of broad and overlapping contrast."""
    rng = np.random.default_rng(3)
    body = np.concatenate([rng.normal(level, 180, 9_000) for level in (700, 1300, 1900)])
    values = np.hypot(np.concatenate([np.zeros(20_000), body]) + rng.normal(0, 20, 47_000), rng.normal(0, 20, 47_000))
    return np.asarray(values / values.max() * largest)


def with_voxel(values: Values, value: float) -> Values:
    values = values.copy()
    values[1234] = value
    return values


def of_background(values: Values, value: float) -> Values:
    return np.asarray(np.where(values < 0.05 * values.max(), value, values))


@pytest.mark.parametrize(
    "values",
    [
        mr(),
        with_voxel(mr(), -321.0),
        of_background(mr(), -1024.0),
        with_voxel(of_background(mr(), 0.0), -2000.0),
        (mr() - mr().mean()) / mr().std(),
        np.rint(mr(900.0)).astype(np.int16),
        np.rint(mr()).astype(np.uint16),
        mr(1.0),
    ],
    ids=["plain", "one voxel of -321", "background -1024", "one of -2000", "z-scores", "int16", "uint16", "to 1"],
)
def test_mr_is_mr_without_a_doubt(values: Values) -> None:
    assert judge_intensities(values) == Intensities("mr")


@pytest.mark.parametrize("shares", [HEAD, LUNG, INSIDE], ids=["head", "lungs", "cropped inside the body"])
@pytest.mark.parametrize(
    "stored",
    [
        lambda hu: hu,
        lambda hu: hu.astype(np.int16),
        lambda hu: with_voxel(hu, 30_000.0),
        lambda hu: np.where(np.random.default_rng(0).random(hu.shape) < 0.2, -3024.0, hu),
        lambda hu: np.clip(hu, -1000, 1000),
    ],
    ids=["float", "int16", "one voxel of metal", "padded with -3024", "clipped"],
)
def test_ct_in_hounsfield_units_is_ct_without_a_doubt(
    shares: dict[float, float], stored: Callable[[Values], Values]
) -> None:
    assert judge_intensities(stored(tissues(shares))) == Intensities("ct")


@pytest.mark.parametrize("shares", [HEAD, LUNG], ids=["head", "lungs"])
@pytest.mark.parametrize("offset", [1024.0, 1000.0])
def test_ct_stored_without_a_sign_is_ct_that_must_be_shifted(shares: dict[float, float], offset: float) -> None:
    found = judge_intensities(np.clip(tissues(shares) + offset, 0, 4095).astype(np.uint16))
    assert (found.modality, found.offset_hu) == ("ct", -1024.0)


@pytest.mark.parametrize("kind", ["abdomen", "chest"])
def test_phantoms_are_ct_also_when_shifted(kind: str) -> None:
    hounsfield = make_subject(3, kind, 4.0)[0]
    assert judge_intensities(hounsfield) == Intensities("ct")
    assert judge_intensities(np.clip(hounsfield + 1024, 0, None).astype(np.uint16)) == Intensities("ct", -1024.0)


@pytest.mark.parametrize(
    "values",
    [
        np.clip(tissues(HEAD), -160, 240),
        np.clip(0.8 * tissues(HEAD, noise_hu=120) - 60, -1000, 3000),
        np.clip((tissues(HEAD) + 160) / 400 * 255, 0, 255).astype(np.uint8),
        np.clip((tissues(LUNG) + 1000) / 2000 * 255, 0, 255).astype(np.uint8),
    ],
    ids=["soft-tissue window", "cone beam", "8-bit window", "8-bit range"],
)
def test_damaged_hounsfield_units_are_recognised_or_doubtful(values: Values) -> None:
    found = judge_intensities(values)
    assert found.modality == "ct" or not found.certain
    assert found.offset_hu == 0


@pytest.mark.parametrize(
    ("stated", "modality"), [("CT", "ct"), ("MR", "mr"), ("PT", "mr"), ("ct-abdomen", "ct-abdomen")]
)
def test_what_is_stated_counts_more_than_the_values(stated: str, modality: str) -> None:
    for values in (tissues(HEAD), mr(), tissues(INSIDE)):
        assert judge_intensities(values, stated).modality == modality


def test_name_that_states_nothing_leaves_it_to_the_values() -> None:
    assert judge_intensities(tissues(HEAD), "OT") == Intensities("ct")


def test_stated_ct_is_shifted_where_its_values_show_it() -> None:
    assert judge_intensities(tissues(HEAD) + 1024, "CT") == Intensities("ct", -1024.0)
    assert judge_intensities(tissues(HEAD), "CT") == Intensities("ct")


def test_doubtful_image_is_taken_for_what_the_others_are() -> None:
    doubtful = Intensities("ct", -1024.0, certain=False)
    with pytest.warns(UserWarning, match="second could be a CT or an MR and is treated as MR"):
        found = agree([Intensities("mr"), doubtful], ["first", "second"])
    assert [each.modality for each in found] == ["mr", "mr"]
    assert found[1].offset_hu == 0
    with pytest.warns(UserWarning, match="second could be a CT or an MR and is treated as CT"):
        assert agree([Intensities("ct"), doubtful], ["first", "second"])[1] == doubtful
    with pytest.warns(UserWarning, match="treated as CT"):
        assert agree([Intensities("mr", certain=False), Intensities("ct")], ["first", "second"])[0].modality == "ct"


def test_8_bit_image_is_not_read_as_hounsfield_units_even_next_to_a_ct() -> None:
    eight_bits = judge_intensities(np.clip(tissues(HEAD) / 4 + 60, 0, 255).astype(np.uint8))
    with pytest.warns(UserWarning, match="second could be a CT or an MR and is treated as MR"):
        assert agree([Intensities("ct"), eight_bits], ["first", "second"])[1].modality == "mr"


def test_shift_is_reported_and_certain_pairs_are_silent() -> None:
    def image(values: Values, name: str) -> Image:
        return Image(values, Grid((len(values), 20, 5), np.diag([2.0, 3.0, 4.0, 1.0])), name=name)

    plain = image(tissues(HEAD).reshape(400, 20, 5), "plain")
    stored = image((tissues(HEAD) + 1024).reshape(400, 20, 5), "stored")
    with pytest.warns(UserWarning, match=r"stored .* 1024") as caught:
        found = find_intensities([plain, stored])
    assert len(caught) == 1
    assert [each.offset_hu for each in found] == [0.0, -1024.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_intensities([plain, replace(plain, modality="MR")]) == (Intensities("ct"), Intensities("mr"))
        assert find_intensities([plain, plain], "mr") == (Intensities("mr"), Intensities("mr"))


def test_image_of_padding_or_without_numbers_is_mr() -> None:
    assert judge_intensities(np.full((3, 4, 5), np.nan)).modality == "mr"
    assert judge_intensities(np.full((3, 4, 5), 7.0)).modality == "mr"


@pytest.mark.parametrize(
    ("pattern", "modality"),
    [
        ("headneck/imagesTr/*_00?1_0000.nii.gz", "ct"),
        ("whole_body_ct/*.nii.gz", "ct"),
        ("abdomen/patient_[abc].nii.gz", "ct"),
        ("chest/*.nii.gz", "ct"),
        ("sarcoma_ct_mr/*_ct.nii.gz", "ct"),
        ("sarcoma_ct_mr/*_mr.nii.gz", "mr"),
        ("abdomen_mr/images/*.nii.gz", "mr"),
        ("hippocampus_mr/images/*_00?.nii.gz", "mr"),
        ("brain/mni152.nii.gz", "mr"),
        ("brain_multicontrast/*.nii.gz", "mr"),
    ],
)
def test_real_scans_are_recognised_also_with_stray_voxels_and_shifted(
    data_dir: Path, pattern: str, modality: str
) -> None:
    paths = sorted(data_dir.glob(pattern))
    if not paths:
        pytest.skip(f"no {pattern} among the real scans")
    for path in paths:
        array = read_image(path).array.astype(np.float32)
        assert judge_intensities(array) == Intensities(modality), path.name
        stray = array.copy()
        stray.flat[stray.size // 2] = -321.0
        assert judge_intensities(stray) == Intensities(modality), path.name
        if modality == "ct":
            stored = judge_intensities(np.clip(array + 1024, 0, 4095).astype(np.uint16))
            assert stored == Intensities("ct", -1024.0), path.name
