"""Libraries that take long to import, imported where and when they are needed. mypy gets nothing from their types."""

from importlib import import_module
from typing import Any

from corereg.errors import InputError

__all__ = ["h5py", "nibabel", "pydicom", "simpleitk", "vtk_module"]


def h5py() -> Any:
    """The module h5py."""
    return import_module("h5py")


def nibabel() -> Any:
    """The module nibabel."""
    return import_module("nibabel")


def pydicom() -> Any:
    """The module pydicom."""
    return import_module("pydicom")


def simpleitk() -> Any:
    """The module SimpleITK."""
    return import_module("SimpleITK")


def vtk_module(name: str) -> Any:
    """A module of VTK.

    Raises:
        InputError: VTK is not installed; it comes with an extra.
    """
    try:
        return import_module(f"vtkmodules.{name}")
    except ImportError:
        raise InputError(
            "got a mesh, but VTK is not installed, expected it for meshes; pip install 'corereg[mesh]'"
        ) from None
