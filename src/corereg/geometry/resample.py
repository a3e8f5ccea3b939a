"""Resample an image onto another grid through a chain of maps of the patient, with one interpolation, slab by slab."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.chain import Part, displacements, through
from corereg.geometry.grid import Grid
from corereg.geometry.kernels.dispatch import use_kernels
from corereg.geometry.positions import linear_map, slabs
from corereg.geometry.warp import identity_coords, inside, sample, sample_labels
from corereg.lazy import simpleitk

__all__ = ["INTERPOLATIONS", "resample"]

INTERPOLATIONS = ("nearest", "linear", "bspline", "sinc")

SPLINE_ORDER = 3

Coords = Float[Tensor, "1 3 X Y Z"]
"""Positions in voxel coordinates of the sampled image."""
Sampler = Callable[[Coords], Tensor]


def resample(
    array: NDArray[Any],
    source: Grid,
    target: Grid,
    parts: Sequence[Part],
    *,
    interpolation: str,
    labels: bool = False,
    outside: float | None = None,
) -> NDArray[Any]:
    """Values of an image (I, J, K) at T(p) for the voxels p of a target grid.

    Args:
        source: the image's grid.
        parts: maps of the patient; T passes a point through them in order.
        interpolation: "nearest" keeps the image's type; "linear", "bspline" and "sinc" give float32.
        labels: the image is a label map; "linear" then lets the eight surrounding voxels vote.
        outside: value for positions more than half a voxel beyond the image; None means the image's smallest value,
            or 0 for labels.

    Raises:
        InputError: the interpolation is unknown or unsuitable for labels, or `outside` does not fit the kept type.
    """
    known = INTERPOLATIONS[:2] if labels else INTERPOLATIONS
    if interpolation not in known:
        of = "label maps" if labels else "images"
        raise InputError(f"got the interpolation {interpolation} for {of}; choose one of {', '.join(known)}")
    if outside is None:
        outside = 0.0 if labels else float(array.min())
    if np.asarray(outside).dtype.kind not in "iuf" or np.ndim(outside):
        raise InputError(f"got {outside!r} for voxels outside the image, expected a number; correct it")
    kept = labels or interpolation == "nearest"
    if kept and not _holds(array.dtype, outside):
        raise InputError(
            f"got {outside:g} for voxels outside the image, which {array.dtype} cannot hold; choose a value that it can"
        )
    if interpolation == "linear" and not labels and use_kernels(*displacements(parts)):
        from corereg.geometry.kernels import chain as kernels_chain

        volume = np.ascontiguousarray(array, dtype=np.float32)
        return kernels_chain.sample_through(parts, volume, source, target, outside=outside)
    sampler = _sampler(array, interpolation, labels, outside)
    out = np.empty(target.shape, dtype=array.dtype if kept else np.float32)
    for where, world in slabs(target):
        out[where] = sampler(linear_map(source.inverse_affine, through(parts, world))).numpy()
    return out


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    return dtype.kind == "f" or (float(value).is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)


def _sampler(array: NDArray[Any], interpolation: str, labels: bool, outside: float) -> Sampler:
    if labels:
        values = torch.as_tensor(np.ascontiguousarray(array).astype(np.int64))
        vote = sample_labels if interpolation == "nearest" else _strongest_label
        return lambda coords: vote(values, coords, outside=int(outside))
    if interpolation == "nearest":
        return _nearest_sampler(array, outside)
    values = torch.as_tensor(np.ascontiguousarray(array, dtype=np.float32))
    if interpolation == "linear":
        return lambda coords: sample(values[None, None], coords.float(), outside=outside)[0, 0]
    return _itk_sampler(values, interpolation, outside)


def _nearest_sampler(array: NDArray[Any], outside: float) -> Sampler:
    numbers = torch.arange(array.size).view(array.shape)
    flat = np.append(array.ravel(), np.asarray(outside, dtype=array.dtype))

    def nearest(coords: Coords) -> Tensor:
        return torch.as_tensor(flat[sample_labels(numbers, coords, outside=array.size).numpy()])

    return nearest


def _itk_sampler(values: Tensor, interpolation: str, outside: float) -> Sampler:
    """One of ITK's interpolators, used in voxel coordinates: its images get no geometry."""
    sitk = simpleitk()
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.numpy().T))
    kind = sitk.sitkHammingWindowedSinc
    if interpolation == "bspline":
        image, kind = sitk.BSplineDecomposition(image, SPLINE_ORDER), sitk.sitkBSplineResamplerOrder3

    def interpolate(coords: Coords) -> Tensor:
        offsets = (coords - identity_coords(coords.shape[2:], like=coords))[0].permute(3, 2, 1, 0)
        field = sitk.GetImageFromArray(np.ascontiguousarray(offsets.numpy()), isVector=True)
        reference = sitk.Image(list(coords.shape[2:]), sitk.sitkFloat32)
        moved = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
        found = sitk.Resample(image, reference, moved, kind, outside, sitk.sitkFloat32)
        return torch.as_tensor(sitk.GetArrayFromImage(found).T.copy())

    return interpolate


def _strongest_label(values: Int64[Tensor, "I J K"], coords: Coords, *, outside: int) -> Int64[Tensor, "X Y Z"]:
    """The label whose linearly interpolated indicator is largest; ties go to the lowest corner."""
    last = torch.tensor(values.shape).view(3, 1) - 1
    held = coords[0].flatten(1).nan_to_num().clamp(min=0).minimum(last.to(coords))
    low = held.floor().long().minimum((last - 1).clamp(min=0))
    steps = torch.tensor(list(np.ndindex(2, 2, 2))).view(8, 3, 1)
    labels = torch.stack([values[tuple((low + step).minimum(last))] for step in steps])
    best = labels[0].clone()
    mixed = (labels != best).any(0).nonzero()[:, 0]  # few: elsewhere all eight agree
    labels, share = labels[:, mixed], (held - low)[:, mixed]
    weights = torch.where(steps.bool(), share, 1 - share).prod(1)
    votes = torch.stack([(weights * (labels == label)).sum(0) for label in labels])
    best[mixed] = labels.gather(0, votes.argmax(0)[None])[0]
    return torch.where(inside(coords, values.shape)[0, 0], best.view(coords.shape[2:]), outside)
