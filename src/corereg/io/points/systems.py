"""Coordinate systems of point files: what files call them, and the signs that turn them to RAS."""

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError

__all__ = ["DIGITS", "SIGNS", "SYSTEM_NAMES", "agreed_system", "coordinate_system", "digits"]

SIGNS: dict[str, NDArray[np.float64]] = {"RAS": np.array([1.0, 1.0, 1.0]), "LPS": np.array([-1.0, -1.0, 1.0])}
"""To RAS, and back."""

SYSTEM_NAMES = {"RAS": "RAS", "0": "RAS", "LPS": "LPS", "1": "LPS"}
"""Slicer wrote numbers before it wrote names."""

SAYING = "or say it with --coordinates"

DIGITS = ".12g"
"""A nanometre at a metre: more would only show rounding errors."""


def coordinate_system(value: object, of: str) -> str:
    """RAS or LPS from what a file or a caller calls it.

    Raises:
        InputError: neither.
    """
    name = SYSTEM_NAMES.get(str(value).upper())
    if name is None:
        raise InputError(
            f"got the coordinate system {value!r} for {of}, expected RAS or LPS; export it in one of these"
        )
    return name


def agreed_system(stated: str | None, given: str | None, name: str, cure: str) -> str:
    """The coordinate system that a file states or the caller gives.

    Raises:
        InputError: neither does, or they differ.
    """
    if stated and given and stated != given:
        raise InputError(f"got {name}, for which both {stated} and {given} are stated, expected one; leave one out")
    system = stated or given
    if system is None:
        raise InputError(
            f"got {name}, which does not say its coordinate system, expected RAS or LPS; {cure}", options=SAYING
        )
    return system


def digits(value: float) -> str:
    """A coordinate as text."""
    return f"{value + 0.0:{DIGITS}}"  # adding 0 turns -0 into 0
