"""A submission in a zip file, opened like a folder of fields, so that it can be scored before it is uploaded.

Upstream: the path that a user gave. Downstream: `evaluate`, `submission`.
"""

import errno
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corereg.errors import InputError

__all__ = ["opened_fields"]


@contextmanager
def opened_fields(path: Path) -> Iterator[Path]:
    """The folder of fields; of a zip file, a temporary folder with its content.

    Raises:
        InputError: neither a folder nor a zip file; the archive is damaged, larger than the free disk, or keeps its
            files in a folder, where a challenge does not find them.
        OSError: the system cannot read or unpack it, which says nothing about its content.
    """
    if path.is_dir():
        yield path
        return
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path} is neither a folder nor a zip file; give the folder that holds the displacement fields, or a "
            "submission"
        )
    with tempfile.TemporaryDirectory() as place:
        try:
            with zipfile.ZipFile(path) as archive:
                _check(path, archive, Path(place))
                archive.extractall(place)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # zipfile and its decompressors raise whatever a damaged archive leads to
            # A full disk says nothing about the archive; EINVAL comes of a damaged position in it.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            raise InputError(f"got {path}, expected a readable zip file ({error}); pack it again") from None
        yield Path(place)


def _check(path: Path, archive: zipfile.ZipFile, place: Path) -> None:
    files = [member for member in archive.infolist() if not member.is_dir()]
    nested = [member.filename for member in files if "/" in member.filename or "\\" in member.filename]
    if nested:
        raise InputError(
            f"got {path} with {len(nested)} of {len(files)} files in a folder, such as {nested[0]}, expected all "
            "fields at the top of the archive; pack the files without their folder"
        )
    needed, free = sum(member.file_size for member in files), shutil.disk_usage(place).free
    if needed > free:
        raise InputError(
            f"got {path}, which unpacks to {needed / 1e9:.1f} GB, expected at most the {free / 1e9:.1f} GB that are "
            f"free at {place.parent}; free some, or set TMPDIR"
        )
