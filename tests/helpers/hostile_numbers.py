"""Run by test_hostile_numbers.py as a process of its own: gives NaN, infinite and extreme numbers to every entry.

python -m helpers.hostile_numbers NUMBER...
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from corereg import Image, Transform, convert_transform, register, write_image
from corereg.evaluation.field_files import read_field
from corereg.evaluation.metrics import accuracy, regularity
from corereg.geometry.displacement import (
    Displacement,
    compose,
    inverse_consistent,
    invert,
    jacobian_determinant,
    upsample_displacement,
)
from corereg.geometry.grid import Grid
from corereg.geometry.resample import resample
from corereg.geometry.velocity import exponential, logarithm
from corereg.geometry.warp import sample, sample_labels, warp
from corereg.io.transforms.apply import ImageOptions, apply_to_file
from corereg.io.transforms.formats.registry import FORMATS
from corereg.method.coarse.coupled_convex import match
from corereg.method.config import CoupledConvexConfig, RefineConfig
from corereg.method.features.mind import mind_ssc_half
from corereg.method.features.model_file import save_model
from corereg.method.features.network import random_model
from corereg.method.refine.energy import Compared
from corereg.method.refine.optimise import refine
from helpers.fuzz import FAULT, in_children
from helpers.grids import make_grid
from helpers.scenes import centred_grid, scan, wave

SHAPE = (9, 11, 10)
SMALL = centred_grid((24, 22, 20), (6.0, 6.0, 7.0))

Run = Callable[[Path], object]


def main(numbers: list[float]) -> None:
    cases = list(entries(numbers))
    with tempfile.TemporaryDirectory() as folder:
        found = in_children(len(cases), lambda case: cases[case][1](Path(folder)))
    for (name, _), (outcome, report) in zip(cases, found, strict=True):
        print(json.dumps({"name": name, "outcome": outcome, "report": report[-3000:] if outcome == FAULT else report}))


def entries(numbers: list[float]) -> Iterator[tuple[str, Run]]:
    """Each entry with each number. A result may be NaN; what counts is that there is one, or one line."""
    for number in numbers:
        for name, run in (*TENSORS.items(), *MEASURES.items(), *TRANSFORMS.items(), *FILES.items(), *IMAGES.items()):
            yield f"{name} of {number}", partial(run, number)
    yield "chained matrices of 1e200", lambda folder: chained(1e200)
    yield "chained matrices of 1e8", lambda folder: chained(1e8)


def spoilt(number: float, *shape: int, seed: int = 0, share: float = 0.2) -> torch.Tensor:
    """Small numbers, some of them replaced."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator)
    return torch.where(
        torch.rand(*shape, generator=generator) < share, torch.tensor(number, dtype=torch.float32), values
    )


def disp(number: float, seed: int = 0) -> torch.Tensor:
    return spoilt(number, 1, 3, *SHAPE, seed=seed)


def features(number: float, seed: int = 0) -> torch.Tensor:
    return 0.1 * spoilt(number, 1, 5, *SHAPE, seed=seed)


def coarse(number: float, folder: Path, *, weighted: bool) -> object:
    weights = (spoilt(number, 1, 1, *SHAPE), None) if weighted else (None, None)
    return match(features(number), features(number, 1), CoupledConvexConfig(), weights=weights)


