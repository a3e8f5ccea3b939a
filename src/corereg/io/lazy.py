"""Libraries that take long to import, imported where and when they are needed. mypy gets nothing from their types."""

from importlib import import_module
from typing import Any

__all__ = ["nibabel", "simpleitk"]


def nibabel() -> Any:
    """The module nibabel."""
    return import_module("nibabel")


def simpleitk() -> Any:
    """The module SimpleITK."""
    return import_module("SimpleITK")
