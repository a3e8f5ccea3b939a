"""The network where nothing is learned from its output: the same features in less time and memory.

Normalisations are folded into the convolutions, volumes are channels-last in memory, and the 1/2 grid is walked in
slabs along i, so that blocks 1 and 2 are never there as a whole. Weights are folded anew for each image: that takes a
few milliseconds, and none can be stale.

Legend: I J K axes of the image, planes are those along i; H planes of the 1/2 grid, Q planes of the 1/4 grid.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from corereg.geometry.kernels.dispatch import use_kernels
from corereg.geometry.strided import strided_shape

__all__ = ["PRECISIONS", "Compiled", "Folded", "compiled_convolution", "computing_type", "convolve", "extract", "fold"]

NUMBER_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("auto", *NUMBER_TYPES)

TENSOR_CORES = (7, 0)
"""CUDA's compute capability from which half precision is the fast one."""

SLAB_VOXELS = 2**17
"""Voxels of the 1/2 grid that are computed at a time: fewer are slower, more take memory and gain nothing."""
LEAST_PLANES = 4
"""Planes of the 1/4 grid in a slab: one of the 1/2 grid is computed twice for each slab."""


class Compiled(NamedTuple):
    """A compiled kernel for a convolution."""

    convolve: Callable[..., None]
    weights: Any
    """As the kernel takes them."""


class Folded(NamedTuple):
    """A convolution 3x3x3 that does its block's normalisation too."""

    weight: Tensor
    bias: Tensor
    stride: int
    compiled: Compiled | None = None
    """Where there is a faster way than torch's."""


def computing_type(precision: str, device: torch.device) -> torch.dtype:
    """Number type of the convolutions. auto takes half precision where the device has matrix units for it.

    That is float16 on CUDA, as fast as bfloat16 there and eight times as exact, and bfloat16 on processors with AMX.
    Those with bfloat16 instructions alone are slower with them than in float32.
    """
    if precision != "auto":
        return NUMBER_TYPES[precision]
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= TENSOR_CORES:
        return torch.float16
    # A private name, and missing in some versions of torch: without it float32 is right everywhere.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)
    return torch.bfloat16 if device.type == "cpu" and has_amx() else torch.float32


def fold(block: nn.Sequential, dtype: torch.dtype) -> Folded:
    """A block of convolution, normalisation by its statistics, and ReLU as one convolution to be followed by ReLU."""
    conv, norm = block[0], block[1]
    assert isinstance(conv, nn.Conv3d)
    assert isinstance(norm, nn.BatchNorm3d)
    assert conv.bias is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = conv.weight * scale.view(-1, 1, 1, 1, 1)
    bias = norm.bias + (conv.bias - norm.running_mean) * scale
    # Copied, since `contiguous` leaves the weights of a single input channel with strides that say channels first.
    last_first = torch.empty_like(weight, dtype=dtype, memory_format=torch.channels_last_3d).copy_(weight)
    bias, stride = bias.to(dtype), conv.stride[0]
    return Folded(last_first, bias, stride, compiled_convolution(last_first, bias, stride))


def compiled_convolution(weight: Tensor, bias: Tensor, stride: int) -> Compiled | None:
    """The kernel for a convolution 3x3x3 with these weights, or None where torch's is the fastest or the only one."""
    weight, bias = weight.detach(), bias.detach()
    if not use_kernels(weight, bias):
        return None
    from corereg.method.features.convolution import first_layer as kernels_first_layer
    from corereg.method.features.convolution import winograd as kernels_winograd

    for kernels in (kernels_winograd, kernels_first_layer):
        if kernels.suits(weight, stride):
            return Compiled(kernels.convolve, kernels.transform_weight(weight, bias))
    return None


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
        source: planes of its input, from plane `origin` of the whole. What is needed beyond them must lie outside the
            whole, where the convolution sees zeros.
        last: None takes all that there are.
        reuse: an earlier output of this layer that is not needed any more: its memory is taken again where it fits.
    """
    last = -(-source.shape[2] // layer.stride) if last is None else last
    if layer.compiled is not None:
        return _convolve_compiled(layer, source, origin, first, last, reuse)
    start, stop = layer.stride * first - 1 - origin, layer.stride * (last - 1) + 2 - origin
    before, after = max(-start, 0), max(stop - source.shape[2], 0)
    part = source[:, :, start + before : stop - after]
    if after and not before:
        part = functional.pad(part, (0, 0, 0, 0, 0, 1))
    # Padded on both sides where only the first plane lies outside: what comes after the last plane is dropped.
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


def extract(
    blocks: tuple[nn.Sequential, ...],
    image: Tensor,
    dtype: torch.dtype,
    *,
    shallow: bool,
    project: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor | None, Tensor]:
    """Output of the second of four blocks on the 1/2 grid in float32, where asked for, and of the last on the 1/4 grid.

    Args:
        image: (B, 1, I, J, K).
        project: what is kept of the first of these, voxel by voxel; None keeps it whole.
    """
    first, second, third, fourth = (fold(block, dtype) for block in blocks)
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
    return kept, convolve(fourth, middle)


def _empty(image: Tensor, channels: int, shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    size = image.shape[0], channels, *shape
    return torch.empty(size, dtype=dtype, device=image.device, memory_format=torch.channels_last_3d)
