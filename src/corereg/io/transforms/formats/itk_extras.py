"""What ITK files have no place for: the names of parts, and both grids. They are stored where ITK ignores them.

That is a comment in .tfm and .txt, and an attribute of the group `corereg` in .h5.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corereg.geometry.grid import Grid
from corereg.io.transforms.formats.stored import Located, StoredTransform, grid_of
from corereg.lazy import h5py

__all__ = ["ATTRIBUTE", "GROUP", "Extras", "append_extras", "extras_text", "read_extras"]

GROUP, ATTRIBUTE = "corereg", "extras"
COMMENT = "#corereg "


@dataclass(frozen=True)
class Extras:
    """The extras of a file; empty if another program wrote it."""

    names: tuple[str, ...] = ()
    fixed: Grid | None = None
    moving: Grid | None = None


def extras_text(stored: StoredTransform, **more: Any) -> str:
    """The extras as one line of JSON."""
    grids = {"fixed": _as_dict(stored.fixed), "moving": _as_dict(stored.moving)}
    return json.dumps({"names": list(stored.names), **grids, **more})


def append_extras(path: Path, stored: StoredTransform) -> None:
    """Append the extras to an ITK text file."""
    with open(path, "a", encoding="ascii", newline="\n") as file:
        file.write(f"{COMMENT}{extras_text(stored)}\n")


def read_extras(path: Path) -> Extras:
    """The extras of any ITK transform file."""
    text = _text_in_h5(path) if h5py().is_hdf5(path) else _text_in_comment(path)
    if text is None:
        return Extras()
    stored = json.loads(text)
    return Extras(tuple(stored["names"]), _grid(stored["fixed"]), _grid(stored["moving"]))


def _text_in_h5(path: Path) -> str | None:
    with h5py().File(path) as file:
        return str(file[GROUP].attrs[ATTRIBUTE]) if GROUP in file else None


def _text_in_comment(path: Path) -> str | None:
    with open(path, "rb") as file:
        for line in file:
            if line.startswith(COMMENT.encode()):
                return line.decode().removeprefix(COMMENT)
    return None


def _as_dict(image: Located | None) -> dict[str, Any] | None:
    return None if image is None else grid_of(image, "").as_dict()


def _grid(stored: dict[str, Any] | None) -> Grid | None:
    return None if stored is None else Grid(tuple(stored["shape"]), np.array(stored["affine"]))
