"""Plain numpy: a self-contained .npz, for programs that know no medical format.

| array | shape | |
|---|---|---|
| disp_mm | (3, I, J, K) float32 or float16 | T(p) - p at the voxels p of the fixed grid, RAS+ millimetres |
| affine | (4, 4) float64 | voxel (i, j, k, 1) of the fixed grid to RAS+ millimetres |
| moving_shape, moving_affine | (3,), (4, 4) | the moving grid, if it is known |
"""

from pathlib import Path
from typing import Any

import numpy as np

from corereg.errors import InputError
from corereg.geometry.chain import offsets_mm
from corereg.io.atomic import atomic_path
from corereg.io.images.checks import plausible_grid
from corereg.io.images.npz import npz_arrays
from corereg.io.transforms.formats.common import WORLD, stored_offsets
from corereg.io.transforms.formats.stored import Located, StoredTransform, grid_of

__all__ = ["FIELD_KEY", "read_plain", "write_compact", "write_plain"]

FIELD_KEY = "disp_mm"


def write_plain(path: Path, stored: StoredTransform) -> None:
    """Write all parts as one field."""
    _write(path, stored, np.float32)


def write_compact(path: Path, stored: StoredTransform) -> None:
    """Write all parts as one field in half precision, which rounds a displacement by at most a 2000th of its length."""
    _write(path, stored, np.float16)


def _write(path: Path, stored: StoredTransform, precision: type[np.floating[Any]]) -> None:
    fixed = stored.fixed_grid
    disp_mm = offsets_mm(stored.parts, fixed).astype(precision, copy=False)
    arrays: dict[str, Any] = {FIELD_KEY: disp_mm, "affine": fixed.affine}
    if stored.moving is not None:
        grid = grid_of(stored.moving, "moving", path)
        arrays |= {"moving_shape": np.array(grid.shape), "moving_affine": grid.affine}
    with atomic_path(path) as staged:
        np.savez_compressed(staged, **arrays)


def read_plain(path: Path, fixed: Located | None, moving: Located | None) -> StoredTransform:
    """Read what `write_plain` wrote.

    Raises:
        InputError: the file is damaged, or another kind of .npz.
    """
    arrays = npz_arrays(path)
    try:
        disp_mm, affine = arrays[FIELD_KEY], arrays["affine"].astype(np.float64)
        _, i, j, k = disp_mm.shape
        if disp_mm.dtype.kind not in "iuf":
            raise ValueError("not numbers")
        if moving is None and "moving_shape" in arrays:
            a, b, c = (int(size) for size in arrays["moving_shape"])
            moving = plausible_grid((a, b, c), arrays["moving_affine"].astype(np.float64), str(path))
    except (ValueError, KeyError, TypeError, OverflowError):
        raise InputError(
            f"got {path}, expected an .npz with the arrays disp_mm (3, I, J, K) and affine (4, 4); write it again"
        ) from None
    fixed = fixed or plausible_grid((i, j, k), affine, str(path))
    return stored_offsets(np.moveaxis(disp_mm, 0, -1), fixed, moving, (WORLD, WORLD), path)
