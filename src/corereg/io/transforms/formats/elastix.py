"""elastix: transform parameter files such as TransformParameters.0.txt, and those that they name as their beginning.

A point passes the initial transform first. Matrices are stored row by row as in ITK, but directions column by column.
`elastix_writer` writes them.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.images.checks import plausible_grid
from corereg.io.images.itk import LPS_RAS, LPS_SIGNS
from corereg.io.transforms.formats.itk_field import read_displacement_field
from corereg.io.transforms.formats.itk_parts import parts_of_records
from corereg.io.transforms.formats.itk_records import COMPOSITE, ItkTransform, chained, stated_numbers
from corereg.io.transforms.formats.stored import Located, StoredTransform, grid_of

__all__ = ["FIELD", "FIELD_FILE", "INITIAL", "NONE", "is_elastix", "read_elastix"]

LINE = re.compile(r"\s*\(\s*([A-Za-z]\w*)\s+(.*?)\s*\)\s*(?://.*)?$")
WORD = re.compile(r'"([^"]*)"|(\S+)')

KINDS = {
    "TranslationTransform": "TranslationTransform",
    "EulerTransform": "Euler3DTransform",
    "SimilarityTransform": "Similarity3DTransform",
    "AffineTransform": "AffineTransform",
    "BSplineTransform": "BSplineTransform",
    "RecursiveBSplineTransform": "BSplineTransform",
}
"""elastix's names of transforms, and ITK's of the same."""

FIELD, FIELD_FILE = "DeformationFieldTransform", "DeformationFieldFileName"
"""A displacement field in an image file of its own."""

INITIAL = ("InitialTransformParameterFileName", "InitialTransformParametersFileName")
"""How newer and older versions call the file of the initial transform."""

NONE = "NoInitialTransform"
LONGEST_CHAIN = 20

Parameters = dict[str, list[str]]


def is_elastix(path: Path) -> bool:
    """Whether a text file begins with a parameter, after comments."""
    with open(path, encoding="latin-1") as file:
        lines = (line for line in file if line.strip() and not line.lstrip().startswith("//"))
        return LINE.match(next(lines, "")[:100_000].rstrip("\n")) is not None


def read_elastix(path: Path, fixed: Located | None, moving: Located | None) -> StoredTransform:
    """Read a transform and those that it begins with. A B-spline is sampled where the voxels of the fixed grid arrive.

    Raises:
        InputError: the file is damaged, holds settings of a registration instead of a result, or a transform of another
            kind; or the initial transform is missing or not to be composed.
    """
    parameters = _parameters(path)
    fixed = fixed or _fixed_grid(parameters, path)
    parts = parts_of_records(chained(_chain(parameters, path), path), fixed, path)
    return StoredTransform(parts, fixed, moving)


def _chain(parameters: Parameters, path: Path) -> list[ItkTransform]:
    """The transforms, as ITK would store them in a composite."""
    records = [ItkTransform(COMPOSITE, np.empty(0), np.empty(0))]
    initial = path
    while True:
        records.append(_record(parameters, initial))
        name = next((parameters[key][0] for key in INITIAL if key in parameters), NONE)
        if name == NONE:
            return records
        if parameters.get("HowToCombineTransforms", ["Compose"])[0] != "Compose":
            raise InputError(
                f"got {initial}, whose transforms are to be added, expected them to be composed; see elastix"
            )
        if len(records) > LONGEST_CHAIN:
            raise InputError(f"got {path} with more than {LONGEST_CHAIN} initial transforms in a row; check the files")
        initial = _next_to(path, name, f"got {path}, which begins with {name}")
        parameters = _parameters(initial)


def _next_to(path: Path, name: str, got: str) -> Path:
    """A file that elastix names. Names are often absolute, and of another machine: a result's files lie together."""
    found = path.parent / re.split(r"[\\/]", name)[-1]
    if not found.is_file():
        raise InputError(f"{got}, expected that file next to it; copy it there")
    return found


def _parameters(path: Path) -> Parameters:
    found: Parameters = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        match = LINE.match(line)
        if match is not None:
            found[match[1]] = [quoted or bare for quoted, bare in WORD.findall(match[2])] or [""]
    return found


