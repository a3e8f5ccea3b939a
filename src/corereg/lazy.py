"""Libraries that take long to import, imported where and when they are needed. mypy gets nothing from their types."""

from importlib import import_module
from typing import Any

from corereg.errors import InputError

__all__ = [
    "h5py",
    "highdicom",
    "nibabel",
    "pydicom",
    "ray",
    "scipy_module",
    "simpleitk",
    "torch_generator",
    "vtk_module",
    "zarr",
]


def h5py() -> Any:
    """The module h5py."""
    return import_module("h5py")


def highdicom() -> Any:
    """The module highdicom.

    Raises:
        InputError: it is not installed; it comes with an extra.
    """
    return _of_extra("highdicom", "a DICOM segmentation", "dicom")


def nibabel() -> Any:
    """The module nibabel."""
    return import_module("nibabel")


def pydicom() -> Any:
    """The module pydicom."""
    return import_module("pydicom")


def ray() -> Any:
    """The module ray.

    Raises:
        InputError: Ray is not installed; it comes with an extra.
    """
    try:
        return import_module("ray")
    except ImportError:
        raise InputError("got --ray, but Ray is not installed; pip install 'corereg[ray]'") from None


def scipy_module(name: str) -> Any:
    """A module of SciPy."""
    return import_module(f"scipy.{name}")


def simpleitk() -> Any:
    """The module SimpleITK."""
    return import_module("SimpleITK")


def torch_generator(seed: int) -> Any:
    """A `torch.Generator`, on the CPU. torch 2.13 makes none before this part of it, which may be deferred, has run."""
    import_module("torch._prims")
    return import_module("torch").Generator().manual_seed(seed)


def vtk_module(name: str) -> Any:
    """A module of VTK.

    Raises:
        InputError: VTK is not installed; it comes with an extra.
    """
    return _of_extra(f"vtkmodules.{name}", "a mesh", "mesh")


def zarr() -> Any:
    """The module zarr.

    Raises:
        InputError: it is not installed; it comes with an extra.
    """
    return _of_extra("zarr", "an OME-Zarr store", "zarr")


def _of_extra(module: str, got: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        package = {"mesh": "VTK"}.get(extra, module)
        raise InputError(
            f"got {got}, but {package} is not installed, expected it for that; pip install 'corereg[{extra}]'"
        ) from None
