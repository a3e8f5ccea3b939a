"""The network without gradients: the same features in less time and memory.

Normalisations are folded into the convolutions, volumes are channels-last in memory, and the 1/2 grid is processed in
slabs along i, so that the outputs of blocks 1 and 2 never exist as a whole. Weights are folded again for each image,
which takes a few milliseconds and rules out stale ones.

Legend: I J K axes of the image; planes are those along i; H planes of the 1/2 grid, Q planes of the 1/4 grid.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from corereg.geometry.kernels.dispatch import use_kernels
from corereg.geometry.strided import strided_shape

__all__ = [
    "Compiled",
    "Folded",
    "compiled_convolution",
    "computing_type",
    "convolve",
    "extract",
    "fold",
    "run_folded",
]

NUMBER_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

TENSOR_CORES = (7, 0)
"""CUDA compute capability from which on half precision is fastest."""

SLAB_VOXELS = 2**17
"""Voxels of the 1/2 grid per slab: fewer are slower, more take memory without being faster."""
LEAST_PLANES = 4
"""Least number of planes of the 1/4 grid in a slab: each slab computes one plane of the 1/2 grid a second time."""


class Compiled(NamedTuple):
    """A compiled kernel for a convolution."""

    convolve: Callable[..., None]
    weights: Any
    """The weights in the form the kernel takes."""


class Folded(NamedTuple):
    """A 3x3x3 convolution that includes its block's normalisation."""

    weight: Tensor
    bias: Tensor
    stride: int
    compiled: Compiled | None = None
    """The compiled kernel, if there is one faster than torch."""


def computing_type(precision: str, device: torch.device) -> torch.dtype:
    """Number type of the convolutions. `auto` takes half precision if the device has matrix units for it.

    That means float16 on CUDA, where it is as fast as bfloat16 and eight times as exact, and bfloat16 on processors
    with AMX. Processors that only have bfloat16 instructions are slower with them than in float32.
    """
    if precision != "auto":
        return NUMBER_TYPES[precision]
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= TENSOR_CORES:
        return torch.float16
    # A private name that some versions of torch lack; without it, float32 is right everywhere.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)
    return torch.bfloat16 if device.type == "cpu" and has_amx() else torch.float32


def fold(block: nn.Sequential, dtype: torch.dtype) -> Folded:
    """Fold a block's convolution and its normalisation by running statistics into one convolution; the ReLU remains."""
    conv, norm = block[0], block[1]
    assert isinstance(conv, nn.Conv3d)
    assert isinstance(norm, nn.BatchNorm3d)
    assert conv.bias is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = conv.weight * scale.view(-1, 1, 1, 1, 1)
    bias = norm.bias + (conv.bias - norm.running_mean) * scale
    # Copied, because `contiguous` leaves weights of a single input channel with channels-first strides.
    last_first = torch.empty_like(weight, dtype=dtype, memory_format=torch.channels_last_3d).copy_(weight)
    bias, stride = bias.to(dtype), conv.stride[0]
    return Folded(last_first, bias, stride, compiled_convolution(last_first, bias, stride))


def compiled_convolution(weight: Tensor, bias: Tensor, stride: int) -> Compiled | None:
    """The compiled kernel for a 3x3x3 convolution with these weights, or None if torch is faster or the only choice."""
    weight, bias = weight.detach(), bias.detach()
    if not use_kernels(weight, bias):
        return None
    from corereg.method.features.convolution import winograd

    if not winograd.suits(weight, stride):
        return None
    return Compiled(winograd.convolve, winograd.transform_weight(weight, bias))


