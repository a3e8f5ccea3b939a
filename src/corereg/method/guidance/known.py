"""Everything that the user knows about a pair, read and checked together, and brought to the working grid.

Upstream: start, labels, landmarks. Downstream: `register` and the stages.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.grid import Grid, Matrix
from corereg.io.images.image import Image
from corereg.io.transforms.transform import Transform
from corereg.method.config import GuidanceConfig, RegisterConfig
from corereg.method.guidance.channels import ChannelGuide, channel_guide, further_channels
from corereg.method.guidance.correspondences import matched
from corereg.method.guidance.labels import GuidingLabels, LabelGuide, guiding_labels, label_guide
from corereg.method.guidance.landmarks import Landmarks, read_landmarks
from corereg.method.guidance.point_guide import PointGuide, point_guide
from corereg.method.guidance.rigid import RigidGuide, rigid_guide, rigid_labels
from corereg.method.guidance.start import initial_transform

__all__ = ["NO_GUIDE", "Guide", "Known"]


class Guide(NamedTuple):
    """What guides the stages, on the working grid."""

    labels: LabelGuide | None = None
    points: PointGuide | None = None
    rigid: RigidGuide | None = None
    channels: tuple[ChannelGuide, ...] = ()

    def features(self, kind: Literal["coarse", "half", "full"]) -> tuple[Tensor, Tensor] | None:
        """What labels and further images add to the features of both images, for the passes or for a grid."""
        drawn = [*self.channels, *([] if self.labels is None else [self.labels])]
        both = [getattr(each, kind)() for each in drawn]
        if not both:
            return None
        return torch.cat([fixed for fixed, _ in both], 1), torch.cat([moving for _, moving in both], 1)


NO_GUIDE = Guide()


class Known(NamedTuple):
    """What the user knows about a pair, in the worlds of its images."""

    start: Transform
    """The initial transform; without one, a transform without parts."""
    labels: GuidingLabels | None
    landmarks: Landmarks | None
    rigid: Image | None
    """Rigid structures of the fixed image."""
    channels: tuple[tuple[Image, Image], ...]
    """Further images of both sides."""

    @staticmethod
    def of(images: tuple[Image, Image], config: GuidanceConfig, inputs: dict[str, Any]) -> "Known":
        """Read and check what `register` was given.

        Args:
            inputs: initial, fixed_labels, moving_labels, fixed_points, moving_points, rigid_labels, fixed_mask and
                moving_mask, each perhaps None; fixed_channels and moving_channels.

        Raises:
            InputError: one of them cannot be used.
        """
        unused = [name for name in ("fixed_mask", "moving_mask") if inputs[name] is not None]
        unused += [name for name in ("fixed_channels", "moving_channels") if inputs[name]]
        if config.points_only and unused:
            raise InputError(
                f"got {' and '.join(unused)} with --points-only, expected none as intensities do not count; drop one"
            )
        return Known(
            initial_transform(inputs["initial"], *images),
            guiding_labels(inputs["fixed_labels"], inputs["moving_labels"], images, config),
            read_landmarks(inputs["fixed_points"], inputs["moving_points"], images, unmatched=config.unmatched_points),
            rigid_labels(inputs["rigid_labels"], images[0]),
            further_channels(inputs["fixed_channels"], inputs["moving_channels"], images),
        )

    def matched(self, affine: Matrix | None, config: GuidanceConfig) -> "Known":
        """The same with unmatched landmarks as pairs, found after the pre-alignment."""
        if self.landmarks is None or not config.unmatched_points:
            return self
        pairs = matched(self.landmarks, self.start, affine, bound_mm=config.point_tolerance_mm)
        return self._replace(landmarks=pairs)

    def guide(self, working: Grid, affine: Matrix | None, config: RegisterConfig, device: torch.device) -> Guide:
        """What guides, where the pre-alignment, (4, 4) before the initial transform, puts it on the working grid."""
        (start, labels, landmarks, rigid, channels), own = self, config.guidance
        return Guide(
            None if labels is None else label_guide(labels, start, working, affine, own, device),
            None if landmarks is None else point_guide(landmarks, start, working, affine, own),
            None if rigid is None else rigid_guide(rigid, start, working, affine),
            channel_guide(channels, start, working, affine, config.modality, device),
        )
