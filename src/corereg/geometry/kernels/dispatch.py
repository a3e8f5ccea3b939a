"""Which implementation a tensor operation runs on: compiled kernels, or the plain torch that defines the result.

Kernels are for float32 tensors that need no gradient: numba's on the CPU, Triton's on CUDA. The environment variable
`COREREG_KERNELS` narrows the choice: `torch` takes torch for all, `numba` or `triton` the kernels of that one alone and
complains where it does not work. Left unset, what does not work here is left to torch.
"""

import os
from functools import cache

import torch
from torch import Tensor

from corereg.errors import InputError

__all__ = ["KERNELS_VARIABLE", "use_kernels", "use_triton"]

KERNELS_VARIABLE = "COREREG_KERNELS"
CHOICES = ("torch", "numba", "triton")

CUDA_OFFSETS = 2**31
"""The CUDA kernels count in 32 bits."""


def use_kernels(*tensors: Tensor | None) -> bool:
    """Whether the compiled CPU kernels can take these tensors; None stands for an argument that was left out.

    Raises:
        InputError: the environment variable names no implementation, or numba by name where it is not installed.
    """
    choice = _choice()
    if choice not in ("", "numba") or not _suit("cpu", tensors):
        return False
    if choice == "numba" and not _numba_imports():
        raise InputError(
            f"got {KERNELS_VARIABLE}=numba, but numba does not import; install numba or unset the variable"
        )
    return _numba_imports()


def use_triton(*tensors: Tensor | None) -> bool:
    """Whether the compiled CUDA kernels can take these tensors; None stands for an argument that was left out.

    Raises:
        InputError: the environment variable names no implementation, or triton by name where it does not work.
    """
    choice = _choice()
    if choice not in ("", "triton") or not _suit("cuda", tensors):
        return False
    if choice == "triton" and not _triton_works():
        raise InputError(
            f"got {KERNELS_VARIABLE}=triton, but triton cannot run a kernel here; install triton and a C compiler, "
            "or unset the variable"
        )
    return _triton_works()


def _choice() -> str:
    choice = os.environ.get(KERNELS_VARIABLE, "")
    if choice and choice not in CHOICES:
        raise InputError(f"got {KERNELS_VARIABLE}={choice}, expected one of {', '.join(CHOICES)}; correct or unset it")
    return choice


def _suit(device: str, tensors: tuple[Tensor | None, ...]) -> bool:
    return all(_suits(device, t) for t in tensors if t is not None)


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
    """Triton needs more than its package: a C compiler, Python's headers, a GPU that it knows. So it is tried."""
    try:
        from corereg.geometry.kernels.cuda import try_out

        try_out()
    except Exception:
        return False
    return True
