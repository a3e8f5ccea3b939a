"""The two losses of CoRe: registration against pseudo-labels (equation 2), equivariance by contrast (equation 3).

Legend: B batch of pairs, S images, N drawn points, C channels, I J K axes of the 1/2 grid.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from corereg.geometry.displacement import Disp
from corereg.geometry.warp import sample

__all__ = [
    "Places",
    "contrastive_loss",
    "convolved_at",
    "draw_points",
    "features_at",
    "registration_loss",
]

EPE_FLOOR = 1e-6
"""Squared voxels added under the root, whose slope is unbounded at 0, where the displacements agree."""

EXCLUDED = torch.finfo(torch.float32).min
"""Logit of a point with itself. It is finite because with minus infinity a single point would have no gradient."""

CONTRAST_ROWS = 512
"""Points whose logits are computed at a time."""

LARGEST_SHARE = 6
"""On a small grid a margin takes at most one part in this many of an axis at each end."""

Points = Int[Tensor, "N 3"]


def registration_loss(
    disp_vox: Disp, pseudo_vox: Disp, *, kind: Literal["mse", "epe"], margin: int
) -> Float[Tensor, ""]:
    """Mean over x of |u(x) - u_pseudo(x)|^2 (`mse`, equation 2 of CoRe), or of its root (`epe`), in voxels.

    Args:
        disp_vox, pseudo_vox: on the 1/2 grid, in its voxels.
        margin: voxels left out at each face, at most a sixth of the axis.
    """
    i, j, k = _inner(disp_vox.shape[2:], margin)
    squared = ((disp_vox - pseudo_vox)[:, :, i, j, k] ** 2).sum(1)
    return squared.mean() if kind == "mse" else (squared + EPE_FLOOR).sqrt().mean()


def _inner(shape: Sequence[int], margin: int) -> list[slice]:
    margins = (min(margin, n // LARGEST_SHARE) for n in shape)
    return [slice(m, n - m) for n, m in zip(shape, margins, strict=True)]


def draw_points(
    eligible: Bool[Tensor, "I J K"], count: int, *, margin: int, generator: torch.Generator
) -> Int[Tensor, "N 3"]:
    """Draw eligible voxels uniformly, without repetition, in random order.

    Args:
        eligible: where a point may lie: inside the body and inside the view's valid region.
        count: number of points; fewer if there are fewer eligible voxels.
        margin: voxels kept clear at each face, at most a sixth of the axis.
        generator: on the CPU, whatever the device.
    """
    inner = torch.zeros_like(eligible)
    i, j, k = _inner(eligible.shape, margin)
    inner[i, j, k] = eligible[i, j, k]
    points = inner.nonzero()
    chosen = torch.randperm(len(points), generator=generator)[:count]
    return points[chosen.to(points.device)]


def features_at(features: Float[Tensor, "1 C I J K"], coords_vox: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
    """Interpolate features at positions in voxels of their grid; only the points are warped, not the volume."""
    values = sample(features, coords_vox.T[None, :, :, None, None].to(features.dtype))
    return values[0, :, :, 0, 0].T


def convolved_at(
    features: Float[Tensor, "1 C I J K"],
    points: Points,
    weight: Float[Tensor, "D C 3 3 3"],
    bias: Float[Tensor, " D"],
) -> Float[Tensor, "N D"]:
    """A convolution with stride 1 and zeros beyond the edge, computed at these voxels only."""
    padded = functional.pad(features[0].permute(1, 2, 3, 0), (0, 0, 1, 1, 1, 1, 1, 1))
    _, columns, slices, channels = padded.shape
    offsets = torch.cartesian_prod(*[torch.arange(3, device=points.device)] * 3)
    i, j, k = (points[:, None] + offsets).unbind(-1)
    rows = ((i * columns + j) * slices + k).flatten()
    around = padded.reshape(-1, channels).index_select(0, rows).view(len(points), -1)
    return functional.linear(around, weight.permute(0, 2, 3, 4, 1).flatten(1), bias)


class Places(NamedTuple):
    """Where the points of the contrastive loss lie in the cohort, whose scans are aligned."""

    coords_vox: Float[Tensor, "N 3"]
    """In voxels of the 1/4 grid, before any view."""
    image: Int[Tensor, " N"]
    """The image that each belongs to."""
    radius: float

    def shared(self, rows: slice) -> Bool[Tensor, "R N"]:
        """Whether a point of another image lies within the radius, for each of these rows."""
        near = torch.cdist(self.coords_vox[rows], self.coords_vox) <= self.radius
        return near & (self.image[rows, None] != self.image)


def contrastive_loss(
    first: Float[Tensor, "N C"],
    second: Float[Tensor, "N C"],
    *,
    temperature: float,
    negatives: Literal["both", "opposite"],
    places: Places | None = None,
) -> Float[Tensor, ""]:
    """InfoNCE over the points of all images: -mean_i log [exp(z_i . z'_i / t) / sum_k exp(z_i . z_k / t)], equation 3.

    Args:
        first, second: z and z', features of the same anatomy seen in the two views, row by row; they are normalised to
            unit length here.
        negatives: k runs over both views without i itself (`both`, the paper after SimCLR), or over z' (`opposite`).
        places: k skips points of other images at the place of i; None keeps them, as in the paper.
    """
    z, other = (functional.normalize(v.float(), dim=1) for v in (first, second))
    return _Contrast.apply(z, other, temperature, negatives == "both", places)  # type: ignore[no-any-return, no-untyped-call]


class _Contrast(torch.autograd.Function):
    """The loss of unit vectors and its gradient, a few rows at a time: no N x N matrix ever exists."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, other: Tensor, temperature: float, both: bool, places: Places | None) -> Tensor:
        keys = torch.cat([other, z]) if both else other
        by_z, by_keys, total = torch.zeros_like(z), torch.zeros_like(keys), z.new_zeros(())
        for start in range(0, len(z), CONTRAST_ROWS):
            rows = z[start : start + CONTRAST_ROWS] / temperature
            here = torch.arange(len(rows), device=z.device)
            logits = rows @ keys.T
            if both:
                logits[here, len(z) + start + here] = EXCLUDED
            if places is not None:
                skipped = places.shared(slice(start, start + len(rows)))
                logits.masked_fill_(torch.cat([skipped, skipped], 1) if both else skipped, EXCLUDED)
            everything = logits.logsumexp(1)
            total += (everything - logits[here, start + here]).sum()
            # The loss's gradient with respect to the logits: the softmax, minus 1 at the matching point.
            slopes = logits.sub_(everything[:, None]).exp_()
            slopes[here, start + here] -= 1
            by_z[start : start + len(rows)] = slopes @ keys / temperature
            by_keys.addmm_(slopes.T, rows)
        if both:
            by_z += by_keys[len(z) :]
        ctx.save_for_backward(by_z, by_keys[: len(z)])
        return total / len(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        by_z, by_other = ctx.saved_tensors
        scale = gradient / len(by_z)
        return scale * by_z, scale * by_other, None, None, None
