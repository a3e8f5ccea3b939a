"""The interactive viewer of a page: the script (NiiVue, which draws NIfTI volumes with WebGL) and volumes that fit.

Upstream: `sections.scene`. Downstream: `pair`.

R A S canonical axes.
"""

import base64
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int16, Integer, Shaped, UInt8
from scipy import ndimage

from corereg.geometry.grid import Grid
from corereg.io.images.compression import gzipped
from corereg.lazy import nibabel
from corereg.report.pages import asset
from corereg.report.sections.images import structure_colour
from corereg.report.sections.scene import Scene
from corereg.report.sections.windows import CT_WINDOWS_HU, Window

__all__ = ["Viewer", "Volume", "make_viewer"]

BUNDLE, LICENCES = "pages/assets/niivue.umd.js", "pages/assets/LICENCES.txt"
BYTES = 9_000_000
"""Largest size of all volumes together, compressed; base64 adds a third."""
COARSENING = 1.15
"""Smallest factor by which voxels grow at a time, until the volumes fit."""
GREY_LEVELS = 255
CT_RANGE_HU, CT_STEP_HU = (-1024, 2000), 4
"""CTs keep all tissues, for all windows, at a resolution that no eye misses in the narrowest one."""
LEVELS = (-GREY_LEVELS, 4 * GREY_LEVELS)
"""Range of other images, in steps of which their display window has 255."""
OTHER_WINDOWS = {"normal": (0.0, 255.0), "bright parts": (0.0, 765.0), "dark parts": (0.0, 128.0)}
"""Windows of images other than CT, in levels."""
SCANNER = 1
"""NIfTI code of a scanner-based orientation."""


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume of the viewer.

    Args:
        key: "fixed", "before", "warped", "fixed-labels" or "warped-labels".
        title: name on the page.
        data: base64 of a .nii.gz file: HU of a CT, levels of other images, numbers of labels.
        kind: "ct", "other" or "labels".
        low, high: what is black and white at first.
    """

    key: str
    title: str
    data: str
    kind: str
    low: float = 0.0
    high: float = float(GREY_LEVELS)


@dataclass(frozen=True, slots=True)
class Viewer:
    """Everything that the page embeds for the viewer."""

    bundle: str
    """Base64 of the compressed script."""
    licences: str
    """Licences of the script."""
    volumes: tuple[Volume, ...]
    windows: list[tuple[str, float, float]]
    """Windows of the fixed image's kind to choose from: name, black, white."""
    centre: tuple[float, float, float]
    """Starting position, as fractions of the volume along R, A, S: that of the pictures."""
    colours: Mapping[str, Any]
    """NiiVue's colour table for labels."""
    reduced: bool
    """Whether the voxels are larger than those of the scan."""


def make_viewer(scene: Scene, grid: Grid, label_names: Mapping[int, str]) -> Viewer:
    """Reduce the volumes to small integers, as fine as the page can hold."""
    images: dict[str, tuple[str, Shaped[np.ndarray, "R A S"], Window]] = {
        "fixed": ("Fixed", scene.fixed, scene.fixed_window),
        "before": ("Moving, before", scene.moving_before, scene.moving_window),
        "warped": ("Moving, after", scene.warped, scene.moving_window),
    }
    values = {key: _small_integers(volume, window) for key, (_, volume, window) in images.items()}
    colours, ranked = _ranked_labels(scene, label_names)
    canonical, factor = grid.canonical(), 1.0
    while True:
        coarse = {key: _coarser(volume, factor) for key, volume in values.items()}
        coarse |= {key: _coarser(labels, factor, nearest=True) for key, (_, labels) in ranked.items()}
        shape = coarse["fixed"].shape
        affine = _coarse_affine(canonical, shape)
        files = {key: _nifti(volume, affine) for key, volume in coarse.items()}
        size = sum(map(len, files.values()))
        if size <= BYTES:
            break
        # The compressed size falls more slowly than the number of voxels, so one step may not be enough.
        factor *= max(COARSENING, (size / BYTES) ** (1 / 3))
    volumes = [_volume(key, title, files[key], window) for key, (title, _, window) in images.items()]
    volumes += [Volume(key, title, _base64(files[key]), "labels") for key, (title, _) in ranked.items()]
    return Viewer(
        bundle=_base64(gzip.compress(asset(BUNDLE), mtime=0)),
        licences=asset(LICENCES).decode("utf-8"),
        volumes=tuple(volumes),
        windows=_windows(scene.fixed_window),
        centre=_centre(scene),
        colours=colours,
        reduced=factor > 1,
    )


