"""Which implementation a tensor operation runs on: compiled CPU kernels, or the plain torch that defines the result.

`COREREG_KERNELS=numba` (the default) takes the kernels for float32 tensors on the CPU that need no gradient, and torch
for all others; `COREREG_KERNELS=torch` takes torch for all. Without numba installed everything runs on torch.
"""

import os
from functools import cache

import torch
from torch import Tensor

from corereg.errors import InputError

__all__ = ["KERNELS_VARIABLE", "use_kernels"]

KERNELS_VARIABLE = "COREREG_KERNELS"


def use_kernels(*tensors: Tensor | None) -> bool:
    """Whether the compiled kernels can take these tensors; None stands for an argument that was left out.

    Raises:
        InputError: the environment variable names no implementation, or numba by name where it is not installed.
    """
    choice = os.environ.get(KERNELS_VARIABLE, "")
    if choice not in ("", "torch", "numba"):
        raise InputError(f"got {KERNELS_VARIABLE}={choice}, expected torch or numba; correct or unset it")
    if choice == "torch" or not all(_suits(t) for t in tensors if t is not None):
        return False
    if choice == "numba" and not _numba_imports():
        raise InputError(
            f"got {KERNELS_VARIABLE}=numba, but numba does not import; install numba or unset the variable"
        )
    return _numba_imports()


def _suits(tensor: Tensor) -> bool:
    plain = tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.layout == torch.strided
    recorded = tensor.requires_grad and torch.is_grad_enabled()
    return plain and not recorded and not torch.compiler.is_compiling()


@cache
def _numba_imports() -> bool:
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True
