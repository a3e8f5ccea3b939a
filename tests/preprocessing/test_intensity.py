"""Intensities: modality and scale."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from corereg.preprocessing.intensity import normalise
from helpers.refusals import refusal


@pytest.mark.parametrize(("modality", "low", "high"), [("ct", -2.0, 2.0), ("ct-abdomen", -0.4, 0.6)])
def test_hounsfield_units_are_clipped_and_divided_by_500(modality: str, low: float, high: float) -> None:
    scaled = normalise(torch.tensor([-3000.0, 100.0, 3000.0]), modality)
    assert_allclose(scaled.numpy(), [low, 0.2, high], rtol=1e-6)


def test_mr_goes_from_minus_04_to_06_whatever_its_scale() -> None:
    values = torch.cat([torch.zeros(5000), torch.as_tensor(np.random.default_rng(0).gamma(3.0, 100.0, 20_000)).float()])
    scaled = normalise(values, "mr")
    assert_allclose([float(scaled.min()), float(scaled.max())], [-0.4, 0.6], atol=1e-6)
    assert_allclose(normalise(7 * values + 30, "mr").numpy(), scaled.numpy(), atol=1e-5)


def test_stray_voxels_below_the_background_do_not_change_the_scale_of_an_mr() -> None:
    values = torch.cat([torch.zeros(5000), torch.as_tensor(np.random.default_rng(0).gamma(3.0, 100.0, 20_000)).float()])
    stray = values.clone()
    stray[::2500] = -321.0
    assert_allclose(normalise(stray, "mr").numpy()[1:2500], normalise(values, "mr").numpy()[1:2500], atol=1e-3)


def test_two_values_are_contrast_enough() -> None:
    assert_allclose(normalise(torch.tensor([3.0, 3.0, 9.0, 9.0]), "mr").numpy(), [-0.4, -0.4, 0.6, 0.6])


@pytest.mark.parametrize("modality", ["ct", "ct-abdomen", "mr"])
def test_volume_without_contrast_is_refused(modality: str) -> None:
    assert "contrast" in refusal(normalise, torch.full((3, 4, 5), 2000.0), modality)


@pytest.mark.parametrize("modality", ["auto", "pet"])
def test_modality_that_names_no_scale_is_refused(modality: str) -> None:
    assert modality in refusal(normalise, torch.arange(10.0), modality)


def test_offset_of_a_stored_ct_is_added_before_scaling() -> None:
    hounsfield = torch.tensor([-3000.0, -100.0, 40.0, 3000.0])
    scaled = normalise(hounsfield + 1024, "ct", -1024.0)
    assert_allclose(scaled.numpy(), normalise(hounsfield, "ct").numpy(), rtol=1e-6)
