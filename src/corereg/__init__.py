"""corereg: deformable 3D registration of CT and MR scans. Nothing heavy is imported before it is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corereg.errors import InputError
    from corereg.geometry.displacement import Displacement
    from corereg.geometry.grid import Grid
    from corereg.io.images import Image, read_image, write_image
    from corereg.io.transforms import Transform
    from corereg.method.config import RegisterConfig
    from corereg.method.register import RegistrationResult, register

_HOMES = {
    "Displacement": "corereg.geometry.displacement",
    "Grid": "corereg.geometry.grid",
    "Image": "corereg.io.images",
    "InputError": "corereg.errors",
    "RegisterConfig": "corereg.method.config",
    "RegistrationResult": "corereg.method.register",
    "Transform": "corereg.io.transforms",
    "read_image": "corereg.io.images",
    "register": "corereg.method.register",
    "write_image": "corereg.io.images",
}

__all__ = [
    "Displacement",
    "Grid",
    "Image",
    "InputError",
    "RegisterConfig",
    "RegistrationResult",
    "Transform",
    "read_image",
    "register",
    "write_image",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'corereg' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
