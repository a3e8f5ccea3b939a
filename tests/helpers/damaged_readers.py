"""Damaged images and points, and what came of reading them."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import SimpleITK
import zarr

from corereg.geometry.grid import Grid
from corereg.io.images.companions import as_mask
from corereg.io.images.dicom.segmentation import write_segmentation
from corereg.io.images.image import as_image, read_image, read_labels, write_image
from corereg.io.images.reference import as_reference
from corereg.io.images.series import read_series
from corereg.io.points.points import POINT_SUFFIXES, Points, read_points, write_points
from helpers.dicom import write_enhanced, write_patient, write_slices, write_structures
from helpers.fuzz import FAULT, READ, REFUSED, damaged_bytes, damaged_json, damaged_lines, extreme, in_children
from helpers.grids import make_grid
from helpers.images import ramp

GRID = make_grid(shape=(6, 5, 4))
DEPTHS_MM = [3.0 * k for k in range(4)]
POINTS = Points(np.arange(9.0).reshape(3, 3), ["a", "b", "c"])

Damage = Callable[[bytes, np.random.Generator], bytes]


Reader = Callable[[Path, str, int, int], object]
"""Reads one damaged file: the bases' folder, kind, seed, case."""


def print_outcomes(seed: int, cases: int, kinds: Iterable[str], make: Callable[[Path], None], read: Reader) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # In a child too: once ITK has started threads in this process, its children could not use it.
        ((outcome, report),) = in_children(1, lambda _: make(root))
        if outcome != READ:
            raise SystemExit(report)
        for kind in kinds:
            found = in_children(cases, partial(read, root, kind, seed))
            counts = {outcome: sum(1 for each, _ in found if each == outcome) for outcome in (READ, REFUSED, FAULT)}
            faults = [
                f"case {case} of seed {seed}: {report[-2000:]}"
                for case, (outcome, report) in enumerate(found)
                if outcome == FAULT
            ]
            print(json.dumps({"kind": kind, **counts, "faults": faults}), flush=True)


def read_damaged(root: Path, kind: str, seed: int, case: int) -> object:
    """Read a damaged copy in one of the ways that there are, by chance."""
    rng = np.random.default_rng([seed, case, *kind.encode()])
    damaged = lay_damaged_copy(root / kind, root / "damaged", KINDS[kind], rng)
    if damaged.name.endswith(POINT_SUFFIXES):
        return read_points(damaged)
    return READERS[int(rng.integers(len(READERS)))](damaged)


def make_bases(root: Path) -> None:
    """A folder for each kind; the file that is damaged comes first by name."""
    for kind in KINDS:
        (root / kind).mkdir(parents=True)
    write_image(root / "nifti" / "a.nii", ramp(GRID), GRID)
    write_image(root / "nifti-gz" / "a.nii.gz", ramp(GRID), GRID)
    nibabel.Nifti2Image(ramp(GRID), GRID.affine).to_filename(root / "nifti2" / "a.nii")
    nibabel.Nifti1Pair(ramp(GRID), GRID.affine).to_filename(root / "nifti-pair" / "a.hdr")
    nibabel.Nifti1Image(np.stack([ramp(GRID)] * 3, -1), GRID.affine).to_filename(root / "nifti-series" / "a.nii")
    np.savez(root / "npz" / "a.npz", scan=ramp(GRID), affine=GRID.affine)
    np.savez_compressed(root / "npz-packed" / "a.npz", scan=ramp(GRID), affine=GRID.affine)
    image = SimpleITK.GetImageFromArray(ramp(GRID).T)
    for kind, name, packed in ITK_BASES:
        SimpleITK.WriteImage(image, str(root / kind / name), useCompression=packed)
    SimpleITK.WriteImage(SimpleITK.JoinSeries([image, image]), str(root / "mha-series" / "a.mha"))
    write_slices(root / "dicom", ramp(GRID), DEPTHS_MM)
    write_enhanced(root / "dicom-enhanced" / "a.dcm", ramp(GRID), DEPTHS_MM, slopes=[1, 2, 3, 4])
    write_compressed(root / "dicom-jpeg2000" / "a.dcm")
    write_label_objects(root)
    write_ome_zarr(root / "zarr" / "a.ome.zarr")
    for kind, suffix in (("csv", ".csv"), ("fcsv", ".fcsv"), ("markups", ".mrk.json")):
        write_points(root / kind / f"a{suffix}", POINTS)


def write_label_objects(root: Path) -> None:
    """Labels 1 and 2 of a series that is not kept."""
    grid = make_grid(shape=(6, 5, 4), spacing_mm=(2.0, 1.5, 3.0))
    labels = np.zeros(grid.shape, np.uint8)
    labels[1:4, 1:3, 1:], labels[4, 2:4, :2] = 1, 2
    with tempfile.TemporaryDirectory() as folder:
        series = write_patient(Path(folder) / "ct", labels.astype(np.uint16), grid, study="1.2.7", frame="1.2.8")
        write_segmentation(root / "seg" / "a.dcm", labels, read_image(series).grid, sorted(series.iterdir()))
    square = np.array([[1.0, 1.0], [4.0, 1.0], [4.0, 3.0], [1.0, 3.0]])
    write_structures(GRID, root / "structures" / "a.dcm", {1: ("Liver", [(k, square) for k in (1, 2)])})


