"""The feature extractor's blocks in training on the CPU: the same as its modules, in less time and memory.

A block is a convolution, a normalisation and a ReLU. For the backward pass it keeps only the convolution's output, as
16-bit multiples of a unit that fits the image: exact to 1/65534 of its range. The next block's input is computed from
it when needed, one image at a time, in the forward and in the backward pass; the gradient is updated in place.

Legend: N images, C D channels in and out, I J K axes, V voxels; tensors are channels-last in memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from corereg.geometry.kernels.dispatch import use_kernels
from corereg.geometry.strided import strided_shape
from corereg.method.features.convolution.inference import Compiled, compiled_convolution

__all__ = ["blocks", "convolution", "suits"]

LARGEST = torch.iinfo(torch.int16).max
PARAMETERS = 4
"""Parameters of a block: weight and bias of the convolution, weight and bias of the normalisation."""


def suits(sequence: Sequence[nn.Sequential], images: Tensor) -> bool:
    """Whether these blocks can run here: in float32 on the CPU, and normalising by the batch."""
    learning = all(block[1].training for block in sequence)
    return learning and not torch.is_autocast_enabled(images.device.type) and use_kernels(images)


def blocks(sequence: Sequence[nn.Sequential], images: Tensor) -> Tensor:
    """Run blocks of convolution, batch normalisation and ReLU one after the other.

    Args:
        images: (N, 1, I, J, K); they get no gradient.

    Returns: the last block's output. Running statistics are updated as by the modules.
    """
    parameters = [p for block in sequence for p in (*block[0].parameters(), *block[1].parameters())]
    return _Blocks.apply(images, tuple(sequence), *parameters)  # type: ignore[no-any-return, no-untyped-call]


def convolution(module: nn.Conv3d, source: Tensor) -> Tensor:
    """A single convolution with stride 1."""
    return _Convolution.apply(source, module.weight, module.bias)  # type: ignore[no-any-return, no-untyped-call]


@dataclass(frozen=True, slots=True)
class _Output:
    """What is kept of a block: the convolution's output y, and the factors of the block's output
    z = max(scale y + shift, 0)."""

    shape: tuple[int, ...]
    """(I, J, K)."""
    counted: Tensor
    """(N, V * D), int16: y in units."""
    units: tuple[float, ...]
    """The unit of each image."""
    mean: Tensor
    """(D,) in float64, like the fields below."""
    inverse_deviation: Tensor
    scale: Tensor
    shift: Tensor

    def image(self, number: int, out: Tensor) -> Tensor:
        """Write z of one image into `out`, (1, D, I, J, K)."""
        from corereg.training.objective.kernels_normalise import activate

        activate(*self.parts(number), _flat(out))
        return out

    def empty(self, count: int) -> Tensor:
        """Memory for z of `count` images."""
        return _empty(count, len(self.scale), self.shape)

    def parts(self, number: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """y of one image in units, and the scale and shift that turn it into z."""
        scale = (self.scale * self.units[number]).float().numpy()
        return self.counted[number].numpy(), scale, self.shift.float().numpy()


class _Layer(NamedTuple):
    """A convolution, with its compiled kernel if there is one."""

    weight: Tensor
    bias: Tensor
    stride: int
    compiled: Compiled | None

    @staticmethod
    def of(weight: Tensor, bias: Tensor, stride: int) -> "_Layer":
        return _Layer(weight, bias, stride, compiled_convolution(weight, bias, stride))

    def into(self, source: Tensor, out: Tensor) -> None:
        """Write one image's output into `out`; the image is (1, C, I, J, K)."""
        if self.compiled is None:
            out.copy_(torch.conv3d(source, self.weight, self.bias, self.stride, 1))
            return
        image, found = (v[0].permute(1, 2, 3, 0) for v in (source, out))
        self.compiled.convolve(
            self.compiled.weights, image.contiguous().numpy(), found.numpy(), origin=0, first=0, floor=-torch.inf
        )

    def turned(self) -> "_Layer":
        """The convolution that maps the gradient with respect to the output to that with respect to the input."""
        weight = self.weight.flip(2, 3, 4).transpose(0, 1)
        return _Layer.of(weight, self.bias.new_zeros(len(weight)), self.stride)

    def gradients(self, gradient: Tensor, source: Tensor, *, by_source: bool) -> tuple[Tensor | None, Tensor]:
        """Gradients with respect to the input (None unless `by_source`) and to the weight."""
        by_input, by_weight, _ = torch.ops.aten.convolution_backward(
            gradient, source, self.weight, None, [self.stride] * 3, [1] * 3, [1] * 3, False, [0] * 3, 1,
            [by_source, True, False],
        )  # fmt: skip
        return by_input, by_weight


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, sequence: tuple[nn.Sequential, ...], *parameters: Tensor) -> Tensor:
        outputs: list[_Output] = []
        for block, (weight, bias, *_) in zip(sequence, _by_block(parameters), strict=True):
            conv, norm = block[0], block[1]
            assert isinstance(conv, nn.Conv3d)
            assert isinstance(norm, nn.BatchNorm3d)
            layer = _Layer.of(weight.detach(), bias.detach(), conv.stride[0])
            outputs.append(_forward(layer, norm, outputs[-1] if outputs else None, images))
        ctx.outputs, ctx.strides = outputs, [block[0].stride[0] for block in sequence]  # type: ignore[index]
        ctx.save_for_backward(images, *parameters)
        last = outputs[-1]
        found = last.empty(len(images))
        for n in range(len(images)):
            last.image(n, found[n : n + 1])
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, *parameters = ctx.saved_tensors
        found: list[Tensor] = []
        # A copy, because it is overwritten and others may hold the original.
        gradient = gradient.clone(memory_format=torch.channels_last_3d)
        for (weight, bias, gamma, _), stride in reversed(list(zip(_by_block(parameters), ctx.strides, strict=True))):
            of_gamma, of_beta = _back_to_convolution(gradient, ctx.outputs.pop(), gamma)
            layer = _Layer(weight, bias, stride, None)
            before = ctx.outputs[-1] if ctx.outputs else None
            gradient, of_weight = _back_to_input(gradient, layer, before, images)
            # The normalisation subtracts the mean, and with it whatever the convolution's bias adds.
            found = [of_weight, torch.zeros_like(bias), of_gamma, of_beta, *found]
        return None, None, *found


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, source: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(source, weight, bias)
        return _each(_Layer.of(weight, bias, 1), source)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        source, weight, bias = ctx.saved_tensors
        layer = _Layer(weight, bias, 1, None)
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        _, of_weight = layer.gradients(gradient, source, by_source=False)
        return _each(layer.turned(), gradient), of_weight, gradient.sum((0, 2, 3, 4))


