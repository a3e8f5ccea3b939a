"""Positives across patients: where a trusted pseudo-label says that two images show the same anatomy.

Legend: B pairs, I J K axes of the working grid, X Y Z of the 1/2 grid, N points.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from corereg.geometry.strided import subsample
from corereg.geometry.warp import inside
from corereg.training.config import ContrastConfig
from corereg.training.objective.losses import draw_points
from corereg.training.objective.views import Affine, for_stride

__all__ = ["HALF", "QUARTER", "SEEN", "Matches", "air_value", "mapped"]

HALF, QUARTER = 2, 4
"""Strides of the pseudo-label's grid and of the features that the contrast compares."""

BACKGROUND_SHARE = 0.05
"""Share of a batch's intensity range, from its minimum, below which a voxel is air or lies outside the image."""

SEEN = 0.95
"""Interpolated mask above which a voxel counts as shown."""


class Matches(NamedTuple):
    """Where pairs of images show the same anatomy."""

    target: Float[Tensor, "B 3 X Y Z"]
    """Pseudo-labels between the images, on the 1/2 grid."""
    trusted: Bool[Tensor, "B 1 X Y Z"]
    """Where they may be used."""

    def drawn(
        self,
        pair: int,
        body: Bool[Tensor, "1 I J K"],
        moving: Affine,
        settings: ContrastConfig,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"]]:
        """Points of a pair's fixed image, and their partners in the moving one, in voxels of the 1/4 grid.

        Args:
            body: where the fixed image shows the body.
            moving: the map from the moving image to its scan.
        """
        trusted = subsample(self.trusted[pair, None], HALF)[0, 0] & subsample(body[None], QUARTER)[0, 0]
        points = draw_points(trusted, settings.points, margin=settings.margin, generator=generator)
        i, j, k = points.T
        partners = points + subsample(self.target[pair, None], HALF)[0, :, i, j, k].T / HALF
        shown = [
            inside(at.T[None, :, :, None, None], trusted.shape).flatten() for at in (partners, mapped(moving, partners))
        ]
        both = shown[0] & shown[1]
        return points[both].float(), partners[both]


def air_value(images: Tensor) -> Tensor:
    """Intensity up to which a voxel is air or lies outside the image."""
    return images.amin() + BACKGROUND_SHARE * (images.amax() - images.amin())


def mapped(affine: Affine, points_vox: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Where a map of the full grid sends points of the 1/4 grid."""
    matrix = for_stride(affine, QUARTER).to(points_vox)
    return points_vox @ matrix[:3, :3].T + matrix[:3, 3]