def refined(number: float, folder: Path, *, channels: int) -> object:
    f, m = (0.1 * torch.rand(1, channels, *SHAPE, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    compared = Compared((f, m)) if channels > 1 else Compared(None, (f, m))
    return refine(compared, disp(number), RefineConfig(steps=2))


def refined_features(number: float, folder: Path) -> object:
    compared = Compared((features(number), features(number, 1)))
    return refine(compared, torch.zeros(1, 3, *SHAPE), RefineConfig(steps=2))


TENSORS: dict[str, Callable[[float, Path], object]] = {
    "warp": lambda number, _: warp(features(1.0), disp(number)),
    "sample with an outside value": lambda number, _: sample(features(1.0), disp(number), outside=0.0),
    "sample_labels": lambda number, _: sample_labels(torch.ones(SHAPE, dtype=torch.int64), disp(number)),
    "compose": lambda number, _: compose(disp(number), disp(number, 1)),
    "invert": lambda number, _: invert(disp(number)),
    "inverse_consistent": lambda number, _: inverse_consistent(disp(number), disp(number, 1), steps=3),
    "jacobian_determinant": lambda number, _: jacobian_determinant(disp(number)),
    "upsample_displacement": lambda number, _: upsample_displacement(disp(number), 2, (18, 22, 20), smoothing=2),
    "exponential": lambda number, _: exponential(disp(number)),
    "logarithm": lambda number, _: logarithm(disp(number), disp(number, 1)),
    "mind": lambda number, _: mind_ssc_half(spoilt(number, 1, 1, *SHAPE)),
    "match": partial(coarse, weighted=False),
    "match with weights": partial(coarse, weighted=True),
    "refine from a start": partial(refined, channels=5),
    "refine by correlation from a start": partial(refined, channels=1),
    "refine features": refined_features,
}

LABELS = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 3


def field(number: float) -> np.ndarray:
    return disp(number)[0].numpy()


MEASURES: dict[str, Callable[[float, Path], object]] = {
    "warp_labels": lambda number, _: accuracy.warp_labels(LABELS, field(number)),
    "tre": lambda number, _: accuracy.tre(field(0.5), spoilt(number, 6, 3).numpy(), np.ones((6, 3)), (1.0, 1.0, 2.0)),
    "tre of a field": lambda number, _: accuracy.tre(field(number), np.ones((6, 3)), np.ones((6, 3)), (1.0, 1.0, 2.0)),
    "inverse_consistency": lambda number, _: accuracy.inverse_consistency_mm(
        field(number), field(number), (1.0, 1.0, 2.0)
    ),
    "sdlogj": lambda number, _: regularity.sdlogj(field(number)),
    "fold_percent": lambda number, _: regularity.fold_percent(field(number)),
    "num_foldings": lambda number, _: regularity.num_foldings_l2r(field(number)),
    "ndv_percent": lambda number, _: regularity.ndv_percent(field(number)),
}


@cache
def grid() -> Grid:
    return make_grid(shape=SHAPE)


def transform(number: float) -> Transform:
    return Transform((Displacement(disp(number)[0], grid()), np.eye(4)), fixed=grid(), moving=grid())


def points(number: float, folder: Path) -> object:
    return transform(0.5).apply_points([[1.0, 2.0, 3.0], [number, 0.0, number]])


def apply(number: float, folder: Path, **options: Any) -> object:
    labels = bool(options.get("labels"))
    image = Image(LABELS.astype(np.uint8) if labels else LABELS.astype(np.float32), grid())
    return transform(number).apply(image, **options)


def saved(number: float, folder: Path, *, name: str, suffix: str) -> object:
    out = folder / f"saved{suffix}"
    FORMATS[name].write(out, transform(number).stored())
    return Transform.load(out, fixed=grid(), moving=grid(), source_format=name).apply_points([[1.0, 2.0, 3.0]])


def matrix_of(number: float, folder: Path) -> object:
    matrix = np.eye(4)
    matrix[0, 3] = matrix[1, 2] = number
    return Transform((matrix,), fixed=grid(), moving=grid()).inverse().apply_points([[1.0, 2.0, 3.0]])


def chained(scale: float) -> object:
    one = Transform((np.diag([scale, scale, scale, 1.0]),), fixed=grid(), moving=grid())
    both = one.then(one).then(one).then(one).then(one)
    both.apply_points([[1.0, 2.0, 3.0]])
    both.total_mm()
    both.apply(Image(LABELS.astype(np.float32), grid()))
    return both.inverse().apply(Image(LABELS.astype(np.uint8), grid()), labels=True)


def resampled(number: float, folder: Path, *, labels: bool) -> object:
    """Past the check of a transform's parts."""
    source, parts = (
        LABELS.astype(np.uint8 if labels else np.float32),
        (Displacement(disp(number)[0], grid()), np.eye(4)),
    )
    return resample(source, grid(), grid(), parts, interpolation="linear", labels=labels, outside=0.0)


TRANSFORMS: dict[str, Callable[[float, Path], object]] = {
    "apply_points": points,
    "extrapolated": lambda number, _: transform(0.5).extrapolated([[number, 0.0, 1.0]]),
    "moved points of a transform": lambda number, _: transform(number).apply_points([[1.0, 2.0, 3.0]]),
    "inverse": lambda number, _: transform(number).inverse().apply_points([[1.0, 2.0, 3.0]]),
    "inverse_error": lambda number, _: transform(number).inverse_error(),
    "total_mm": lambda number, _: transform(number).total_mm(),
    "jacobian": lambda number, _: transform(number).jacobian_determinant(),
    "then": lambda number, _: transform(number).then(transform(number)).total_mm(),
    "from_field": lambda number, _: Transform.from_field(field(number), grid()),
    "matrix": matrix_of,
    "apply": apply,
    "apply to labels": partial(apply, labels=True),
    "apply to labels linearly": partial(apply, labels=True, interpolation="linear"),
    "apply by splines": partial(apply, interpolation="bspline"),
    "outside": lambda number, _: apply(0.5, Path(), outside=number),
    "resample": partial(resampled, labels=False),
    "resample labels": partial(resampled, labels=True),
    **{
        f"save as {name}": partial(saved, name=name, suffix=suffix)
        for name, suffix in (
            *(("itk", ".h5"), ("itk-field", ".nii.gz"), ("learn2reg", ".nii.gz"), ("niftyreg", ".nii.gz")),
            *(("fsl", ".nii.gz"), ("numpy", ".npz"), ("ants", "_")),
        )
    },
}  # fmt: skip


def learn2reg(number: float, folder: Path) -> object:
    np.savez(folder / "disp_0001_0002.npz", field(number))
    return Transform.load(folder / "disp_0001_0002.npz", fixed=grid(), moving=grid()).apply_points([[1.0, 2.0, 3.0]])


def evaluated_field(number: float, folder: Path) -> object:
    np.savez(folder / "disp_0001_0002.npz", field(number))
    found = read_field(folder / "disp_0001_0002.npz", grid(), grid())
    regularity.sdlogj(found.own_vox)
    return accuracy.warp_labels(LABELS, found.disp_vox)


def spoilt_h5(number: float, folder: Path, *, inverse: bool) -> object:
    path = folder / "spoilt.h5"
    Transform((Displacement(disp(0.1)[0], grid()),), fixed=grid(), moving=grid()).save(path)
    with h5py.File(path, "r+") as file:
        fields: list[Any] = []
        file.visititems(lambda name, item: fields.append(item) if getattr(item, "size", 0) > 900 else None)
        wanted = [
            item for item in fields if (item.ndim > 1 or "Inverse" in item.name or "corereg" in item.name) == inverse
        ]
        (wanted or fields)[0][..., :1] = number
    loaded = Transform.load(path)
    loaded.inverse().apply_points([[1.0, 2.0, 3.0]])
    return convert_transform(path, folder / "again.nii.gz")


def point_file(number: float, folder: Path, *, suffix: str) -> object:
    text = {np.inf: "1e400", -np.inf: "-1e400"}.get(number, "NaN" if np.isnan(number) else repr(float(number)))
    source = folder / f"points{suffix}"
    source.write_text(POINT_TEXTS[suffix].replace("NUMBER", text))
    return apply_to_file(transform(0.5), source, folder / f"moved{suffix}", ImageOptions(), coordinates="ras")


POINT_TEXTS = {
    ".csv": "x,y,z\n1,2,3\nNUMBER,2,3\n",
    ".fcsv": "# Markups fiducial file version = 4.11\n# CoordinateSystem = RAS\n"
    "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n1,NUMBER,2,3,0,0,0,1,1,1,0,a,,\n",
    ".mrk.json": '{"@schema": "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/'
    'Schema/markups-schema-v1.0.3.json#", "markups": [{"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": '
    '[{"id": "1", "label": "a", "position": [1.0, NUMBER, 2.0]}]}]}',
    ".vtk": "# vtk DataFile Version 4.2\nSPACE=RAS\nASCII\nDATASET POLYDATA\nPOINTS 3 double\n0 0 0 1 NUMBER 0 0 1 1\n"
    "POLYGONS 1 4\n3 0 1 2\n",
    ".ply": "ply\nformat ascii 1.0\nelement vertex 3\nproperty double x\nproperty double y\nproperty double z\n"
    "element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 NUMBER 0\n0 1 1\n3 0 1 2\n",
}  # fmt: skip


def model_file(number: float, folder: Path) -> object:
    made = random_model(0)
    for part in (made.extractor.block1[0], made.head.out4):
        part.weight.data[0, 0, 0, 0, 0] = number
    save_model(folder / "spoilt.safetensors", made)
    return register(*images(), model=str(folder / "spoilt.safetensors"), affine="none", spacing=8.0, refine_steps=2)


FILES: dict[str, Callable[[float, Path], object]] = {
    "Learn2Reg file": learn2reg,
    "evaluated field": evaluated_field,
    "field of an .h5": partial(spoilt_h5, inverse=False),
    "inverse of an .h5": partial(spoilt_h5, inverse=True),
    **{f"points in {suffix}": partial(point_file, suffix=suffix) for suffix in POINT_TEXTS},
    "model file": model_file,
}


@cache
def images() -> tuple[Image, Image]:
    return scan(SMALL), scan(SMALL, wave)


def spoilt_image(number: float, *, share: float) -> Image:
    array = images()[1].array.copy()
    array[np.random.default_rng(0).uniform(size=array.shape) < share] = number
    return Image(array, SMALL)


def registered(number: float, folder: Path, *, share: float, **settings: Any) -> object:
    quick: dict[str, Any] = {"affine": "none", "spacing": 8.0, "refine_steps": 2} | settings
    return register(images()[0], spoilt_image(number, share=share), **quick).warped()


def image_file(number: float, folder: Path) -> object:
    spoilt_one = spoilt_image(number, share=0.01)
    write_image(folder / "spoilt.nii.gz", spoilt_one.array, spoilt_one)
    return transform(0.5).apply(folder / "spoilt.nii.gz")


def masked(number: float, folder: Path) -> object:
    mask = np.where(np.random.default_rng(0).uniform(size=SMALL.shape) < 0.5, number, 1.0)
    return register(*images(), fixed_mask=mask, affine="none", spacing=8.0, refine_steps=2)


IMAGES: dict[str, Callable[[float, Path], object]] = {
    "register an image with one": partial(registered, share=1e-4),
    "register an image with many": partial(registered, share=0.3),
    "register an image with one, aligned": partial(registered, share=1e-4, affine="auto"),
    "register an image with one, as CT": partial(registered, share=1e-4, modality="ct"),
    "register an image with one, by correlation": partial(registered, share=1e-4, similarity="correlation", fine=True),
    "register a flow with one": partial(registered, share=1e-4, parametrisation="diffeomorphic"),
    "register with a mask": masked,
    "apply to an image file": image_file,
}

if __name__ == "__main__":
    main([float(number) for number in sys.argv[1:]])
