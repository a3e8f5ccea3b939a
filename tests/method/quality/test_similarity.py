"""Similarity above chance: high for the right pair, whatever its contrast; near 0 for noise."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from corereg.data.phantom import make_subject
from corereg.method.quality.similarity import similarity_above_chance
from corereg.preprocessing.intensity import normalise

ARRAY, _, _ = make_subject(4, "abdomen", 5.0)


def prepared(array: np.ndarray) -> Tensor:
    return normalise(torch.as_tensor(np.ascontiguousarray(array)).float()[None, None], "ct")


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 300, ARRAY.shape).astype(np.float32)


def test_same_anatomy_is_similar_also_with_its_contrast_reversed() -> None:
    again = make_subject(4, "abdomen", 5.0, noise_hu=30.0)[0]
    assert similarity_above_chance(prepared(ARRAY), prepared(ARRAY)) > 0.5
    assert similarity_above_chance(prepared(ARRAY), prepared(again)) > 0.4
    assert similarity_above_chance(prepared(ARRAY), 0.3 - 2 * prepared(ARRAY)) > 0.5


@pytest.mark.parametrize("other", [noise(1), 5 * gaussian_filter(noise(1), 2)], ids=["noise", "blurred noise"])
def test_what_has_nothing_in_common_is_no_better_than_chance(other: np.ndarray) -> None:
    assert abs(similarity_above_chance(prepared(ARRAY), prepared(other))) < 0.1


def test_only_what_both_weights_keep_is_compared() -> None:
    spoilt = ARRAY.copy()
    spoilt[:, :, 28:] = noise(2)[:, :, 28:]
    weight = torch.ones_like(prepared(ARRAY))
    weight[..., 28:] = 0
    whole = similarity_above_chance(prepared(ARRAY), prepared(spoilt))
    assert whole < similarity_above_chance(prepared(ARRAY), prepared(spoilt), weight) - 0.1
    kept = similarity_above_chance(prepared(ARRAY), prepared(spoilt), None, weight)
    assert kept == similarity_above_chance(prepared(ARRAY), prepared(ARRAY), None, weight)


def test_too_little_to_compare_gives_nan() -> None:
    few = prepared(ARRAY[:10, :8, :12])
    assert math.isnan(similarity_above_chance(few, few))
