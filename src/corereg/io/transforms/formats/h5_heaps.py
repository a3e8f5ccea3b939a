"""Damaged texts in HDF5 files, on which the HDF5 library hangs: an entry without a size is read for ever.

Source: HDF5 File Format Specification 3.0, section III.E, global heap.
"""

import mmap
import re
import struct
from pathlib import Path

from corereg.errors import InputError

__all__ = ["check_heaps"]

HEAP = re.compile(rb"GCOL\x01\x00\x00\x00")
"""Signature, version and reserved bytes of a heap; its size follows."""
HEADER, SIZE, ENTRY = 16, struct.Struct("<Q"), struct.Struct("<HHIQ")
"""Bytes before the entries, and the beginning of each: number, references, reserved, size. ITK writes
sizes of 8 bytes."""
ALIGNED = 8


def check_heaps(path: Path) -> None:
    """Check that the entries of every heap of texts lead to its end.

    Raises:
        InputError: one of them does not.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for heap in HEAP.finditer(content):
            if not _is_sound(content, heap.start()):
                raise InputError(f"got {path}, in which a text is damaged, expected an HDF5 file; write it again")


def _is_sound(content: mmap.mmap, start: int) -> bool:
    if start + HEADER > len(content):
        return False
    end = start + SIZE.unpack_from(content, start + HEADER - SIZE.size)[0]
    place = start + HEADER
    while place + ENTRY.size <= min(end, len(content)):
        number, _, _, size = ENTRY.unpack_from(content, place)
        # Entry 0 is the space that is left, and its size includes its own beginning.
        step = ENTRY.size + -(-size // ALIGNED) * ALIGNED if number else size
        if step < ENTRY.size:
            return False
        place += step
    return bool(place <= end <= len(content))
