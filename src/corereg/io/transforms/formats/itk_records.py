"""ITK's transform files of text (.tfm, .txt) and MATLAB (.mat), read without ITK, whose parsers trust them too much.

A file holds one transform, or a composite followed by its parts in the order in which they were added.
"""

import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError

__all__ = ["COMPOSITE", "ItkTransform", "chained", "is_matlab", "is_text", "read_matlab", "read_text", "stated_numbers"]

TEXT_MAGIC = b"#Insight Transform File"

TYPE_NAME = re.compile(r"([A-Za-z0-9]+?)_(?:double|float)_(\d+)_(\d+)(?:_(\d))?$")
"""Class, precision, dimensions of input and output, and the order of a B-spline unless it is 3."""

COMPOSITE = "CompositeTransform"

MATLAB_TYPES = {0: "<f8", 10: "<f4", 1000: ">f8", 1010: ">f4"}
"""MATLAB 4's numbers for dense real matrices, by byte order and precision."""

MATLAB_HEADER, LONGEST_NAME = 20, 200
"""Bytes of a matrix header, and of the longest name expected in it."""


@dataclass(frozen=True, eq=False)
class ItkTransform:
    """A transform as ITK stores it.

    Args:
        kind: its class, such as "AffineTransform".
        parameters: what a registration optimises.
        fixed: what stays: a centre of rotation, or the lattice of a field.
        order: the order of a B-spline.
    """

    kind: str
    parameters: NDArray[Any]
    fixed: NDArray[np.float64]
    order: int = 3

    @staticmethod
    def of_type(name: str, parameters: NDArray[Any], fixed: NDArray[Any], path: Path) -> "ItkTransform":
        """From the type name in a file, such as "AffineTransform_double_3_3".

        Raises:
            InputError: the name is not one of ITK's, the transform is not 3-D, or a parameter is not finite.
        """
        match = TYPE_NAME.match(name)
        if match is None:
            raise InputError(
                f"got {path} with the transform type {name[:60]!r}, which is not one of ITK's; check the file"
            )
        kind, *dimensions, order = match.groups()
        if dimensions != ["3", "3"]:
            raise InputError(
                f"got {path} with a {kind} of {' to '.join(dimensions)} dimensions, expected 3; give one of volumes"
            )
        if not (np.isfinite(parameters).all() and np.isfinite(fixed).all()):
            raise InputError(
                f"got {path} with NaN or infinite numbers in a {kind}, expected finite ones; make it again"
            )
        return ItkTransform(kind, parameters, np.asarray(fixed, dtype=np.float64), int(order or 3))


def chained(records: Sequence[ItkTransform], path: Path) -> list[ItkTransform]:
    """The transforms of a file in the order in which a point passes them.

    Raises:
        InputError: there is none, or there are several without a composite that says how to combine them.
    """
    if records and records[0].kind == COMPOSITE:
        parts = list(reversed(records[1:]))
    elif len(records) > 1:
        kinds = ", ".join(record.kind for record in records)
        raise InputError(
            f"got {path} with {len(records)} separate transforms ({kinds}), whose order the file does not define; "
            "store them as one CompositeTransform, or each in a file of its own and apply them with --then"
        )
    else:
        parts = list(records)
    if any(part.kind == COMPOSITE for part in parts):
        raise InputError(
            f"got {path} with a composite inside another, expected a flat one; flatten it and write it again"
        )
    if not records:
        raise InputError(f"got {path} without a transform in it, expected at least one; write it again")
    return parts


def is_text(path: Path) -> bool:
    """Whether a file is one of ITK's text files."""
    with open(path, "rb") as file:
        return file.read(len(TEXT_MAGIC)) == TEXT_MAGIC


def read_text(path: Path) -> list[ItkTransform]:
    """Read the transforms of a text file.

    Raises:
        InputError: the file is damaged.
    """
    found: list[dict[str, str]] = []
    for line in path.read_text(encoding="latin-1").splitlines():
        key, separator, value = line.partition(":")
        if line.startswith("#") or not separator:
            continue
        if key == "Transform":
            found.append({})
        if not found or key not in ("Transform", "Parameters", "FixedParameters") or key in found[-1]:
            raise InputError(
                f"got {path} with an unexpected line {line[:60]!r}, expected an ITK transform; write it again"
            )
        found[-1][key] = value.strip()
    return [
        ItkTransform.of_type(
            each["Transform"],
            stated_numbers(each.get("Parameters", ""), path),
            stated_numbers(each.get("FixedParameters", ""), path),
            path,
        )
        for each in found
    ]


def stated_numbers(text: str, path: Path) -> NDArray[np.float64]:
    """Numbers separated by spaces.

    Raises:
        InputError: something is not a number.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy only warns of text after the last number that it understands
            return np.fromstring(text, dtype=np.float64, sep=" ")
    except (ValueError, DeprecationWarning):
        raise InputError(
            f"got {path} with parameters that are not numbers ({text[:40]!r}...), expected an ITK transform; write it "
            "again"
        ) from None


def is_matlab(path: Path) -> bool:
    """Whether a file begins like one of MATLAB 4."""
    with open(path, "rb") as file:
        head = file.read(MATLAB_HEADER)
    if len(head) < MATLAB_HEADER:
        return False
    return any(struct.unpack(f"{order}i", head[:4])[0] in MATLAB_TYPES for order in "<>")


def read_matlab(path: Path) -> list[ItkTransform]:
    """Read the transforms of a MATLAB 4 file: a vector named after the type, and one named "fixed", for each.

    Raises:
        InputError: the file is damaged.
    """
    vectors = list(_matlab_vectors(path.read_bytes(), path))
    names = [name for name, _ in vectors]
    if len(vectors) % 2 or set(names[1::2]) - {"fixed"}:
        raise InputError(f"got {path} with the arrays {names}, expected a transform and its `fixed`; write it again")
    pairs = zip(vectors[::2], vectors[1::2], strict=True)
    return [ItkTransform.of_type(name, parameters, fixed, path) for (name, parameters), (_, fixed) in pairs]


def _matlab_vectors(content: bytes, path: Path) -> Iterator[tuple[str, NDArray[np.float64]]]:
    at = 0
    while at < len(content):
        order = next((o for o in "<>" if content[at : at + 4] in [struct.pack(f"{o}i", n) for n in MATLAB_TYPES]), None)
        if order is None or len(content) < at + MATLAB_HEADER:
            raise _damaged(path)
        number, rows, columns, imaginary, length = struct.unpack(f"{order}5i", content[at : at + MATLAB_HEADER])
        dtype = np.dtype(MATLAB_TYPES[number])
        if min(rows, columns) < 0 or imaginary or not 0 < length < LONGEST_NAME:
            raise _damaged(path)
        start = at + MATLAB_HEADER + length
        at = start + rows * columns * dtype.itemsize
        if at > len(content):
            raise _damaged(path)
        name = content[start - length : start].rstrip(b"\0").decode("latin-1")
        yield name, np.frombuffer(content[start:at], dtype).astype(np.float64)


def _damaged(path: Path) -> InputError:
    return InputError(f"got {path}, which is damaged or not a MATLAB 4 file, expected an ITK transform; write it again")
