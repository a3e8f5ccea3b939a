"""Label maps of both scans as feature channels: a structure is drawn onto its counterpart, and the rest is left alone.

Every label has a code, a few of the channels, so that many labels take few channels; where neither image has a label
there is nothing to compare, and the intensities decide. Upstream: label maps. Downstream: coarse, refine.

Legend: C channels, N labels, I J K axes of the working grid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.strided import box_mean, halve
from corereg.io.images.companions import beside
from corereg.io.images.image import Image, as_image
from corereg.io.transforms.transform import Transform
from corereg.method.config import GuidanceConfig
from corereg.method.features.label_codes import Codes, codes_of
from corereg.method.guidance.start import placed_labels
from corereg.preprocessing.working_grid import resample_labels

__all__ = ["GuidingLabels", "LabelGuide", "guiding_labels", "joined", "label_guide"]

COARSE_GAIN = 0.3
"""Difference of a label from the background in the features of a cost volume."""

SMOOTHING = 1
"""3x3x3 means of the channels, without which a displacement of less than a voxel changes nothing."""


@dataclass(frozen=True, slots=True)
class LabelGuide:
    """The guiding labels of a pair, on the working grid."""

    numbers: tuple[Tensor, Tensor]
    """(I, J, K), of the fixed and the moving image: 0 where nothing guides, n where the n-th label is."""
    codes: Codes
    """(N + 1, C) of 0 and 1, the first row for what does not guide."""
    weight: float

    def coarse(self) -> tuple[Tensor, Tensor]:
        """(1, C, I/2, J/2, K/2) of each image, for the passes."""
        fixed, moving = self.half()
        return COARSE_GAIN * fixed, COARSE_GAIN * moving

    def full(self) -> tuple[Tensor, Tensor]:
        """(1, C, I, J, K) of each image, for the refinement on the full grid."""
        fixed, moving = (torch.cat(self._channels(numbers), 1) for numbers in self.numbers)
        return fixed, moving

    def half(self) -> tuple[Tensor, Tensor]:
        """The same on the 1/2 grid."""
        fixed, moving = (torch.cat([halve(c) for c in self._channels(numbers)], 1) for numbers in self.numbers)
        return fixed, moving

    def _channels(self, numbers: Tensor) -> list[Tensor]:
        share = math.sqrt(self.weight / max(self.codes.sum(1).max(), 1.0))
        columns = torch.as_tensor(share * self.codes.T, device=numbers.device)
        return [box_mean(column[numbers][None, None].contiguous(), times=SMOOTHING) for column in columns]


class GuidingLabels(NamedTuple):
    """Label maps of a pair, and which of their labels guide."""

    fixed: Image
    moving: Image
    ids: list[int]


def guiding_labels(
    fixed: object, moving: object, images: Sequence[Image], config: GuidanceConfig
) -> GuidingLabels | None:
    """The label maps of a pair if they are to guide, read and checked: the labels of both, or those that are listed.

    Args:
        images: the fixed and the moving one, to which they belong.

    Raises:
        InputError: a map is missing or cannot be used, both have no label in common, or a listed label is missing.
    """
    if not config.by_labels:
        return None
    if fixed is None or moving is None:
        got = "no label map" if fixed is moving else f"the {'moving' if fixed is None else 'fixed'} label map alone"
        raise InputError(f"got {got} to guide by, expected one of each scan; add --fixed-labels and --moving-labels")
    maps = [
        beside(as_image(labels, labels=True, like=each.grid), each.grid, what=f"the {side} label map", of=each.name)
        for side, labels, each in zip(("fixed", "moving"), (fixed, moving), images, strict=True)
    ]
    present = [set(np.unique(labels.array).tolist()) - {0} for labels in maps]
    common = present[0] & present[1]
    if not common:
        raise InputError(
            f"got {maps[0].name} with labels {_listed(present[0])} and {maps[1].name} with {_listed(present[1])}, "
            "expected a common label to guide by; give maps of the same structures with the same numbers"
        )
    listed = None if config.only is None else _numbers(config.only, maps)
    for label in listed or ():
        for image, ids in zip(maps, present, strict=True):
            if label not in ids:
                raise InputError(
                    f"got label {label} to guide by, which {image.name} does not have, expected labels of both maps; "
                    f"choose among {_listed(common)}"
                )
    return GuidingLabels(maps[0], maps[1], sorted(common if listed is None else listed))


def label_guide(
    labels: GuidingLabels,
    start: Transform,
    working: Grid,
    affine: Matrix | None,
    config: GuidanceConfig,
    device: torch.device,
) -> LabelGuide:
    """Bring label maps to the working grid.

    Args:
        start: from the fixed to the moving image, before `affine`, (4, 4) in the fixed image's world.
    """
    numbers = []
    for image, matrix in ((labels.fixed, None), (placed_labels(labels.moving, start, working), affine)):
        values = torch.as_tensor(np.ascontiguousarray(image.array).astype(np.int64), device=device)
        numbers.append(_numbered(resample_labels(values, image.grid, working, affine=matrix), labels.ids))
    return LabelGuide((numbers[0], numbers[1]), codes_of(len(labels.ids)), config.label_weight)


def joined(features: Tensor | None, channels: Tensor) -> Float[Tensor, "1 C I J K"]:
    """Features for the refinement with guiding channels.

    The energy takes the mean over all channels, so the features are scaled to count as much as they do alone.
    """
    own = 0 if features is None else features.shape[1]  # a model without features has none
    total = own + channels.shape[1]
    guiding = math.sqrt(total) * channels
    if features is None or own == 0:
        return guiding
    both = torch.cat([math.sqrt(total / own) * features, guiding], 1)
    return both.contiguous(memory_format=torch.channels_last_3d)


def _numbers(only: Sequence[int | str], maps: Sequence[Image]) -> set[int]:
    """The numbers of labels that are listed by number or name; upper and lower case are alike."""
    names = {number: name.strip() for labels in reversed(maps) for number, name in labels.label_names.items()}
    found: set[int] = set()
    for label in only:
        own = [number for number, name in names.items() if name.casefold() == str(label).casefold()]
        if isinstance(label, str) and not own:
            known = f"one of {', '.join(names.values())}" if names else "a number, as the label maps have no names"
            cure = "correct --guide-only" if names else "name the structures with --label-names"
            raise InputError(f"got label {label!r} to guide by, expected {known}; {cure}")
        found.update(own if isinstance(label, str) else [label])
    return found


def _numbered(labels: Tensor, ids: Sequence[int]) -> Tensor:
    order = torch.as_tensor(ids, device=labels.device)
    place = torch.searchsorted(order, labels.contiguous()).clamp(max=len(ids) - 1)
    return torch.where(order[place] == labels, place + 1, 0)


def _listed(ids: set[int]) -> str:
    return ", ".join(map(str, sorted(ids)[:12])) + (", ..." if len(ids) > 12 else "") if ids else "none"
