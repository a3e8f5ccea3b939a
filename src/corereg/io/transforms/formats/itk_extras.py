"""What ITK files have no place for: the names of parts, and both grids. They are stored where ITK ignores them.

That is a comment in .tfm and .txt, and an attribute of the group `corereg` in .h5.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.images.checks import plausible_grid
from corereg.io.transforms.formats.stored import Located, StoredTransform, grid_of

__all__ = ["ATTRIBUTE", "GROUP", "Extras", "append_extras", "extras_text", "parse_extras", "read_extras"]

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
    """The extras of an ITK text file.

    Raises:
        InputError: they are damaged.
    """
    with open(path, "rb") as file:
        line = next((line for line in file if line.startswith(COMMENT.encode())), None)
    return Extras() if line is None else parse_extras(line.decode("latin-1").removeprefix(COMMENT), path)


def parse_extras(text: str, path: Path) -> Extras:
    """Extras from their line of JSON.

    Raises:
        InputError: they are not what `extras_text` writes.
    """
    try:
        stored = json.loads(text)
        names = stored["names"]
        if not isinstance(names, list) or not all(isinstance(name, str) and name.isprintable() for name in names):
            raise ValueError("names are not a list of texts")
        return Extras(tuple(names), _grid(stored["fixed"]), _grid(stored["moving"]))
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError, InputError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"got {path} whose names and grids, which corereg stores in it, are damaged ({reason}); write it again"
        ) from None


def _as_dict(image: Located | None) -> dict[str, Any] | None:
    return None if image is None else grid_of(image, "").as_dict()


def _grid(stored: dict[str, Any] | None) -> Grid | None:
    if stored is None:
        return None
    i, j, k = stored["shape"]
    if not all(type(n) is int for n in (i, j, k)):
        raise ValueError("the shape of a grid is not three integers")
    return plausible_grid((i, j, k), np.array(stored["affine"], dtype=np.float64), "its grid")
