"""ITK transforms in HDF5. SimpleITK would need four times the space: it writes float64 without compression.

Layout: /TransformGroup/0 names the composite; /1, /2, ... are its parts in the order in which they were added, each
with TransformType, TransformFixedParameters and TransformParameters. For a field these parameters are size, origin,
spacing and direction, and the vectors, with the component running fastest, then the first voxel axis. The group
/corereg holds what ITK has no place for, including the other direction and its error: /corereg/inverse/0, 1, ... are
its parts in the order in which a point passes them, in RAS+ millimetres.
"""

from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.chain import Part, inverse_parts, through
from corereg.geometry.displacement import Displacement
from corereg.geometry.inverse_error import inverse_error
from corereg.io.images.checks import one_line, plausible_grid
from corereg.io.images.itk import LPS_RAS, LPS_SIGNS
from corereg.io.images.sizes import check_compressed_size, check_memory
from corereg.io.transforms.formats.h5_chunks import write_compressed
from corereg.io.transforms.formats.h5_heaps import check_heaps
from corereg.io.transforms.formats.itk_extras import ATTRIBUTE, GROUP, Extras, extras_text, parse_extras
from corereg.io.transforms.formats.itk_records import COMPOSITE, ItkTransform
from corereg.io.transforms.formats.stored import StoredTransform, grid_of
from corereg.lazy import h5py

__all__ = ["ItkFile", "read_h5", "write_h5"]

INVERSE = f"{GROUP}/inverse"

STATED = {"ITKVersion": "5.4.0", "HDFVersion": "HDF5", "OSName": "any", "OSVersion": "any"}
"""ITK requires these, whatever they say."""

PARAMETER_KEYS = (
    ("TransformParameters", "TranformParameters"),
    ("TransformFixedParameters", "TranformFixedParameters"),
)
"""Old versions of ITK misspell them."""


@dataclass(frozen=True, eq=False)
class ItkFile:
    """The content of an ITK transform file.

    Args:
        records: the transforms in the order of the file.
        extras: what this package adds to them.
        backward: the parts of the other direction, if the file holds it.
    """

    records: tuple[ItkTransform, ...]
    extras: Extras
    backward: tuple[Part, ...] | None = None


def write_h5(path: Path, stored: StoredTransform) -> None:
    """Write all parts as a composite in float32, and the other direction if both grids are known."""
    # In memory first: HDF5 crashes on a full disk.
    content = BytesIO()
    with h5py().File(content, "w") as file:
        for name, value in STATED.items():
            file[name] = _strings(value)
        file["TransformGroup/0/TransformType"] = _strings("CompositeTransform_float_3_3")
        for number, part in enumerate(reversed(stored.parts), 1):
            _write_itk_part(file.create_group(f"TransformGroup/{number}"), part)
        more: dict[str, Any] = {}
        if stored.moving is not None and stored.fixed is not None:
            names, inverse = stored.backward_names, stored.backward_parts
            if inverse is None:
                names, inverse = stored.names[::-1], inverse_parts(stored.parts)
            maps = partial(through, stored.parts), partial(through, inverse)
            error = inverse_error(*maps, stored.fixed_grid, grid_of(stored.moving, "moving"))
            more = {"inverse_names": names, "inverse_error_mm": asdict(error)}
            for number, part in enumerate(inverse):
                _write_part(file, f"{INVERSE}/{number}", part)
        file.require_group(GROUP).attrs[ATTRIBUTE] = extras_text(stored, **more)
    path.write_bytes(content.getbuffer())


