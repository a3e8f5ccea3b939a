"""A plain folder of images: each image file, and each sub-folder with a DICOM series, is a scan."""

from pathlib import Path

from corereg.data.layouts.listing import IMAGE_SUFFIXES, Listing, Scan, unique_names, visible
from corereg.io.images.dicom.headers import is_dicom

__all__ = ["list_folder"]


def list_folder(folder: Path) -> Listing:
    """List the scans of a folder; images in sub-folders and hidden files do not count."""
    images = [
        entry for entry in visible(folder, "*") if entry.name.lower().endswith(IMAGE_SUFFIXES) or _is_series(entry)
    ]
    return Listing(
        name=folder.resolve().name,
        layout="folder",
        scans=tuple(Scan(name, image) for name, image in zip(unique_names(images), images, strict=True)),
        training=tuple(range(len(images))),
        label_names={},
    )


def _is_series(folder: Path) -> bool:
    return folder.is_dir() and any(is_dicom(file) for file in sorted(folder.rglob("*")) if file.is_file())
