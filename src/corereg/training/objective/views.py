"""Views of a pair: random affine maps, the exact transport of the pseudo-label, and changes of appearance.

Affine maps send voxel coordinates of a view to voxel coordinates of the original: view(x) = image(A x). They are drawn
in coordinates from -1 to 1 along each axis, in which the paper states its strengths, and returned in voxels of the full
grid; `for_stride` converts them to a strided grid.

Legend: B batch, I J K axes of the current grid.
"""

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.displacement import Disp, transport_by_affines
from corereg.geometry.warp import affine_coords, inside, sample

__all__ = [
    "BIAS_RANGE",
    "CURVE_POINTS",
    "FALLING_SHARE",
    "GAMMA_RANGE",
    "NOISE_SD",
    "Affine",
    "Appearance",
    "Image",
    "bezier_map",
    "change_appearance",
    "for_stride",
    "random_affine",
    "transport",
    "valid_region",
    "view",
]

Affine = Float[Tensor, "4 4"]


def random_affine(
    strength: float, shape: Sequence[int], *, generator: torch.Generator, after: Affine | None = None
) -> Affine:
    """The identity plus N(0, strength) on all twelve entries, drawn in coordinates from -1 to 1.

    Args:
        after: an affine in voxels of `shape` that is applied first.

    Returns: (4, 4) in float64, in voxels of `shape`.
    """
    normalised = torch.eye(4, dtype=torch.float64)
    normalised[:3] += strength * torch.randn(3, 4, dtype=torch.float64, generator=generator)
    to_vox = torch.eye(4, dtype=torch.float64)
    for axis, size in enumerate(shape):
        to_vox[axis, axis] = to_vox[axis, 3] = (size - 1) / 2
    drawn: Tensor = to_vox @ normalised @ torch.linalg.inv(to_vox)
    return drawn if after is None else drawn @ after


def for_stride(affine: Affine, stride: int) -> Affine:
    """The same map in voxels of the grid of every `stride`-th voxel, offset 0."""
    scaled = affine.clone()
    scaled[:3, 3] /= stride
    return scaled


def view(images: Float[Tensor, "B 1 I J K"], affines: Sequence[Affine]) -> Float[Tensor, "B 1 I J K"]:
    """Resample each image by its map; images are held constant beyond their edges."""
    return sample(images, _coords(images, affines))


def valid_region(images: Float[Tensor, "B 1 I J K"], affines: Sequence[Affine]) -> Bool[Tensor, "B 1 I J K"]:
    """Where a view shows the image rather than its extension beyond the edge."""
    return inside(_coords(images, affines), images.shape[2:])


def _coords(images: Tensor, affines: Sequence[Affine]) -> Tensor:
    return torch.cat([affine_coords(images.shape[2:], affine.numpy(), like=images) for affine in affines])


def transport(
    pseudo_vox: Disp, fixed_affines: Sequence[Affine], moving_affines: Sequence[Affine], *, stride: int
) -> Disp:
    """The exact pseudo-labels u' of the augmented pairs: x + u'(x) = A2^-1(A1 x + u(A1 x)).

    Args:
        pseudo_vox: the pseudo-labels u, on the grid of this stride, in its voxels.
        fixed_affines, moving_affines: A1 and A2 of each pair, on the full grid.
    """
    moved = [
        transport_by_affines(u[None], for_stride(a1, stride), for_stride(a2, stride))
        for u, a1, a2 in zip(pseudo_vox, fixed_affines, moving_affines, strict=True)
    ]
    return torch.cat(moved)


Appearance = Literal["bezier", "bias-field", "noise", "contrast"]

CURVE_POINTS = 257
"""Points at which a Bezier curve is tabulated."""
FALLING_SHARE = 0.5
"""Share of the Bezier maps that turn bright to dark: without them a network would learn that bone is always bright."""

BIAS_RANGE, NOISE_SD, GAMMA_RANGE = (0.0, 0.3), 0.05, (0.6, 1.6)
"""Arguments of MONAI's transforms, for intensities between 0 and 1."""

Image = Float[Tensor, "1 1 I J K"]


def bezier_map(image: Image, *, generator: torch.Generator) -> Image:
    """Map intensities by a cubic Bezier curve between opposite corners of their range, with random inner points."""
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
    """y at evenly spaced x. The curve's x never decreases because its inner points lie between its ends."""
    wanted = torch.linspace(0, 1, len(x), dtype=x.dtype)
    right = torch.searchsorted(x, wanted).clamp(1, len(x) - 1)
    share = (wanted - x[right - 1]) / (x[right] - x[right - 1]).clamp(min=1e-12)
    return torch.lerp(y[right - 1], y[right], share.clamp(0, 1))


def change_appearance(image: Image, kinds: Sequence[str], *, generator: torch.Generator) -> Image:
    """Apply the named changes to the image in their order, each with newly drawn parameters.

    Raises:
        InputError: a change requires MONAI, which is not installed.
    """
    for kind in kinds:
        image = bezier_map(image, generator=generator) if kind == "bezier" else _monai(image, kind, generator)
    return image


def _monai(image: Image, kind: str, generator: torch.Generator) -> Image:
    try:
        transforms: Any = import_module("monai.transforms")
    except ImportError:
        raise InputError(
            f"got the appearance {kind!r}, which needs MONAI, expected it installed; run pip install 'corereg[monai]'"
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
