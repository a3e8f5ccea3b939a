"""ITK's transforms in HDF5, written here since SimpleITK would take four times the space: no compression, float64 only.

Layout: /TransformGroup/0 names the composite; /1, /2, ... are its parts as they were added, each with TransformType,
TransformFixedParameters and TransformParameters. Of a field these are size, origin, spacing and direction, and the
vectors with the component running fastest, then the first voxel axis. Beside it, /corereg holds what ITK has no place
for, the other direction with its error among it: /corereg/inverse/0, 1, ... in the order in which a point passes them,
RAS+ millimetres.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.geometry.chain import Part
from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid
from corereg.io.images.itk import LPS_RAS, LPS_SIGNS
from corereg.io.transforms.formats.common import Located
from corereg.io.transforms.formats.itk_extras import ATTRIBUTE, GROUP, extras_text
from corereg.io.transforms.transform import Transform
from corereg.lazy import h5py

__all__ = ["read_backward", "write_h5"]

INVERSE = f"{GROUP}/inverse"

STATED = {"ITKVersion": "5.4.0", "HDFVersion": "HDF5", "OSName": "any", "OSVersion": "any"}
"""ITK expects these to be there, whatever they say."""

COMPRESSION = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
"""The fastest level; the bytes of floats compress better when sorted by significance."""


def write_h5(path: Path, transform: Transform) -> None:
    """All parts as a composite in float32, and the other direction where the moving grid is known."""
    with h5py().File(path, "w") as file:
        for name, value in STATED.items():
            file[name] = _strings(value)
        file["TransformGroup/0/TransformType"] = _strings("CompositeTransform_float_3_3")
        for number, part in enumerate(reversed(transform.parts), 1):
            _write_itk_part(file.create_group(f"TransformGroup/{number}"), part)
        more: dict[str, Any] = {}
        if transform.moving is not None and transform.fixed is not None:
            inverse = transform.inverse()
            more = {"inverse_names": inverse.names, "inverse_error_mm": asdict(transform.inverse_error(inverse))}
            for number, part in enumerate(inverse.parts):
                _write_part(file, f"{INVERSE}/{number}", part)
        file.require_group(GROUP).attrs[ATTRIBUTE] = extras_text(transform, **more)


def read_backward(path: Path, fixed: Located | None, moving: Located | None) -> Transform | None:
    """The other direction, if it is in the file."""
    with h5py().File(path) as file:
        if INVERSE not in file:
            return None
        group = file[INVERSE]
        parts = tuple(_part(group[str(number)]) for number in range(len(group)))
    return Transform(parts, fixed, moving)


def _write_itk_part(group: Any, part: Part) -> None:
    if isinstance(part, Displacement):
        lps = LPS_RAS @ part.grid.affine
        spacing = np.array(part.grid.spacing)
        vectors = part.disp_mm().numpy() * LPS_SIGNS[:, None, None, None]
        kind, parameters = "DisplacementField", vectors.transpose(3, 2, 1, 0)
        stated = np.concatenate([part.grid.shape, lps[:3, 3], spacing, (lps[:3, :3] / spacing).ravel()])
        group.create_dataset("TransformParameters", data=parameters.ravel(), **COMPRESSION)
    else:
        lps = LPS_RAS @ part @ LPS_RAS
        kind, stated = "Affine", np.zeros(3)
        group["TransformParameters"] = np.concatenate([lps[:3, :3].ravel(), lps[:3, 3]])
    group["TransformFixedParameters"] = stated
    group["TransformType"] = _strings(f"{kind}Transform_float_3_3")


def _write_part(file: Any, name: str, part: Part) -> None:
    if isinstance(part, Displacement):
        dataset = file.create_dataset(name, data=part.disp_mm().numpy(), **COMPRESSION)
        dataset.attrs["affine"] = part.grid.affine
    else:
        file[name] = part


def _part(dataset: Any) -> Part:
    values = np.asarray(dataset)
    if "affine" not in dataset.attrs:
        return values
    _, i, j, k = values.shape
    return Displacement.from_mm(torch.as_tensor(values), Grid((i, j, k), dataset.attrs["affine"]))


def _strings(text: str) -> NDArray[Any]:
    """One string as ITK stores it: an array of one, of variable length."""
    return np.array([text], dtype=h5py().string_dtype("ascii"))
