"""A cohort on one working grid: aligned, scaled and kept on disk. Training maps it into memory and opens no scan again.

A cache folder holds the findings about each scan (`inspection`) and, for each way of preparing scans, their voxels
(`volume_store`) in `volumes-<key>`, where <key> hashes everything that decides the voxels except the scan itself.
"""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from corereg.data.pairs import Dataset, Scan
from corereg.errors import InputError
from corereg.geometry.grid import Grid, Matrix
from corereg.io.images.image import read_image
from corereg.io.places import ensure_output_folder
from corereg.method.affine.align import align
from corereg.method.affine.coarse_copies import CoarseCopy, coarse_copy
from corereg.preprocessing.detection import agree, find_intensities
from corereg.preprocessing.intensity import normalise
from corereg.preprocessing.modality import MODALITIES
from corereg.preprocessing.working_grid import choose_working_grid, field_of_view, resample_image
from corereg.progress import Step
from corereg.training.scans.inspection import Finding, inspect_scans
from corereg.training.scans.volume_store import VolumeStore

__all__ = ["Volumes", "prepare_volumes"]

ROWS_VERSION = 2
"""Increment when the same scans and settings give different voxels."""

MOST_VOXELS = 2_000_000
"""Size up to which a cohort's spacing follows its scans below 2 mm: each training step costs seconds for a million."""

SMALL_VOXELS = 125_000
"""Size up to which scans can afford a grid of half their spacing, on which label maps are learned better."""

LARGEST_FACTOR = 4.0
"""Largest ratio of a scan's extent along R, A or S to the cohort's median, and of the median to the extent. Fields of
view of one body part differ by a factor of 2 to 3; beyond 4 it is another part, or the header's spacing is wrong."""

SEED = 0
"""Seed of the pre-alignment's samples: a cohort does not depend on the training's seed."""

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, eq=False)
class Volumes:
    """A cohort on its working grid."""

    grid: Grid
    """Working grid; its sizes are multiples of 16."""
    array: NDArray[np.float16]
    """(N, I, J, K), scaled intensities in a read-only memory map. Rows that `rows` does not name belong to scans that
    were not requested or have changed since."""
    rows: Mapping[int, int]
    """Row of each scan, by its index in `Dataset.scans`; skipped scans have none."""
    skipped: tuple[tuple[str, str], ...]
    """Name of each skipped scan, and the reason in one line."""
    modality: str
    """How intensities are scaled: "ct", "ct-abdomen" or "mr", or "mixed" if scans differ."""
    grids: Mapping[int, Grid]
    """Each scan's own grid, by the scan's index."""
    affines: Mapping[int, Matrix]
    """(4, 4), working grid's world to scan's world, by the scan's index; the identity for a scan used as it lies."""
    fingerprint: str
    """SHA-256 of the scans' contents, in order, and of the settings. Names and locations of files do not count."""
    field_of_view: tuple[int, int, int]
    """Size of the part of the grid, from voxel 0, that is not padding."""

    def image(self, row: int) -> Tensor:
        """The volume in a row, (1, 1, I, J, K) float32."""
        return torch.from_numpy(self.array[row].astype(np.float32))[None, None]


