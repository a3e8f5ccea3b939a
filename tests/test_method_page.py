"""The constants on the page about the method are those of the code, and its energy is the one that is minimised."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from corereg.method.config import PAPER_PASSES, RefineConfig, paper_refine
from corereg.method.refine.energy import Compared, energy

PAGE = Path(__file__).parents[1] / "docs" / "concepts" / "method.md"
ROW = re.compile(r"^\|(.*?)\| ([^|]*?) \|(.*?)\| `([\w/]+)\.py` `([\w.]+)` \| ", flags=re.M)
ROWS = ROW.findall(PAGE.read_text("utf-8"))
CONSTANTS = {name: ast.literal_eval(value) for _, value, _, _, name in ROWS}


def in_code(module: str, name: str) -> Any:
    """The value of a constant, the default of a setting or of an argument, or a class's attribute."""
    owner, _, field = name.partition(".")
    found = getattr(import_module("corereg." + module.replace("/", ".")), owner)
    if not field:
        return found
    if inspect.isfunction(found):
        return inspect.signature(found).parameters[field].default
    return getattr(found() if hasattr(found, "__dataclass_fields__") else found, field)


@pytest.mark.parametrize(("symbol", "value", "paper", "module", "name"), ROWS, ids=[row[-1] for row in ROWS])
def test_constant_of_the_page_is_that_of_the_code(symbol, value, paper, module, name):
    assert ast.literal_eval(value) == in_code(module, name)


def test_values_of_the_paper_are_those_of_the_paper_settings():
    published = {name: ast.literal_eval(paper.strip()) for _, _, paper, _, name in ROWS if paper.strip()}
    refine = {name: value for name, value in published.items() if name.startswith("RefineConfig.")}
    assert len(refine) > 4
    for name, value in refine.items():
        assert getattr(paper_refine(), name.partition(".")[2]) == value
    assert published["MindModel.passes"] == PAPER_PASSES


def test_page_has_the_numbered_and_lettered_equations_in_order():
    tags = re.findall(r"\\tag\{(\w+)\}", PAGE.read_text("utf-8"))
    assert [tag for tag in tags if tag.isdigit()] == ["1", "2", "3", "4"]
    assert [tag for tag in tags if tag.isalpha()] == list("ABCDEFGHIJK")


def window_mean(volume: np.ndarray, radius: int) -> np.ndarray:
    size = 2 * radius + 1
    inside = ndimage.uniform_filter(np.ones_like(volume), size, mode="constant")
    return ndimage.uniform_filter(volume, size, mode="constant") / inside


def energy_of_the_page(disp, features, images, weight) -> float:
    """Equation (G) with (H), (I) and (J), in numpy, with the page's constants."""
    c = CONSTANTS
    coords = np.indices(disp.shape[1:]) + disp

    def warped(volume):
        return ndimage.map_coordinates(volume, coords, order=1, mode="nearest")

    def mean(values):
        return (weight * values).sum() / max(weight.sum(), c["LEAST_SHARE"] * weight.size)

    differences = np.stack([warped(m) - f for f, m in zip(*features, strict=True)]) * c["FEATURE_SCALE"]
    fixed, moving = images[0], warped(images[1])
    radius, noise = c["RADIUS"], c["NOISE"]
    fixed_mean, moving_mean = window_mean(fixed, radius), window_mean(moving, radius)
    covariance = window_mean(fixed * moving, radius) - fixed_mean * moving_mean
    fixed_variance = window_mean(fixed**2, radius) - fixed_mean**2
    moving_variance = window_mean(moving**2, radius) - moving_mean**2
    cc2 = (covariance + noise) ** 2 / ((fixed_variance + noise) * (moving_variance + noise))
    diffusion = sum((np.diff(disp, axis=axis) ** 2).mean() for axis in (1, 2, 3))
    divergence = sum(np.gradient(disp[a], axis=a)[1:-1, 1:-1, 1:-1] for a in range(3))
    smooth = diffusion + c["RefineConfig.volume_preservation"] * (divergence**2).mean()
    return (
        c["DATA_WEIGHT"] * mean((differences**2).mean(0))
        + c["CORRELATION_WEIGHT"] * mean(1 - cc2)
        + c["RefineConfig.regularisation"] * c["DIFFUSION_WEIGHT"] * smooth
    )


@pytest.mark.parametrize("share", [0.9, 0.05], ids=["most voxels count", "few voxels count"])
def test_energy_of_the_page_is_the_one_that_is_minimised(share):
    rng = np.random.default_rng(3)
    shape = (9, 11, 14)
    disp, features = rng.normal(0, 0.7, (3, *shape)), rng.normal(0, 1, (2, 4, *shape))
    images, weight = rng.normal(0, 0.3, (2, *shape)), (rng.random(shape) < share) * rng.random(shape)
    expected = energy_of_the_page(disp, features, images, weight)

    def tensor(array):
        return torch.from_numpy(np.ascontiguousarray(array))[None]

    compared = Compared(
        (tensor(features[0]), tensor(features[1])),
        (tensor(images[:1]), tensor(images[1:])),
        tensor(weight[None]),
    )
    assert float(energy(tensor(disp), compared, RefineConfig())) == pytest.approx(expected, rel=1e-9)