def _record(parameters: Parameters, path: Path) -> ItkTransform:
    name = parameters.get("Transform", [""])[0]
    if name == FIELD:
        return _field(parameters, path)
    if "TransformParameters" not in parameters and name in KINDS:
        raise InputError(
            f"got {path}, the settings of a registration by elastix, expected its result: TransformParameters.0.txt"
        )
    if name not in KINDS:
        raise InputError(
            f"got {path} with elastix's {name or 'unnamed transform'}, expected one of {', '.join((*KINDS, FIELD))}; "
            f"make a displacement field of it: transformix -def all -tp {path.name} -out FOLDER"
        )
    values = _numbers(parameters, "TransformParameters", path)
    order = 3
    if KINDS[name] == "BSplineTransform":
        order = int(_numbers(parameters, "BSplineTransformSplineOrder", path, [3.0])[0])
        if _numbers(parameters, "GridIndex", path, [0.0]).any() or order not in (1, 2, 3):
            raise InputError(
                f"got {path} with a B-spline of order {order}, expected order 1 to 3 and a grid from index 0; "
                f"make a displacement field of it: transformix -def all -tp {path.name} -out FOLDER"
            )
        lattice = [_numbers(parameters, f"Grid{of}", path) for of in ("Size", "Origin", "Spacing")]
        direction = _direction(parameters, "GridDirection", path)
        fixed = np.concatenate([*lattice, direction.ravel()])
    elif KINDS[name] == "TranslationTransform":
        fixed = np.empty(0)
    else:
        fixed = _numbers(parameters, "CenterOfRotationPoint", path)
        if name == "EulerTransform":
            fixed = np.append(fixed, parameters.get("ComputeZYX", ["false"])[0] == "true")
    suffix = "" if order == 3 else f"_{order}"
    return ItkTransform.of_type(f"{KINDS[name]}_double_3_3{suffix}", values, fixed, path)


def _field(parameters: Parameters, path: Path) -> ItkTransform:
    name = parameters.get(FIELD_FILE, [""])[0]
    disp_mm, located = read_displacement_field(_next_to(path, name, f"got {path}, whose field is {name or 'unnamed'}"))
    grid = grid_of(located, "fixed", path)
    affine = LPS_RAS @ grid.affine
    fixed = np.r_[grid.shape, affine[:3, 3], grid.spacing, (affine[:3, :3] / grid.spacing).ravel()]
    lps = np.moveaxis(disp_mm, 0, -1) * LPS_SIGNS
    return ItkTransform("DisplacementFieldTransform", lps.transpose(2, 1, 0, 3).ravel(), fixed)


def _fixed_grid(parameters: Parameters, path: Path) -> Grid | None:
    if not {"Size", "Spacing", "Origin"} <= parameters.keys():
        return None
    size, spacing, origin = (_numbers(parameters, key, path) for key in ("Size", "Spacing", "Origin"))
    if not size.size == spacing.size == origin.size == 3:
        raise InputError(f"got {path} of {size.size} dimensions, expected 3; give one of volumes")
    affine = np.eye(4)
    affine[:3, :3] = _direction(parameters, "Direction", path) * spacing
    affine[:3, 3] = origin
    i, j, k = (int(n) for n in size)
    return plausible_grid((i, j, k), LPS_RAS @ affine + 0.0, str(path))


def _direction(parameters: Parameters, key: str, path: Path) -> NDArray[np.float64]:
    columns = _numbers(parameters, key, path, np.eye(3).ravel())
    if columns.size != 9:
        raise InputError(f"got {path} with a {key} of {columns.size} numbers, expected 9; write it again")
    return columns.reshape(3, 3).T


def _numbers(
    parameters: Parameters, key: str, path: Path, default: Sequence[float] | NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    if key not in parameters:
        if default is None:
            raise InputError(f"got {path} without {key}, expected a transform of elastix; write it again")
        return np.asarray(default, dtype=np.float64)
    found = stated_numbers(" ".join(parameters[key]), path)
    if not found.size or not np.isfinite(found).all() or np.abs(found).max() > 1e15:
        raise InputError(f"got {path} with {key} {parameters[key][:3]}, expected finite numbers; write it again")
    return found
