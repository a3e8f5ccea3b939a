"""Appearance views: the same anatomy with other intensities, for features that do not depend on the scanner.

A random cubic Bezier curve maps intensities to intensities, rising or falling (after Models Genesis, Zhou et al. 2019).
Bias field, noise and contrast are MONAI's, imported only when they are asked for.
"""

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from corereg.errors import InputError

__all__ = ["APPEARANCES", "bezier_map", "change_appearance"]

APPEARANCES = ("bezier", "bias-field", "noise", "contrast")

CURVE_POINTS = 257
FALLING_SHARE = 0.5
"""Of the Bezier maps that turn bright to dark: without them a network learns that bone is bright everywhere."""

BIAS_RANGE = (0.0, 0.3)
NOISE_SD = 0.05
GAMMA_RANGE = (0.6, 1.6)
"""MONAI's arguments, on intensities between 0 and 1."""

Image = Float[Tensor, "1 1 I J K"]


def bezier_map(image: Image, *, generator: torch.Generator) -> Image:
    """Intensities sent through a cubic Bezier curve from corner to corner of their range, inner points at random."""
    inner = torch.rand(2, 2, generator=generator, dtype=torch.float64)
    falls = float(torch.rand((), generator=generator)) < FALLING_SHARE
    low, high = image.amin(), image.amax()
    t = torch.linspace(0, 1, CURVE_POINTS, dtype=torch.float64)
    basis = torch.stack([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3])
    ends = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    x, y = torch.cat([ends[:1], inner, ends[1:]]).T @ basis
    table = _tabulate(x, 1 - y if falls else y).to(image)
    position = (image - low) / (high - low).clamp(min=torch.finfo(image.dtype).tiny) * (CURVE_POINTS - 1)
    below = position.long().clamp(0, CURVE_POINTS - 2)
    return low + (high - low) * torch.lerp(table[below], table[below + 1], position - below)


def _tabulate(x: Float[Tensor, "P"], y: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
    """y at evenly spaced x; the curve's x never falls since its inner points lie between its ends."""
    wanted = torch.linspace(0, 1, len(x), dtype=x.dtype)
    right = torch.searchsorted(x, wanted).clamp(1, len(x) - 1)
    share = (wanted - x[right - 1]) / (x[right] - x[right - 1]).clamp(min=1e-12)
    return torch.lerp(y[right - 1], y[right], share.clamp(0, 1))


def change_appearance(image: Image, kinds: Sequence[str], *, generator: torch.Generator) -> Image:
    """The image after the changes named, in their order, each drawn anew.

    Raises:
        InputError: one of MONAI's is asked for and MONAI is not installed.
    """
    for kind in kinds:
        image = bezier_map(image, generator=generator) if kind == "bezier" else _monai(image, kind, generator)
    return image


def _monai(image: Image, kind: str, generator: torch.Generator) -> Image:
    try:
        transforms: Any = import_module("monai.transforms")
    except ImportError:
        raise InputError(
            f"got the appearance view {kind!r}, expected MONAI to be installed for it; pip install 'corereg[monai]'"
        ) from None
    make: dict[str, Any] = {
        "bias-field": partial(transforms.RandBiasField, coeff_range=BIAS_RANGE),
        "noise": partial(transforms.RandGaussianNoise, std=NOISE_SD),
        "contrast": partial(transforms.RandAdjustContrast, gamma=GAMMA_RANGE),
    }
    change = make[kind](prob=1.0)
    change.set_random_state(seed=int(torch.randint(2**31, (), generator=generator)))
    low, high = image.amin(), image.amax()
    scale = (high - low).clamp(min=torch.finfo(image.dtype).tiny)
    changed = torch.as_tensor(change(((image[0] - low) / scale).cpu()))[None].to(image)
    return low + scale * changed
