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
from jaxtyping import Shaped, UInt8
from scipy import ndimage

from corereg.geometry.grid import Grid
from corereg.io.images.compression import gzipped
from corereg.lazy import nibabel
from corereg.report.pages import asset
from corereg.report.sections.images import structure_colour
from corereg.report.sections.planes import Window
from corereg.report.sections.scene import Scene

__all__ = ["Viewer", "Volume", "make_viewer"]

BUNDLE, LICENCES = "pages/assets/niivue.umd.js", "pages/assets/LICENCES.txt"
BYTES = 9_000_000
"""Largest size of all volumes together, compressed; base64 adds a third."""
COARSENING = 1.15
"""Smallest factor by which voxels grow at a time, until the volumes fit."""
GREY_LEVELS = 255
SCANNER = 1
"""NIfTI code of a scanner-based orientation."""


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume of the viewer.

    Args:
        key: "fixed", "before", "warped", "fixed-labels" or "warped-labels".
        title: name on the page.
        data: base64 of a .nii.gz file with one byte per voxel.
    """

    key: str
    title: str
    data: str


@dataclass(frozen=True, slots=True)
class Viewer:
    """Everything that the page embeds for the viewer."""

    bundle: str
    """Base64 of the compressed script."""
    licences: str
    """Licences of the script."""
    volumes: tuple[Volume, ...]
    centre: tuple[float, float, float]
    """Starting position, as fractions of the volume along R, A, S: that of the pictures."""
    colours: Mapping[str, Any]
    """NiiVue's colour table for labels."""
    reduced: bool
    """Whether the voxels are larger than those of the scan."""


def make_viewer(scene: Scene, grid: Grid, label_names: Mapping[int, str]) -> Viewer:
    """Reduce the volumes to bytes within their display windows, as fine as the page can hold."""
    windows: dict[str, tuple[str, Shaped[np.ndarray, "R A S"], Window]] = {
        "fixed": ("Fixed", scene.fixed, scene.fixed_window),
        "before": ("Moving, before", scene.moving_before, scene.moving_window),
        "warped": ("Moving, after", scene.warped, scene.moving_window),
    }
    bytes_of = {key: _to_bytes(volume, window) for key, (_, volume, window) in windows.items()}
    titles = {key: title for key, (title, _, _) in windows.items()}
    colours, ranked = _ranked_labels(scene, label_names)
    titles |= {key: title for key, (title, _) in ranked.items()}
    canonical, factor = grid.canonical(), 1.0
    while True:
        coarse = {key: _coarser(volume, factor) for key, volume in bytes_of.items()}
        coarse |= {key: _coarser(labels, factor, nearest=True) for key, (_, labels) in ranked.items()}
        shape = coarse["fixed"].shape
        affine = _coarse_affine(canonical, shape)
        files = {key: _nifti(volume, affine) for key, volume in coarse.items()}
        size = sum(map(len, files.values()))
        if size <= BYTES:
            break
        # The compressed size falls more slowly than the number of voxels, so one step may not be enough.
        factor *= max(COARSENING, (size / BYTES) ** (1 / 3))
    return Viewer(
        bundle=_base64(gzip.compress(asset(BUNDLE), mtime=0)),
        licences=asset(LICENCES).decode("utf-8"),
        volumes=tuple(Volume(key, titles[key], _base64(content)) for key, content in files.items()),
        centre=_centre(scene),
        colours=colours,
        reduced=factor > 1,
    )


def _centre(scene: Scene) -> tuple[float, float, float]:
    right, front, head = (
        round((voxel + 0.5) / size, 4) for voxel, size in zip(scene.view.centre_vox, scene.view.shape, strict=True)
    )
    return right, front, head


def _to_bytes(volume: Shaped[np.ndarray, "R A S"], window: Window) -> UInt8[np.ndarray, "R A S"]:
    levels = np.empty(volume.shape, np.uint8)
    for plane, source in zip(levels, volume, strict=True):  # one at a time, to save memory
        plane[...] = np.rint(GREY_LEVELS * window.apply(source))
    return levels


def _ranked_labels(
    scene: Scene, names: Mapping[int, str]
) -> tuple[dict[str, Any], dict[str, tuple[str, UInt8[np.ndarray, "R A S"]]]]:
    """Label maps renumbered 1, 2, ..., with titles, and the colour table of the new labels."""
    given = {
        "fixed-labels": ("Structures of the fixed image", scene.fixed_labels),
        "warped-labels": ("Warped structures", scene.warped_labels),
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


def _coarser(volume: UInt8[np.ndarray, "R A S"], factor: float, *, nearest: bool = False) -> UInt8[np.ndarray, "X Y Z"]:
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


def _nifti(volume: UInt8[np.ndarray, "R A S"], affine: Any) -> bytes:
    image = nibabel().Nifti1Image(volume, affine)
    image.set_qform(affine, SCANNER)
    image.set_sform(affine, SCANNER)
    return gzipped(image.to_bytes())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
