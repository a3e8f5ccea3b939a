"""A plain folder of images: each file, and each sub-folder with a DICOM series, is a scan."""

from pathlib import Path

from corereg.data.layouts.listing import IMAGE_SUFFIXES, Listing, Scan, unique_names

__all__ = ["list_folder"]

PREAMBLE_BYTES, MAGIC = 128, b"DICM"


def list_folder(folder: Path) -> Listing:
    """Images of sub-folders do not count, nor do hidden files."""
    images = [
        entry
        for entry in sorted(folder.iterdir())
        if not entry.name.startswith(".") and (entry.name.lower().endswith(IMAGE_SUFFIXES) or _is_series(entry))
    ]
    return Listing(
        name=folder.resolve().name,
        layout="folder",
        scans=tuple(Scan(name, image) for name, image in zip(unique_names(images), images, strict=True)),
        training=tuple(range(len(images))),
        label_names={},
    )


def _is_series(folder: Path) -> bool:
    return folder.is_dir() and any(_is_dicom(file) for file in sorted(folder.rglob("*")) if file.is_file())


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(PREAMBLE_BYTES)
        return file.read(len(MAGIC)) == MAGIC