def _each(layer: _Layer, source: Tensor) -> Tensor:
    out = _empty(len(source), len(layer.bias), source.shape[2:])
    for n in range(len(source)):
        layer.into(source[n : n + 1], out[n : n + 1])
    return out


def _by_block(parameters: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    for n in range(0, len(parameters), PARAMETERS):
        yield parameters[n : n + PARAMETERS]


def _empty(count: int, channels: int, shape: Sequence[int]) -> Tensor:
    return torch.empty(count, channels, *shape, memory_format=torch.channels_last_3d)


def _flat(values: Tensor) -> NDArray[Any]:
    flat: NDArray[Any] = values.permute(0, 2, 3, 4, 1).reshape(-1).numpy()
    return flat


def _forward(layer: _Layer, norm: nn.BatchNorm3d, before: _Output | None, images: Tensor) -> _Output:
    """Run a block, normalised by the batch, and update its running statistics."""
    from corereg.training.objective.kernels_normalise import keep

    channels, shape = len(layer.bias), strided_shape(images.shape[2:] if before is None else before.shape, layer.stride)
    one, source = _empty(1, channels, shape), None if before is None else before.empty(1)
    counted = torch.empty(len(images), one.numel(), dtype=torch.int16)
    total, squares, units = torch.zeros(channels).double(), torch.zeros(channels).double(), []
    for n in range(len(images)):
        layer.into(images[n : n + 1] if before is None or source is None else before.image(n, source), one)
        extremes = torch.stack(one.permute(0, 2, 3, 4, 1).aminmax())  # in memory order, which is ten times as fast
        units.append(float(extremes.abs().max()) / LARGEST or 1.0)
        first, second = keep(_flat(one), units[n], channels, counted[n].numpy())
        total += units[n] * torch.from_numpy(first)
        squares += units[n] ** 2 * torch.from_numpy(second)
    count = counted.numel() // channels
    mean = total / count
    variance = (squares / count - mean**2).clamp(min=0)
    _update(norm, mean, variance * count / max(count - 1, 1))
    inverse = (variance + norm.eps).rsqrt()
    scale = norm.weight.detach() * inverse
    return _Output(shape, counted, tuple(units), mean, inverse, scale, norm.bias.detach() - mean * scale)


def _update(norm: nn.BatchNorm3d, mean: Tensor, variance: Tensor) -> None:
    """Update the running statistics as the module would."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.float(), momentum)
    norm.running_var.lerp_(variance.float(), momentum)


def _back_to_convolution(gradient: Tensor, output: _Output, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Turn the gradient with respect to z into that with respect to y, in place; return the gradients with respect to
    the normalisation's weight and bias."""
    from corereg.training.objective.kernels_normalise import gradient_of_input, gradient_sums

    of_beta, products = torch.zeros_like(output.mean), torch.zeros_like(output.mean)
    for n, unit in enumerate(output.units):
        first, second = gradient_sums(_flat(gradient[n : n + 1]), *output.parts(n))
        of_beta += torch.from_numpy(first)
        products += unit * torch.from_numpy(second)
    of_gamma = (products - output.mean * of_beta) * output.inverse_deviation
    count = gradient.numel() // len(gamma)
    slope = gamma.detach() * output.inverse_deviation
    linear = -slope * output.inverse_deviation * of_gamma / count
    constant = -slope * of_beta / count - linear * output.mean
    for n, unit in enumerate(output.units):
        counted, scale, shift = output.parts(n)
        factors = (slope.float().numpy(), constant.float().numpy(), (unit * linear).float().numpy())
        gradient_of_input(_flat(gradient[n : n + 1]), counted, (scale, shift), factors)
    return of_gamma.float(), of_beta.float()


def _back_to_input(gradient: Tensor, layer: _Layer, before: _Output | None, images: Tensor) -> tuple[Tensor, Tensor]:
    """From the gradient with respect to a convolution's output, those with respect to its input, if that comes from a
    block, and to its weight."""
    turned = layer.turned() if before is not None and layer.stride == 1 else None
    by_input = gradient if before is None else before.empty(len(images))
    work = images[:1] if before is None else before.empty(1)
    by_weight = torch.zeros_like(layer.weight)
    for n in range(len(images)):
        source = images[n : n + 1] if before is None else before.image(n, work)
        here = slice(n, n + 1)
        part, of_weight = layer.gradients(gradient[here], source, by_source=before is not None and turned is None)
        by_weight += of_weight
        if turned is not None:
            turned.into(gradient[here], by_input[here])
        elif part is not None:
            by_input[here] = part
    return by_input, by_weight
