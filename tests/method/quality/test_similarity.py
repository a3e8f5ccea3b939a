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


@pytest.fixture(scope="module")
def array() -> np.ndarray:
    return make_subject(4, "abdomen", 5.0)[0]


def prepared(array: np.ndarray) -> Tensor:
    return normalise(torch.as_tensor(np.ascontiguousarray(array)).float()[None, None], "ct")


def noise(seed: int, like: np.ndarray) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 300, like.shape).astype(np.float32)


def test_same_anatomy_is_similar_also_with_its_contrast_reversed(array: np.ndarray) -> None:
    again = make_subject(4, "abdomen", 5.0, noise_hu=30.0)[0]
    assert similarity_above_chance(prepared(array), prepared(array)) > 0.5
    assert similarity_above_chance(prepared(array), prepared(again)) > 0.4
    assert similarity_above_chance(prepared(array), 0.3 - 2 * prepared(array)) > 0.5


@pytest.mark.parametrize("blurred", [False, True])
def test_what_has_nothing_in_common_is_no_better_than_chance(array: np.ndarray, blurred: bool) -> None:
    other = 5 * gaussian_filter(noise(1, array), 2) if blurred else noise(1, array)
    assert abs(similarity_above_chance(prepared(array), prepared(other))) < 0.1


def test_only_what_both_weights_keep_is_compared(array: np.ndarray) -> None:
    spoilt = array.copy()
    spoilt[:, :, 28:] = noise(2, array)[:, :, 28:]
    weight = torch.ones_like(prepared(array))
    weight[..., 28:] = 0
    whole = similarity_above_chance(prepared(array), prepared(spoilt))
    assert whole < similarity_above_chance(prepared(array), prepared(spoilt), weight) - 0.1
    kept = similarity_above_chance(prepared(array), prepared(spoilt), None, weight)
    assert kept == similarity_above_chance(prepared(array), prepared(array), None, weight)


def test_too_little_to_compare_gives_nan(array: np.ndarray) -> None:
    few = prepared(array[:10, :8, :12])
    assert math.isnan(similarity_above_chance(few, few))
