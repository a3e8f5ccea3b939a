"""Choose the implementation of a tensor operation: compiled kernels, or the plain torch that defines the result.

Kernels take float32 tensors that need no gradient: numba's on the CPU, Triton's on CUDA. The environment variable
`COREREG_KERNELS` narrows the choice: `torch` disables all kernels; `numba` or `triton` enables only the kernels of that
library, and its absence is an error. If the variable is unset, torch replaces whatever does not work here.
"""

import os
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from corereg.errors import InputError

__all__ = ["KERNELS_VARIABLE", "use_kernels", "use_triton"]

KERNELS_VARIABLE = "COREREG_KERNELS"
CHOICES = ("torch", "numba", "triton")

CUDA_OFFSETS = 2**31
"""Largest tensor for the CUDA kernels plus one: they count in 32 bits."""


def use_kernels(*tensors: Tensor | None) -> bool:
    """Whether the compiled CPU kernels can take these tensors; None stands for an omitted argument.

    Raises:
        InputError: the environment variable is invalid, or it requires numba, which is not installed.
    """
    return _use("numba", "cpu", tensors, _numba_imports, "numba does not import; install numba")


def use_triton(*tensors: Tensor | None) -> bool:
    """Whether the compiled CUDA kernels can take these tensors; None stands for an omitted argument.

    Raises:
        InputError: the environment variable is invalid, or it requires triton, which does not work here.
    """
    cure = "triton cannot run a kernel here; install triton and a C compiler"
    return _use("triton", "cuda", tensors, _triton_works, cure)


def _use(
    library: str, device: str, tensors: tuple[Tensor | None, ...], works: Callable[[], bool], complaint: str
) -> bool:
    choice = os.environ.get(KERNELS_VARIABLE, "")
    if choice and choice not in CHOICES:
        raise InputError(f"got {KERNELS_VARIABLE}={choice}, expected one of {', '.join(CHOICES)}; correct or unset it")
    if choice not in ("", library) or not all(_suits(device, t) for t in tensors if t is not None):
        return False
    if choice and not works():
        raise InputError(f"got {KERNELS_VARIABLE}={library}, but {complaint} or unset the variable")
    return works()


def _suits(device: str, tensor: Tensor) -> bool:
    plain = tensor.device.type == device and tensor.dtype == torch.float32 and tensor.layout == torch.strided
    recorded = tensor.requires_grad and torch.is_grad_enabled()
    small = device == "cpu" or tensor.numel() < CUDA_OFFSETS
    return plain and small and not recorded and not torch.compiler.is_compiling()


@cache
def _numba_imports() -> bool:
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


@cache
def _triton_works() -> bool:
    """Triton also needs a C compiler, Python's headers and a GPU that it knows, so a kernel is run to find out."""
    try:
        from corereg.geometry.kernels.cuda import try_out

        try_out()
    except Exception:
        return False
    return True