def _volume(key: str, title: str, file: bytes, window: Window) -> Volume:
    if window.is_ct:
        return Volume(key, title, _base64(file), "ct", window.low, window.high)
    return Volume(key, title, _base64(file), "other")


def _windows(first: Window) -> list[tuple[str, float, float]]:
    """Names and limits of the windows to choose from, that of the pictures first."""
    found = [(name.capitalize(), *limits) for name, limits in (CT_WINDOWS_HU if first.is_ct else OTHER_WINDOWS).items()]
    return sorted(found, key=lambda window: window[0] != first.name.capitalize() and first.is_ct)


def _centre(scene: Scene) -> tuple[float, float, float]:
    right, front, head = (
        round((voxel + 0.5) / size, 4) for voxel, size in zip(scene.view.centre_vox, scene.view.shape, strict=True)
    )
    return right, front, head


def _small_integers(volume: Shaped[np.ndarray, "R A S"], window: Window) -> Int16[np.ndarray, "R A S"]:
    """HU of a CT, rounded to steps, or else levels of which the display window has 255."""
    low, high, step = (*CT_RANGE_HU, CT_STEP_HU) if window.is_ct else (*LEVELS, 1)
    found = np.empty(volume.shape, np.int16)
    for plane, source in zip(found, volume, strict=True):  # one at a time, to save memory
        values = np.nan_to_num(np.asarray(source, np.float64), nan=-np.inf)
        if not window.is_ct:
            values = GREY_LEVELS * (values - window.low) / (window.high - window.low)
        plane[...] = step * np.rint(values.clip(low, high) / step)
    return found


def _ranked_labels(
    scene: Scene, names: Mapping[int, str]
) -> tuple[dict[str, Any], dict[str, tuple[str, UInt8[np.ndarray, "R A S"]]]]:
    """Label maps renumbered 1, 2, ..., with titles, and the colour table of the new labels."""
    given = {
        "fixed-labels": ("Fixed", scene.fixed_labels),
        "warped-labels": ("Warped", scene.warped_labels),
    }
    maps = {key: (title, labels) for key, (title, labels) in given.items() if labels is not None}
    known = sorted({int(label) for _, labels in maps.values() for label in np.unique(labels)} - {0})[:GREY_LEVELS]
    rgb = [tuple(bytes.fromhex(structure_colour(label).removeprefix("#"))) for label in known]
    table = [(0, 0, 0, 0), *((*colour, 255) for colour in rgb)]
    colours: dict[str, list[Any]] = {channel: [colour[n] for colour in table] for n, channel in enumerate("RGBA")}
    colours |= {"I": list(range(len(table))), "labels": ["", *(names.get(label, f"Label {label}") for label in known)]}
    ranked = {}
    for key, (title, labels) in maps.items():
        # A byte holds 255 labels; further ones are not drawn.
        place = np.minimum(np.searchsorted(known, labels), len(known) - 1) if known else np.zeros_like(labels)
        found = np.asarray(known or [0])[place] == labels
        ranked[key] = (title, np.where(found & (labels != 0), place + 1, 0).astype(np.uint8))
    return colours, ranked


def _coarser(
    volume: Integer[np.ndarray, "R A S"], factor: float, *, nearest: bool = False
) -> Integer[np.ndarray, "X Y Z"]:
    """The volume with voxels about `factor` times as large: averaged, or the nearest values."""
    if factor == 1:
        return volume
    shape = [max(1, round(n / factor)) for n in volume.shape]
    if not nearest:
        volume = ndimage.uniform_filter(
            volume, [max(1, round(n / m)) for n, m in zip(volume.shape, shape, strict=True)]
        )
    index = [np.rint((np.arange(m) + 0.5) * n / m - 0.5).astype(int) for n, m in zip(volume.shape, shape, strict=True)]
    return np.asarray(volume[np.ix_(*index)])


def _coarse_affine(canonical: Grid, shape: tuple[int, ...]) -> Any:
    """Affine of a grid of `shape` that covers the same box as `canonical`."""
    scale = np.divide(canonical.shape, shape)
    affine = canonical.affine @ np.diag([*scale, 1.0])
    affine[:3, 3] = canonical.to_world(scale / 2 - 0.5)
    return affine


def _nifti(volume: Integer[np.ndarray, "R A S"], affine: Any) -> bytes:
    image = nibabel().Nifti1Image(volume, affine)
    image.set_qform(affine, SCANNER)
    image.set_sform(affine, SCANNER)
    return gzipped(image.to_bytes())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
