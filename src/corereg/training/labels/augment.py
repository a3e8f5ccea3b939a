"""A scan and its label map as they might have been: moved, mirrored and bent, with other intensities, or painted anew.

Legend: I J K axes of the scan, X Y Z axes of a view.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from corereg.geometry.strided import box_mean, strided_shape, upsample
from corereg.geometry.warp import affine_coords, sample, sample_labels
from corereg.training.config import LabelsConfig
from corereg.training.labels.loss import IGNORED
from corereg.training.labels.painting import in_thick_slices, painted
from corereg.training.objective.views import Affine, random_affine

__all__ = ["augmented"]

BEND_STRIDE = 16
"""Voxels between the random values of a bending."""

CHANCE = 0.5
"""Share of the views that are mirrored, peeled, or in thick slices, where these are asked for."""


def augmented(
    image: Float[Tensor, "1 1 I J K"] | None,
    classes: Shaped[Tensor, "I J K"],
    config: LabelsConfig,
    *,
    seed: int,
    count: int,
    peeled: Sequence[int] = (),
) -> tuple[Float[Tensor, "1 1 X Y Z"], Shaped[Tensor, "X Y Z"]]:
    """A view of a part of the scan, drawn anywhere in it, and of the part's classes.

    The view depends on `seed` alone. Beyond the scan's edges the image is held constant and voxels do not count.

    Args:
        image: the scan; None if there is none but the label map, which is then painted.
        count: number of classes, the background included.
        peeled: classes that a view may lack, from the outside in.
    """
    generator = torch.Generator().manual_seed(seed)
    part = torch.tensor(classes.shape).clamp(max=config.crop)
    affine = _placed(part, classes.shape, config, generator)
    like = torch.empty(0, device=classes.device) if image is None else image
    coords = affine_coords(part.tolist(), affine.numpy(), like=like)
    if config.bend:
        coords = coords + config.bend * _bending(part.tolist(), generator, like)
    gain, offset, noise = (float(torch.randn((), generator=generator)) for _ in range(3))
    drawn = sample_labels(classes, coords, outside=IGNORED)
    seen = None if image is None else sample(image, coords)
    if peeled and _chance(generator):
        gone = drawn == peeled[0]
        for label in peeled[1 : 1 + int(torch.randint(len(peeled), (), generator=generator))]:
            gone |= drawn == label
        drawn = torch.where(gone, 0, drawn)
        seen = None if seen is None else torch.where(gone, seen.amin(), seen)
    if seen is None or config.painted > float(torch.rand((), generator=generator)):
        seen = painted(seen, drawn, generator=generator, count=count)
    if config.slices > 1 and _chance(generator):
        seen = in_thick_slices(seen, config.slices, generator=generator)
    moved = seen * (1 + config.gain * gain) + config.offset * offset
    on_device = torch.Generator(moved.device).manual_seed(seed)
    noises = torch.randn(moved.shape, generator=on_device, device=moved.device)
    return moved + config.noise * abs(noise) * noises, drawn


def _chance(generator: torch.Generator) -> bool:
    return float(torch.rand((), generator=generator)) < CHANCE


def _placed(part: Tensor, shape: Sequence[int], config: LabelsConfig, generator: torch.Generator) -> Affine:
    """The map from a view's voxels to the scan's."""
    place = torch.eye(4, dtype=torch.float64)
    place[:3, 3] = ((torch.tensor(shape) - part) * torch.rand(3, generator=generator)).round()
    affine = random_affine(config.affine, shape, generator=generator) @ place
    about_middle = torch.eye(4, dtype=torch.float64)
    if config.zoom > 1:
        about_middle[:3, :3] *= config.zoom ** float(2 * torch.rand((), generator=generator) - 1)
    if config.mirrored and _chance(generator):
        about_middle[:3, 0] *= -1
    middle = (part - 1) / 2
    about_middle[:3, 3] = middle - about_middle[:3, :3] @ middle.double()
    moved: Tensor = affine @ about_middle
    return moved


def _bending(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Float[Tensor, "1 3 X Y Z"]:
    """A smooth random displacement, whose standard deviation is anything up to 1 voxel."""
    strength = float(torch.rand((), generator=generator))
    coarse = torch.randn(1, 3, *(2 + n for n in strided_shape(shape, BEND_STRIDE)), generator=generator)
    coarse = box_mean(coarse)
    return upsample((strength / coarse.std() * coarse).to(like), BEND_STRIDE, shape)
