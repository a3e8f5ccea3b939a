"""Volumes of one shape in one file: volumes are appended one by one and looked up by a key.

`<stem>.f16` holds the voxels (float16, little-endian, C order, no header), `<stem>.json` the row of each key and the
facts stored with it. A row is listed only once it is on disk: whatever an interruption left behind is unlisted, and the
next row overwrites it.
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

__all__ = ["VolumeStore"]

DTYPE = np.dtype("<f2")
"""Scaled CT lies in -2..2, where half precision is exact to half a Hounsfield unit."""

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)


class VolumeStore:
    """Volumes on disk, a row each. Only one process at a time may add to them.

    Args:
        stem: path without suffixes, in an existing folder.
        shape: (I, J, K) of each volume.
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
        """The facts stored under a key, and its "row" if it has a volume."""
        return self._facts[key]

    def check_space(self, rows: int) -> None:
        """Check that the disk has room for this many more rows.

        Raises:
            InputError: it has not.
        """
        if shutil.disk_usage(self._voxels.parent).free < rows * self.row_bytes:
            raise self._too_little_space(rows)

    def add(self, key: str, volume: NDArray[np.float32] | None, **facts: Any) -> None:
        """Append a volume with its facts, or the facts alone.

        Raises:
            InputError: the disk is full; earlier rows stay.
        """
        with self._full_disk_in_one_line():
            if volume is not None:
                self._append(np.ascontiguousarray(volume, dtype=DTYPE))
                facts["row"] = self._rows
            save_json(self._index, self._facts | {key: facts})
        self._facts[key] = facts
        self._rows += volume is not None

    def array(self) -> NDArray[np.float16]:
        """(N, I, J, K): all rows (at least one) as a read-only memory map."""
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
            f"got {free} MB of free disk space in {folder}, expected {needed} MB for {rows} more scans; free some, or "
            "choose another folder for the cache"
        )
