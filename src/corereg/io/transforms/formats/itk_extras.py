"""What a transform of ours has and an ITK file does not: names of parts, both grids. ITK passes over where they are.

In .tfm and .txt that is a comment, in .h5 an attribute of the group `corereg`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corereg.geometry.grid import Grid
from corereg.io.transforms.formats.common import Located
from corereg.io.transforms.transform import Transform
from corereg.lazy import h5py

__all__ = ["ATTRIBUTE", "GROUP", "Extras", "append_extras", "extras_text", "read_extras"]

GROUP, ATTRIBUTE = "corereg", "extras"
COMMENT = "#corereg "


@dataclass(frozen=True)
class Extras:
    """As a file has them; empty for a file of another program."""

    names: tuple[str, ...] = ()
    fixed: Grid | None = None
    moving: Grid | None = None


def extras_text(transform: Transform, **more: Any) -> str:
    """One line of JSON."""
    grids = {"fixed": _as_dict(transform.fixed), "moving": _as_dict(transform.moving)}
    return json.dumps({"names": list(transform.names), **grids, **more})


def append_extras(path: Path, transform: Transform) -> None:
    """To an ITK text file."""
    with open(path, "a", encoding="ascii", newline="\n") as file:
        file.write(f"{COMMENT}{extras_text(transform)}\n")


def read_extras(path: Path) -> Extras:
    """Of any ITK transform file that can be read."""
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
    return None if image is None else (image if isinstance(image, Grid) else image.grid).as_dict()


def _grid(stored: dict[str, Any] | None) -> Grid | None:
    return None if stored is None else Grid(tuple(stored["shape"]), np.array(stored["affine"]))