def read_h5(path: Path) -> ItkFile:
    """Read the transforms of an HDF5 file, and what this package adds to them.

    Raises:
        InputError: the file is damaged.
    """
    try:
        check_heaps(path)
        with h5py().File(path) as file:
            names = sorted((int(name), name) for name in file["TransformGroup"])
            records = tuple(_record(file[f"TransformGroup/{name}"], path) for _, name in names)
            extras = parse_extras(str(file[GROUP].attrs[ATTRIBUTE]), path) if GROUP in file else Extras()
            return ItkFile(records, extras, _backward(file, path))
    except InputError:
        raise
    except Exception as error:  # h5py raises a dozen kinds, all of which mean the same to the user
        raise InputError(
            f"got {path}, which cannot be read ({one_line(error)}), expected an ITK transform in HDF5; write it again"
        ) from None


def _record(group: Any, path: Path) -> ItkTransform:
    kind = _numbers_or_text(group["TransformType"], path).ravel()[0]
    name = kind.decode("latin-1") if isinstance(kind, bytes) else str(kind)
    if name.startswith(COMPOSITE):
        return ItkTransform(COMPOSITE, np.empty(0), np.empty(0))
    parameters, fixed = (
        _numbers_or_text(next(group[key] for key in keys if key in group), path).ravel() for keys in PARAMETER_KEYS
    )
    return ItkTransform.of_type(name, parameters, fixed, path)


def _backward(file: Any, path: Path) -> tuple[Part, ...] | None:
    if INVERSE not in file:
        return None
    group = file[INVERSE]
    return tuple(_part(group[str(number)], path) for number in range(len(group)))


def _part(dataset: Any, path: Path) -> Part:
    values = _numbers_or_text(dataset, path)
    if not np.isfinite(values).all():
        raise InputError(f"got {path} with NaN or infinite numbers in its inverse, expected finite ones; make it again")
    if "affine" not in dataset.attrs:
        return values.astype(np.float64)
    components, i, j, k = values.shape
    if components != 3:
        raise ValueError(f"{components} components in the inverse")
    grid = plausible_grid((i, j, k), np.asarray(dataset.attrs["affine"], dtype=np.float64), str(path))
    return Displacement.from_mm(torch.as_tensor(values.astype(np.float32)), grid)


def _numbers_or_text(dataset: Any, path: Path) -> NDArray[Any]:
    """The content of a dataset, whose size is compared with the file and the memory first."""
    if dataset.external or dataset.is_virtual:
        raise InputError(f"got {path}, which refers to other files, expected all data in it; write it again")
    if dataset.size == 0:  # the fixed parameters of a translation
        return np.asarray(dataset[()])
    size = check_memory(dataset.shape or (1,), dataset.dtype.itemsize, str(path))
    check_compressed_size(size, dataset.id.get_storage_size(), str(path))
    return np.asarray(dataset[()])


def _write_itk_part(group: Any, part: Part) -> None:
    if isinstance(part, Displacement):
        lps = LPS_RAS @ part.grid.affine
        spacing = np.array(part.grid.spacing)
        vectors = part.disp_mm().numpy() * LPS_SIGNS[:, None, None, None]
        kind, parameters = "DisplacementField", vectors.transpose(3, 2, 1, 0)
        stated = np.concatenate([part.grid.shape, lps[:3, 3], spacing, (lps[:3, :3] / spacing).ravel()])
        write_compressed(group, "TransformParameters", parameters.ravel())
    else:
        lps = LPS_RAS @ part @ LPS_RAS
        kind, stated = "Affine", np.zeros(3)
        group["TransformParameters"] = np.concatenate([lps[:3, :3].ravel(), lps[:3, 3]])
    group["TransformFixedParameters"] = stated
    group["TransformType"] = _strings(f"{kind}Transform_float_3_3")


def _write_part(file: Any, name: str, part: Part) -> None:
    if isinstance(part, Displacement):
        dataset = write_compressed(file, name, part.disp_mm().numpy())
        dataset.attrs["affine"] = part.grid.affine
    else:
        file[name] = part


def _strings(text: str) -> NDArray[Any]:
    """A string as ITK stores it: an array of one element of variable length."""
    return np.array([text], dtype=h5py().string_dtype("ascii"))
