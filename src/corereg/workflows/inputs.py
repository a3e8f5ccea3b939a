"""The files that a registration starts from: scans kept between the pairs of a batch, and what identifies each file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corereg.io.images.image import Image, as_image
from corereg.kept import kept
from corereg.provenance import hash_files

__all__ = ["identified", "read_scan"]

KEPT_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha", ".npz")
"""Endings of the files that hold a whole scan, which workers of a batch keep."""


def identified(paths: Mapping[str, Path | None], scans: Mapping[str, Image]) -> dict[str, dict[str, Any]]:
    """Path and SHA-256 of every input by its name, and the Series Instance UID of the scans.

    Args:
        scans: the images of those inputs that are scans to register.
    """
    return {
        name: {"path": str(path), "sha256": _content_hash(path)}
        | ({"series": scans[name].series} if name in scans else {})
        for name, path in paths.items()
        if path is not None
    }


def read_scan(path: Path, series: str | None = None) -> Image:
    """Read a scan. A batch keeps those of single files for the next pair, until the file changes."""
    if not (path.name.lower().endswith(KEPT_ENDINGS) and path.is_file()):
        return as_image(path, series=series)
    found = path.stat()
    key = "scan", str(path.absolute()), str(path), found.st_mtime_ns, found.st_size, series
    return kept(key, lambda: as_image(path, series=series))


def _content_hash(path: Path) -> str:
    """SHA-256 of a file, of all files of a folder in the order of their names, or of those with a prefix (ANTs)."""
    if path.is_file():
        return hash_files([path])
    found = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    return hash_files(sorted(each for each in found if each.is_file()))