def prepare_volumes(
    dataset: Dataset,
    *,
    folder: Path,
    spacing_mm: float | None = None,
    finer: bool = False,
    modality: str = "auto",
    affine: str = "auto",
    scans: Iterable[int] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Volumes:
    """Bring each scan to one working grid, once, or take it from the cache.

    The grid is that of the scan of median volume. Scans that all lie on one grid are used as they lie; otherwise each
    is pre-aligned to that scan, as `register` does with a pair, so that n scans take n alignments.

    Args:
        folder: the cache, created if missing. Several processes may share it.
        spacing_mm: voxel size of the working grid; `choose_working_grid` chooses it by default.
        finer: halve the chosen spacing of scans of at most `SMALL_VOXELS` on the grid.
        modality: one of MODALITIES; "auto" decides for each scan.
        affine: "auto", or "none" to trust the headers.
        scans: indices of the scans to prepare; by default those of all pairs.
        progress: called with a line before each scan that is not in the cache.

    Raises:
        InputError: an unknown setting, fewer than two usable scans, a folder that cannot be written to, a full disk.
    """
    for name, value, allowed in (("modality", modality, MODALITIES), ("affine", affine, ("auto", "none"))):
        if value not in allowed:
            raise InputError(f"got {name} {value!r}, expected one of {', '.join(allowed)}; choose one")
    progress = progress or (lambda line: None)
    if scans is None:
        scans = (scan for pair in dataset.training + dataset.validation for scan in pair)
    wanted = {index: dataset.scans[index] for index in sorted(set(scans))}
    folder = ensure_output_folder(folder)
    with _locked(folder, progress):
        findings = dict(zip(wanted, inspect_scans(list(wanted.values()), folder, progress), strict=True))
        problems = {index: found.problem for index, found in findings.items() if found.problem is not None}
        problems |= _odd_sizes(findings, wanted)
        _check_number(wanted, problems)
        usable = {index: found for index, found in findings.items() if index not in problems}
        plan = _plan(wanted, usable, spacing_mm, modality, affine, finer=finer)
        store = VolumeStore(folder / f"volumes-{plan.key[:16]}", plan.grid.shape)
        _fill(store, plan, progress)
    facts = {index: store[content] for index, content in plan.contents.items()}
    problems |= {index: fact["problem"] for index, fact in facts.items() if "problem" in fact}
    _check_number(wanted, problems)
    used = [index for index in plan.scans if index not in problems]
    modalities = {plan.modalities[index] for index in used}
    return Volumes(
        grid=plan.grid,
        array=store.array(),
        rows={index: facts[index]["row"] for index in used},
        skipped=tuple((wanted[index].name, problems[index]) for index in sorted(problems)),
        modality=modalities.pop() if len(modalities) == 1 else "mixed",
        grids={index: grid for index, grid in _grids(usable).items() if index in used},
        affines={index: np.array(facts[index]["affine"]) for index in used},
        fingerprint=_sha256([plan.key, *(plan.contents[index] for index in used)]),
        field_of_view=field_of_view(plan.reference_grid, plan.grid),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How each scan is prepared, and what all share."""

    scans: Mapping[int, Scan]
    contents: Mapping[int, str]
    """Hash of each scan's content, the key of its row."""
    modalities: Mapping[int, str]
    grid: Grid
    reference: int
    reference_grid: Grid
    aligned: bool
    """Whether scans are aligned to the reference."""
    key: str
    """Hash of everything but the scans that decides the voxels."""


def _plan(
    scans: Mapping[int, Scan],
    findings: Mapping[int, Finding],
    spacing_mm: float | None,
    modality: str,
    affine: str,
    *,
    finer: bool,
) -> _Plan:
    grids = _grids(findings)
    # Ties are broken by content, so that the order of the scans does not matter.
    by_volume = sorted(grids, key=lambda index: (math.prod(grids[index].extent_mm), findings[index].sha256))
    reference = by_volume[len(by_volume) // 2]
    grid = grids[reference]
    # Unlimited memory: a cohort's grid must not depend on what happens to be free at this start.
    choose = partial(choose_working_grid, grid, grid, memory_bytes=sys.maxsize, most_voxels=MOST_VOXELS)
    working = choose(spacing_mm=spacing_mm)
    if finer and spacing_mm is None and math.prod(field_of_view(grid, working)) <= SMALL_VOXELS:
        working = choose(spacing_mm=min(working.spacing) / 2)
    aligned = affine == "auto" and not all(grid.close_to(other) for other in grids.values())
    modalities = dict.fromkeys(findings, modality)
    if modality == "auto":
        agreed = agree([found.intensities for found in findings.values()], [scans[index].name for index in findings])
        modalities = {index: each.modality for index, each in zip(findings, agreed, strict=True)}
    # What a doubtful scan is taken for depends on the others.
    settled = sorted((found.sha256, modalities[i]) for i, found in findings.items() if not found.intensities.certain)
    aligned_to = findings[reference].sha256 if aligned else None
    return _Plan(
        scans={index: scans[index] for index in findings},
        contents={index: found.sha256 for index, found in findings.items()},
        modalities=modalities,
        grid=working,
        reference=reference,
        reference_grid=grid,
        aligned=aligned,
        key=_sha256([ROWS_VERSION, working.shape, working.affine.tolist(), modality, settled, aligned_to]),
    )


def _fill(store: VolumeStore, plan: _Plan, progress: Callable[[str], None]) -> None:
    """Add the missing rows. A scan that turns out to be unusable is remembered with its problem."""
    # By content, as two files may hold the same scan.
    missing = {content: index for index, content in plan.contents.items() if content not in store}
    store.check_space(len(missing))
    fixed = None
    if plan.aligned and missing:
        image = read_image(plan.scans[plan.reference].image)
        fixed = coarse_copy(image, find_intensities([image], plan.modalities[plan.reference])[0])
    for number, (content, index) in enumerate(missing.items(), start=1):
        name = plan.scans[index].name
        progress(Step(f"preparing scan {number} of {len(missing)}: {name}", number - 1, len(missing)))
        try:
            volume, matrix = _prepared(plan, index, fixed)
        except InputError as error:
            store.add(content, None, problem=str(error))
        else:
            store.add(content, volume, affine=matrix.tolist())


def _prepared(plan: _Plan, index: int, fixed: CoarseCopy | None) -> tuple[NDArray[np.float32], Matrix]:
    """The scan on the working grid (I, J, K), scaled, and the map from the grid's world to the scan's."""
    scan = plan.scans[index]
    image, matrix = read_image(scan.image), np.eye(4)
    intensities = find_intensities([image], plan.modalities[index])[0]
    if fixed is not None and index != plan.reference:
        matrix = align(fixed, coarse_copy(image, intensities), seed=SEED).affine
    if not plan.grid.overlaps(image.grid, matrix):
        raise InputError(
            f"{scan.name} does not overlap {plan.scans[plan.reference].name} in world coordinates; check its header, "
            "or leave the affine pre-alignment on"
        )
    volume, _ = resample_image(image.array, image.grid, plan.grid, affine=matrix, device=CPU)
    return normalise(volume, intensities.modality, intensities.offset_hu)[0, 0].numpy(), matrix


def _grids(findings: Mapping[int, Finding]) -> dict[int, Grid]:
    return {index: found.grid for index, found in findings.items() if found.grid is not None}


def _odd_sizes(findings: Mapping[int, Finding], scans: Mapping[int, Scan]) -> dict[int, str]:
    extents = {index: np.array(grid.canonical().extent_mm) for index, grid in _grids(findings).items()}
    usual = np.median(list(extents.values()), axis=0) if extents else np.zeros(3)
    return {
        index: f"got {scans[index].name} of {_millimetres(extent)}, expected at most {LARGEST_FACTOR:g} times more or "
        f"less than the cohort's median, {_millimetres(usual)}; check its spacing, or crop it to the same anatomy"
        for index, extent in extents.items()
        if np.abs(np.log(extent / usual)).max() > math.log(LARGEST_FACTOR)
    }


def _millimetres(extent: NDArray[np.float64]) -> str:
    return " x ".join(f"{x:.0f}" for x in extent) + " mm"


def _check_number(wanted: Mapping[int, Scan], problems: Mapping[int, str]) -> None:
    left = len(wanted) - len(problems)
    if left < 2:
        first = f" First problem: {next(iter(problems.values()))}" if problems else ""
        raise InputError(
            f"got {left} usable scans of {len(wanted)}, expected at least two; add more, or repair these.{first}"
        )


def _sha256(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@contextmanager
def _locked(folder: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """One process at a time fills a cache; the others wait and then find it filled."""
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting for another process that prepares scans in {folder}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
