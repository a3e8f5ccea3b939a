"""Registration without intensities: by matched landmarks, and by the surfaces of two masks.

Upstream: guidance. The stages run on the guide alone. Downstream: `register`.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.displacement import unfold
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.method.config import FEATURES, RegisterConfig
from corereg.method.features.model import Encoded, Image5D, Projection
from corereg.method.guidance.known import Known
from corereg.method.guidance.labels import GuidingLabels
from corereg.method.models import ModelChoice
from corereg.method.pipeline import Registration, no_deformation, register_volumes
from corereg.preprocessing.working_grid import field_of_view
from corereg.settings import with_settings

__all__ = ["POINTS_ONLY", "register_without_images"]


class NoFeatures:
    """A model that sees nothing, so that only guides count. See `FeatureModel`."""

    name = "none"
    passes: tuple[int, ...] = (8, 4)

    def encode(
        self, image: Image5D, strides: Iterable[int], *, shallow: bool = True, project: Projection | None = None
    ) -> Encoded:
        """Features of no channels."""
        return Encoded(_nothing(image, 2) if shallow else None, {stride: _nothing(image, stride) for stride in strides})

    def fine(self, image: Image5D, *, correlated: bool = False) -> Tensor:
        """The same on the full grid."""
        return _nothing(image, 1)

    def prepare(self, images: Iterable[Image5D]) -> None:
        """Does nothing."""


POINTS_ONLY = ModelChoice(NoFeatures(), NoFeatures.name)


def register_without_images(
    known: Known, images: tuple[Image, Image], working: Grid, config: RegisterConfig
) -> tuple[Registration, Known, RegisterConfig]:
    """Register by what is known alone, the surfaces of two masks included.

    Returns: the registration, what it was guided by, and the settings as resolved.

    Raises:
        InputError: the images are no masks, and there are no landmarks.
    """
    resolved = {"affine": "none", "stages.refine.similarity": FEATURES, "stages.passes": config.stages.passes or (8, 4)}
    config = with_settings(config, resolved)
    masks = [_as_mask(image) for image in images]
    if known.labels is None and masks[0] is not None and masks[1] is not None:
        known = known._replace(labels=GuidingLabels(masks[0], masks[1], [1]))
    guide = known.guide(working, None, config, torch.device("cpu"))
    blank = torch.zeros(1, 1, *working.shape)
    if guide.labels is not None:
        view = field_of_view(images[0].grid, working)
        return (
            register_volumes(blank, blank, NoFeatures(), config.stages, guide=guide, field_of_view=view),
            known,
            config,
        )
    if guide.points is None:
        raise InputError(
            f"got {images[0].name} and {images[1].name} to register without intensities, expected landmarks or two "
            "masks; add --fixed-points and --moving-points"
        )
    still = no_deformation(blank, config.stages)
    points = guide.points.judged(still.refined, 1)
    found = points.corrected(still.refined, 1)
    found = unfold(found if guide.rigid is None else guide.rigid.stiffener()(found))
    return replace(still, coarse=found, refined=found, points=points), known, config


def _as_mask(image: Image) -> Image | None:
    """The image as a label map of 0 and 1 if it has two values, one of them 0."""
    values = np.unique(image.array)
    if len(values) != 2 or values[0] != 0:
        return None
    return replace(image, array=(image.array > 0).astype(np.uint8))


def _nothing(image: Image5D, stride: int) -> Tensor:
    i, j, k = (n // stride for n in image.shape[2:])
    return image.new_zeros(len(image), 0, i, j, k)
