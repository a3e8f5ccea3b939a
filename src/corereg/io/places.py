"""Where outputs go: checked before the work whose result they are to hold."""

import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from corereg.errors import InputError

__all__ = [
    "STAGING",
    "check_distinct",
    "check_output",
    "ensure_output_folder",
    "is_special",
    "refuse_to_replace",
    "temporary_folder_in",
]

STAGING = ".corereg-writing-"

FILE_ENDINGS = (".nii", ".gz", ".nrrd", ".mha", ".mhd", ".npz", ".h5", ".tfm", ".json", ".csv", ".html", ".safetensors")
"""No name of a folder ends like this, unless it exists: `-o warped.nii.gz` is a mistake where a folder is expected."""


SECOND_FILES = {".mhd": ".zraw", ".nhdr": ".raw.gz"}
"""Endings of headers, and those of the files to which ITK writes their voxels, compressed."""


def check_output(path: str | os.PathLike[str], *, force: bool = True) -> Path:
    """Check that a file can be written, before the work whose result it is to hold.

    Args:
        force: whether an existing file may be replaced.

    Raises:
        InputError: its folder is missing or not writable, or it is a folder; or a file that must not be replaced.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise InputError(f"got the output {path}, which is a folder, expected a file; add a name to it")
    try:
        os.stat(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"got the output {path}, which cannot be written ({error.strerror}); choose another") from None
    if not is_special(path):
        if not force:
            refuse_to_replace(path.parent, _files_of(path))
        temporary_folder_in(path.parent).rmdir()
    return path


def _files_of(path: Path) -> list[str]:
    """The names of all files that an output may consist of."""
    second = SECOND_FILES.get(path.suffix.lower())
    return [path.name, *([path.stem + second] if second else [])]


def check_distinct(outputs: Iterable[Path | None], inputs: Iterable[Path | None] = ()) -> None:
    """Check that no two outputs of a command are one file, and none is an input of it, even if it may be replaced.

    Raises:
        InputError: two are.
    """
    taken = {os.path.realpath(path): "an input" for path in inputs if path is not None}
    for path in outputs:
        if path is None or is_special(path):
            continue
        place = os.path.realpath(path)
        if place in taken:
            raise InputError(
                f"got the output {path}, which is {taken[place]} of the same command as well, expected a file of its "
                "own; choose another name"
            )
        taken[place] = "an output"


def refuse_to_replace(folder: Path, names: Iterable[str]) -> None:
    """Check that a folder holds none of the files.

    Raises:
        InputError: it does.
    """
    found = [name for name in names if (folder / name).exists()]
    if found:
        raise InputError(
            f"got the output {folder / found[0]}, which exists, expected a new name; choose one, or replace it with "
            "--force"
        )


def ensure_output_folder(path: str | os.PathLike[str]) -> Path:
    """Make the folder `path`, with its parents, unless it exists, and check that files can be written to it.

    Raises:
        InputError: `path` or one of its parents is a file, or it cannot be made or written to.
    """
    path = Path(path)
    if path.name.lower().endswith(FILE_ENDINGS) and not path.exists():
        raise InputError(
            f"got the output folder {path}, which is named like a file, expected a folder; leave the ending out"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(
            f"got the output folder {path}, which is a file or lies in one, expected a folder; choose another"
        ) from None
    except OSError as error:
        raise InputError(
            f"got the output folder {path}, which cannot be made ({error.strerror}); choose another"
        ) from None
    temporary_folder_in(path).rmdir()
    return path


def is_special(path: Path) -> bool:
    """Whether it is a device, a pipe or an open file of the process: what is not replaced but written to."""
    if str(path).startswith(("/dev/std", "/dev/fd/", "/proc/")):
        return True
    return path.exists() and not stat.S_ISREG(path.stat().st_mode)


def temporary_folder_in(folder: Path) -> Path:
    """Make a staging folder; what is left of a killed process's is recognised by its name.

    Raises:
        InputError: the folder is missing or not writable.
    """
    if not folder.is_dir():
        raise InputError(f"got the output folder {folder}, which does not exist; make it first")
    try:
        return Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))
    except OSError as error:
        raise InputError(
            f"got the output folder {folder}, which is not writable ({error.strerror}); choose another"
        ) from None
