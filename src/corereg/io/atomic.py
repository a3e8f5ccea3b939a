"""Outputs appear under their names only when they are complete."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corereg.errors import InputError

__all__ = ["atomic_path", "ensure_output_folder"]


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a place to write `path` to; what was written there takes its name if the block succeeds, else vanishes.

    The place is a file of the same name in a temporary folder beside `path`, so that replacing never crosses file
    systems, the umask decides the permissions, and formats of two files (.mhd + .raw) find each other by name.

    Raises:
        InputError: the folder of `path` is missing or not writable, or `path` is a folder. Before the block runs.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"got the output {path}, which is a folder, expected a file; add a name to it")
    staging = _temporary_folder_in(path.parent)
    try:
        yield staging / path.name
        # The named file goes last: a header that is there implies its data.
        for file in sorted(staging.iterdir(), key=lambda file: file.name == path.name):
            os.replace(file, path.parent / file.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def ensure_output_folder(path: str | os.PathLike[str]) -> Path:
    """Make the folder `path`, with its parents, unless it is there, and check that files can be written to it.

    Raises:
        InputError: `path` or one of its parents is a file, or it cannot be made or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(
            f"got the output folder {path}, which is or lies in a file, expected a folder; choose another"
        ) from None
    except OSError as error:
        raise InputError(
            f"got the output folder {path}, which cannot be made ({error.strerror}), expected one to write to; "
            "choose another"
        ) from None
    _temporary_folder_in(path).rmdir()
    return path


def _temporary_folder_in(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"got the output folder {folder}, which is not there, expected one to write to; make it first")
    try:
        return Path(tempfile.mkdtemp(prefix=".corereg-", dir=folder))
    except OSError as error:
        raise InputError(
            f"got the output folder {folder}, which is not writable ({error.strerror}), expected one to write to; "
            "choose another"
        ) from None
