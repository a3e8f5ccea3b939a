"""Intensities: modality and scale."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from corereg.preprocessing.intensity import detect_modality, normalise
from helpers.refusals import refusal
from helpers.scenes import centred_grid, scan


@pytest.mark.parametrize(("modality", "low", "high"), [("ct", -2.0, 2.0), ("ct-abdomen", -0.4, 0.6)])
def test_hounsfield_units_are_clipped_and_divided_by_500(modality: str, low: float, high: float) -> None:
    scaled = normalise(torch.tensor([-3000.0, 100.0, 3000.0]), modality)
    assert_allclose(scaled.numpy(), [low, 0.2, high], rtol=1e-6)


def test_mr_goes_from_minus_04_to_06_whatever_its_scale() -> None:
    values = torch.cat([torch.zeros(5000), torch.as_tensor(np.random.default_rng(0).gamma(3.0, 100.0, 20_000)).float()])
    scaled = normalise(values, "mr")
    assert_allclose([float(scaled.min()), float(scaled.max())], [-0.4, 0.6], atol=1e-6)
    assert_allclose(normalise(7 * values + 30, "mr").numpy(), scaled.numpy(), atol=1e-5)


def test_two_values_are_contrast_enough() -> None:
    assert_allclose(normalise(torch.tensor([3.0, 3.0, 9.0, 9.0]), "mr").numpy(), [-0.4, -0.4, 0.6, 0.6])


@pytest.mark.parametrize("modality", ["ct", "ct-abdomen", "mr"])
def test_volume_without_contrast_is_refused(modality: str) -> None:
    assert "contrast" in refusal(normalise, torch.full((3, 4, 5), 2000.0), modality)


@pytest.mark.parametrize("modality", ["auto", "pet"])
def test_modality_that_names_no_scale_is_refused(modality: str) -> None:
    assert modality in refusal(normalise, torch.arange(10.0), modality)


def test_modality_is_detected_from_values_below_air_or_fat() -> None:
    ct = scan(centred_grid((20, 18, 16), (6.0, 6.0, 6.0))).array
    assert detect_modality(ct) == "ct"
    assert detect_modality(ct.astype(np.int16)) == "ct"
    assert detect_modality(np.clip(ct + 1000, 0, None)) == "mr"
    assert detect_modality((ct - ct.mean()) / ct.std()) == "mr"
