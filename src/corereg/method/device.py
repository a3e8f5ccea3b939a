"""Devices by name."""

import torch

from corereg.errors import InputError

__all__ = ["find_device"]


def find_device(name: str, *images: object) -> torch.device:
    """The device called auto, cpu, cuda or mps; auto is where the images are, if they are tensors on another device.

    Raises:
        InputError: PyTorch does not find it.
    """
    if name == "auto":
        for image in images:
            if isinstance(image, torch.Tensor) and image.device.type != "cpu":
                return image.device
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name not in available:
        raise InputError(f"got device {name!r}, expected auto, cpu, cuda or mps")
    if not available[name]:
        raise InputError(f"got device {name!r}, which PyTorch does not find on this machine; use --device cpu")
    return torch.device(name)