def convolve(
    layer: Folded,
    source: Tensor,
    *,
    origin: int = 0,
    first: int = 0,
    last: int | None = None,
    reuse: Tensor | None = None,
) -> Tensor:
    """Planes `first` to `last` of a block's output.

    Args:
        source: planes of the block's input, from plane `origin` of the whole input. Any further planes that are needed
            must lie outside the whole input, where the convolution sees zeros.
        last: None takes all planes.
        reuse: an earlier output of this layer that is no longer needed; its memory is reused if it has the right size.
    """
    last = -(-source.shape[2] // layer.stride) if last is None else last
    if layer.compiled is not None:
        return _convolve_compiled(layer, source, origin, first, last, reuse)
    start, stop = layer.stride * first - 1 - origin, layer.stride * (last - 1) + 2 - origin
    before, after = max(-start, 0), max(stop - source.shape[2], 0)
    part = source[:, :, start + before : stop - after]
    if after and not before:
        part = functional.pad(part, (0, 0, 0, 0, 0, 1))
    # If only the first plane lies outside, this pads both sides, and what comes after the last plane is dropped.
    found = torch.conv3d(part, layer.weight, layer.bias, layer.stride, (before, 1, 1))
    return found[:, :, : last - first].relu_()


def _convolve_compiled(
    layer: Folded, source: Tensor, origin: int, first: int, last: int, reuse: Tensor | None
) -> Tensor:
    assert layer.compiled is not None
    _, columns, slices = strided_shape(source.shape[2:], layer.stride)
    shape = len(source), layer.bias.numel(), last - first, columns, slices
    found = reuse
    if found is None or found.shape != shape:
        found = torch.empty(shape, memory_format=torch.channels_last_3d)
    images, results = (v.permute(0, 2, 3, 4, 1) for v in (source, found))
    for image, result in zip(images.contiguous(), results, strict=True):
        layer.compiled.convolve(
            layer.compiled.weights, image.numpy(), result.numpy(), origin=origin, first=first, floor=0.0
        )
    return found


def run_folded(block: nn.Sequential, source: Tensor) -> Tensor:
    """A block's whole output, in the number type of its input."""
    return convolve(fold(block, source.dtype), source)


def extract(
    blocks: tuple[nn.Sequential, ...],
    image: Tensor,
    dtype: torch.dtype,
    *,
    shallow: bool,
    project: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor | None, Tensor]:
    """Outputs of the second of four blocks, on the 1/2 grid in float32, and of the fourth, on the 1/4 grid.

    Args:
        image: (B, 1, I, J, K).
        shallow: return the second block's output; without it, None is returned instead.
        project: applied to the second block's output, voxel by voxel; None keeps it whole.
    """
    first, second, third = (fold(block, dtype) for block in blocks[:3])
    half, quarter = (strided_shape(image.shape[2:], stride) for stride in (2, 4))
    kept: Tensor | None = None
    one: Tensor | None = None
    two: Tensor | None = None
    middle = _empty(image, third.bias.numel(), quarter, dtype)
    planes = max(LEAST_PLANES, SLAB_VOXELS // (2 * half[1] * half[2]))
    for q in range(0, quarter[0], planes):
        q_end = min(q + planes, quarter[0])
        h, h_end = max(2 * q - 1, 0), min(2 * q_end, half[0])
        a, a_end = max(h - 1, 0), min(h_end + 1, half[0])
        i, i_end = max(2 * a - 1, 0), 2 * a_end
        one = convolve(first, image[:, :, i:i_end].to(dtype), origin=i, first=a, last=a_end, reuse=one)
        two = convolve(second, one, origin=a, first=h, last=h_end, reuse=two)
        middle[:, :, q:q_end] = convolve(third, two, origin=h, first=q, last=q_end)
        if shallow:
            found = two[:, :, 2 * q - h :].float()
            found = found if project is None else project(found)
            kept = _empty(image, found.shape[1], half, torch.float32) if kept is None else kept
            kept[:, :, 2 * q : h_end] = found
    return kept, run_folded(blocks[3], middle)


def _empty(image: Tensor, channels: int, shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    size = image.shape[0], channels, *shape
    return torch.empty(size, dtype=dtype, device=image.device, memory_format=torch.channels_last_3d)
