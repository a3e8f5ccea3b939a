"""Pickles that do harm when they are opened."""

from pathlib import Path
from typing import Any


class Planted:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)