def write_ome_zarr(path: Path) -> None:
    steps = [{"type": "scale", "scale": [3.0, 1.5, 2.0]}, {"type": "translation", "translation": [40.0, -12.0, 8.0]}]
    sides = {"z": "inferior-to-superior", "y": "anterior-to-posterior", "x": "right-to-left"}
    axes = [
        {"name": name, "type": "space", "unit": "millimeter", "orientation": {"type": "anatomical", "value": side}}
        for name, side in sides.items()
    ]
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    group.create_array("0", data=np.ascontiguousarray(ramp(GRID).T), chunks=(2, 5, 6))
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}],
    }


ITK_BASES = [
    ("nrrd", "a.nrrd", False),
    ("nrrd-gz", "a.nrrd", True),
    ("nhdr", "a.nhdr", False),
    ("mha", "a.mha", False),
    ("mha-gz", "a.mha", True),
    ("mhd", "a.mhd", False),
]


def write_compressed(path: Path) -> None:
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG2000")
    writer.SetFileName(str(path))
    plane = np.arange(40 * 36, dtype=np.uint16).reshape(1, 40, 36)  # smaller ones cannot be encoded
    writer.Execute(SimpleITK.GetImageFromArray(plane))
    data = pydicom.dcmread(path)
    for k in range(4):
        data.SOPInstanceUID = f"1.2.3.{k}"
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 3 * k], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing = [2, 2]
        data.save_as(path.with_name(f"{'abcd'[k]}.dcm"))


def lay_damaged_copy(base: Path, to: Path, damage: Damage, rng: np.random.Generator) -> Path:
    """Copy a base with its first file damaged, or any one in a folder; what is to be read of it."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(base, to)
    first = min(to.iterdir())
    damaged = first
    if first.is_dir():
        files = sorted(file for file in first.rglob("*") if file.is_file())
        damaged = files[int(rng.integers(len(files)))]
    damaged.write_bytes(damage(damaged.read_bytes(), rng))
    return to if base.name.startswith("dicom") else first


def of_header(length: int) -> Damage:
    return lambda content, rng: damaged_bytes(content, rng, within=length)


def of_text(lines: int, *separators: bytes) -> Damage:
    def damage(content: bytes, rng: np.random.Generator) -> bytes:
        if rng.integers(4) == 0:
            return damaged_bytes(content, rng, within=600)
        for _ in range(int(rng.integers(1, 3))):
            content = damaged_lines(content, rng, lines=lines, separators=separators)
        return content

    return damage


def of_nifti(content: bytes, rng: np.random.Generator) -> bytes:
    if rng.integers(3) == 0:
        return damaged_bytes(content, rng, within=360)
    kind = nibabel.Nifti2Header if content[:4] == b"\x1c\x02\0\0" else nibabel.Nifti1Header
    header = kind(content[: kind.sizeof_hdr], check=False)
    for _ in range(int(rng.integers(1, 4))):
        field = str(rng.choice(list(header.keys())))
        values = header[field]
        if values.ndim:
            values[int(rng.integers(len(values)))] = extreme(values.dtype, rng)
        else:
            header[field] = extreme(values.dtype, rng)
    return bytes(header.binaryblock) + content[kind.sizeof_hdr :]


def of_dicom(content: bytes, rng: np.random.Generator) -> bytes:
    return damaged_bytes(content, rng, within=len(content) if rng.integers(4) else 400)


def of_json(content: bytes, rng: np.random.Generator) -> bytes:
    if rng.integers(4) == 0:
        return damaged_bytes(content, rng, within=len(content))
    return damaged_json(content.decode(), rng).encode(errors="surrogatepass")


def of_store(content: bytes, rng: np.random.Generator) -> bytes:
    """Metadata are JSON, chunks are not."""
    return of_json(content, rng) if content[:1] == b"{" else damaged_bytes(content, rng, within=len(content))


KINDS: dict[str, Damage] = {
    "nifti": of_nifti,
    "nifti-gz": of_header(10**6),
    "nifti2": of_nifti,
    "nifti-pair": of_nifti,
    "nifti-series": of_nifti,
    "npz": of_header(10**6),
    "npz-packed": of_header(10**6),
    "nrrd": of_text(12, b": "),
    "nrrd-gz": of_text(12, b": "),
    "nhdr": of_text(13, b": "),
    "mha": of_text(14, b" = "),
    "mha-gz": of_text(15, b" = "),
    "mhd": of_text(14, b" = "),
    "mha-series": of_text(14, b" = "),
    "dicom": of_dicom,
    "dicom-enhanced": of_dicom,
    "dicom-jpeg2000": of_dicom,
    "seg": of_dicom,
    "structures": of_dicom,
    "zarr": of_store,
    "csv": of_text(5, b","),
    "fcsv": of_text(6, b","),
    "markups": of_json,
}


def frames_of(path: Path) -> None:
    series = read_series(path)
    for frame in series.frames() if series else ():
        assert frame.array.size


def resaved(path: Path) -> None:
    image = as_image(path, blank=True)
    write_image(path.parent / "again.nii.gz" if path.is_file() else path / "again.nii.gz", image.array, image)


READERS: list[Callable[[Path], Any]] = [
    *(read_image, read_labels, as_reference, frames_of, resaved),
    lambda path: as_mask(path, like=Grid(GRID.shape, GRID.affine), of="the image"),
    lambda path: read_labels(path, GRID),
]
