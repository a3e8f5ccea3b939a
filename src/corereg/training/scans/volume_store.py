"""Volumes of one shape in one file: rows are added one by one and looked up by a key.

`<stem>.f16` has the voxels (float16, little-endian, C order, no header), `<stem>.json` the row of each key and what is
known of it. A row is listed when it is on disk: what an interruption left behind is not, and the next row replaces it.
"""

import errno
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.io.json_files import load_json, save_json

__all__ = ["RowFile"]

DTYPE = np.dtype("<f2")
"""Scaled CT lies in -2..2, where it is exact to half a Hounsfield unit."""

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)


class RowFile:
    """Rows on disk. One process at a time may add to them.

    Args:
        stem: path without the endings; its folder exists.
        shape: (I, J, K) of each row.
    """

    def __init__(self, stem: Path, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.row_bytes = math.prod(shape) * DTYPE.itemsize
        self._voxels, self._index = stem.with_name(f"{stem.name}.f16"), stem.with_name(f"{stem.name}.json")
        self._facts: dict[str, dict[str, Any]] = load_json(self._index)
        self._rows = sum("row" in facts for facts in self._facts.values())
        written = self._voxels.stat().st_size if self._voxels.is_file() else 0
        if written < self._rows * self.row_bytes:
            self._facts, self._rows = {}, 0

    def __contains__(self, key: str) -> bool:
        return key in self._facts

    def __getitem__(self, key: str) -> dict[str, Any]:
        """What is known of a key: its "row", where it has one, and what was given with it."""
        return self._facts[key]

    def check_space(self, rows: int) -> None:
        """Whether the disk has room for so many more.

        Raises:
            InputError: it has not.
        """
        if shutil.disk_usage(self._voxels.parent).free < rows * self.row_bytes:
            raise self._too_little_space(rows)

    def add(self, key: str, volume: NDArray[np.float32] | None, **facts: Any) -> None:
        """Write a row, or where there is no volume, what is known alone.

        Raises:
            InputError: the disk is full; the rows so far stay.
        """
        with self._full_disk_in_one_line():
            if volume is not None:
                self._append(np.ascontiguousarray(volume, dtype=DTYPE))
                facts["row"] = self._rows
            save_json(self._index, self._facts | {key: facts})
        self._facts[key] = facts
        self._rows += volume is not None

    def array(self) -> NDArray[np.float16]:
        """(N, I, J, K): all rows, at least one, mapped into memory and not to be written to."""
        return np.memmap(self._voxels, DTYPE, mode="r", shape=(self._rows, *self.shape))

    def _append(self, row: NDArray[np.float16]) -> None:
        with open(self._voxels, "r+b" if self._voxels.exists() else "w+b") as file:
            file.seek(self._rows * self.row_bytes)
            try:
                file.write(row.data)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(self._rows * self.row_bytes)
                raise

    @contextmanager
    def _full_disk_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in DISK_IS_FULL:
                raise
            raise self._too_little_space(1) from None

    def _too_little_space(self, rows: int) -> InputError:
        folder = self._voxels.parent
        free, needed = (math.ceil(n / 2**20) for n in (shutil.disk_usage(folder).free, rows * self.row_bytes))
        return InputError(
            f"got {free} MB of free disk space for {folder}, expected {needed} MB more for {rows} scans; free some, or "
            "choose another folder for the cache"
        )
