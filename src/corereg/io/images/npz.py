"""Archives of numpy: one array with its affine, or a scan of RAD-ChestCT."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.io.images.checks import scalar_volume_shape
from corereg.io.images.sizes import check_compressed_size, check_memory
from corereg.io.images.stored import StoredVolume

__all__ = ["npz_arrays", "read_npz"]

RADCHEST_KEY, AFFINE_KEY = "ct", "affine"

RADCHEST_AXES = np.array([[0.0, 0.0, -0.8], [0.0, -0.8, 0.0], [-0.8, 0.0, 0.0]])
"""RAD-ChestCT: slices run down, rows to the back, columns from right to left, 0.8 mm each."""

MEMBER_SUFFIX = ".npy"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, list[str]]]:
    """The archive and the names of its arrays.

    Raises:
        InputError: opening it, or reading from it inside the block, finds it damaged.
        OSError: the system refuses the file, which says nothing about its content.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive, [name.removesuffix(MEMBER_SUFFIX) for name in archive.namelist()]
        except (InputError, MemoryError):
            raise
        except Exception as error:  # zipfile, its decompressors and numpy raise whatever a damaged archive leads to
            raise InputError(
                f"got {path}, which is damaged or no npz file of plain arrays, expected one of numpy.savez; write it "
                "again"
            ) from error


def npz_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an archive by their names.

    Raises:
        InputError: damaged, not plain arrays, or larger than the memory.
    """
    with _opened(path) as (archive, names):
        return {name: _member(archive, name, path) for name in names}


def read_npz(path: Path) -> StoredVolume:
    """Read one array, optionally with its `affine`, or the `ct` of RAD-ChestCT.

    RAD-ChestCT does not publish its origins: the centre of the volume is put at 0.

    Raises:
        InputError: damaged, not one scalar volume, or larger than the memory.
    """
    with _opened(path) as (archive, names):
        arrays = [name for name in names if name != AFFINE_KEY]
        key = RADCHEST_KEY if RADCHEST_KEY in arrays else arrays[0] if len(arrays) == 1 else None
        array = None if key is None else _member(archive, key, path)
        affine = _member(archive, AFFINE_KEY, path) if AFFINE_KEY in names else None
    if array is None:
        raise InputError(
            f"got {path} with the arrays {names}, expected a single one (and `{AFFINE_KEY}`, 4x4, to RAS mm); "
            "save it alone"
        )
    array = array.reshape(scalar_volume_shape(array.shape, array.dtype, str(path)))
    return StoredVolume(array, _affine(affine, key == RADCHEST_KEY, array.shape, path))


def _member(archive: zipfile.ZipFile, key: str, path: Path) -> NDArray[Any]:
    """One array, after its declared size has been compared with the archive and the memory."""
    name = next(name for name in archive.namelist() if name.removesuffix(MEMBER_SUFFIX) == key)
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("pickled")
    size = check_memory(shape, dtype.itemsize, f"{path} ({key})") if shape else dtype.itemsize
    check_compressed_size(size, archive.getinfo(name).compress_size, f"{path} ({key})")
    with archive.open(name) as stream:
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def _affine(stored: NDArray[Any] | None, radchest: bool, shape: tuple[int, ...], path: Path) -> NDArray[np.float64]:
    if stored is not None:
        if stored.dtype.kind not in "iuf":
            raise InputError(f"got {path} with an affine of {stored.dtype}, expected 4x4 numbers; save it again")
        return np.asarray(stored, dtype=np.float64)
    affine = np.eye(4)
    if radchest:
        affine[:3, :3] = RADCHEST_AXES
        affine[:3, 3] = -RADCHEST_AXES @ ((np.array(shape) - 1) / 2)
    else:
        warn(f"{path}: it has no `{AFFINE_KEY}`, so 1 mm voxels along R, A, S are assumed", stacklevel=2)
    return affine
