"""A scan and its label map as they might have been: resampled by a random affine map, with other intensities, or
painted anew."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from corereg.geometry.warp import affine_coords, sample, sample_labels
from corereg.training.config import LabelsConfig
from corereg.training.labels.loss import IGNORED
from corereg.training.labels.painting import painted
from corereg.training.objective.views import random_affine

__all__ = ["augmented"]


def augmented(
    image: Float[Tensor, "1 1 I J K"], classes: Shaped[Tensor, "I J K"], config: LabelsConfig, *, seed: int
) -> tuple[Float[Tensor, "1 1 X Y Z"], Shaped[Tensor, "X Y Z"]]:
    """A view of a part of the scan, drawn anywhere in it, and of the part's classes.

    The view depends on `seed` alone. Beyond the scan's edges the image is held constant and voxels do not count.
    """
    generator = torch.Generator().manual_seed(seed)
    part, start = torch.tensor(image.shape[2:]).clamp(max=config.crop), torch.eye(4, dtype=torch.float64)
    start[:3, 3] = ((torch.tensor(image.shape[2:]) - part) * torch.rand(3, generator=generator)).round()
    affine = random_affine(config.affine, image.shape[2:], generator=generator) @ start
    coords = affine_coords(part.tolist(), affine.numpy(), like=image)
    gain, offset, noise = (float(torch.randn((), generator=generator)) for _ in range(3))
    seen, drawn = sample(image, coords), sample_labels(classes, coords, outside=IGNORED)
    if config.painted > float(torch.rand((), generator=generator)):
        seen = painted(seen, drawn, generator=generator)
    moved = seen * (1 + config.gain * gain) + config.offset * offset
    on_device = torch.Generator(moved.device).manual_seed(seed)
    noises = torch.randn(moved.shape, generator=on_device, device=moved.device)
    return moved + config.noise * abs(noise) * noises, drawn
