"""Outputs appear under their names only when they are complete, and all files of a set together.

Files are written into a staging folder next to their place and moved from there: a single file by one rename. A set of
files is published in two steps, so that a process killed at any moment neither mixes old and new files nor loses the
new ones: a rename gives the staging folder a fixed name, from then on the set counts as written; then the old files are
removed and the new ones moved to their places. Whoever next reads or writes in the folder finishes that (`settle`), and
removes the staging folders of killed processes. Live ones are locked. Where a file system has no locks, as some between
machines, a folder that looks abandoned is named and left: a process on another machine may be writing to it.
"""

import errno
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from corereg.errors import InputError
from corereg.io.places import STAGING, check_output, ensure_output_folder, is_special, temporary_folder_in

__all__ = ["STAGING", "atomic_folder", "atomic_path", "atomic_tree", "output_folder", "settle", "staging"]

PENDING = ".corereg-written"
PLAN = ".corereg-plan.json"
PLACE_OF_THE_OLD = ".corereg-replaced"

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PROBE_BYTES = 2**20
"""Written to find out whether the disk is full, after a library that does not say why it failed."""

DAY_S = 24 * 3600.0
"""Age from which a staging folder without a lock looks abandoned."""

PATIENCE_S = 10.0
"""How long a set is waited for that another process is moving to its places."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a place to write `path` to; what was written there takes its name if the block succeeds, else vanishes.

    The place is a file of the same name in a staging folder, so that the umask decides the permissions, and formats of
    two files (.mhd + .raw) find each other by name. Links are followed, and devices and pipes written to.

    Raises:
        InputError: the folder of `path` is missing or not writable, or `path` is a folder, before the block runs; or
            the disk is full.
    """
    path = check_output(path)
    if is_special(path):
        with tempfile.TemporaryDirectory() as elsewhere, _space_for(path, Path(elsewhere)):
            yield Path(elsewhere) / path.name
            path.write_bytes((Path(elsewhere) / path.name).read_bytes())
        return
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    with _locked_staging(target.parent) as (folder, alone), _space_for(path, folder):
        yield folder / path.name
        # The named file goes last: a header that is there implies its data.
        names = sorted((file.name for file in folder.iterdir()), key=lambda name: name == path.name)
        if len(names) > 1 and target == path:
            _publish(folder, path.parent, alone, names)
            return
        for name in names[:-1]:
            shutil.move(folder / name, path.parent / name)
        os.replace(folder / path.name, target)


@contextmanager
def atomic_folder(path: Path, *, last: str, obsolete: Sequence[str] = ()) -> Iterator[Path]:
    """Give a place to write a set of files to; they take their places in the folder `path` together, or vanish.

    Args:
        last: the file of the set that tells others that it is complete.
        obsolete: files of an earlier set that are removed if this one does not have them.
    """
    with _locked_staging(path) as (folder, alone), _space_for(path, folder):
        yield folder
        names = sorted((file.name for file in folder.iterdir()), key=lambda name: name == last)
        _publish(folder, path, alone, names, [name for name in obsolete if name not in names])


@contextmanager
def atomic_tree(path: Path) -> Iterator[Path]:
    """Give a place to write the folder `path` to; if the block succeeds, it takes the place of an earlier one.

    The earlier folder returns if the new one cannot be moved. A process killed between the two moves loses both.
    """
    with _locked_staging(path.parent) as (folder, _), _space_for(path, folder):
        yield folder / path.name
        replaced = path.exists()
        if replaced:
            os.replace(path, folder / PLACE_OF_THE_OLD)
        try:
            os.replace(folder / path.name, path)
        except OSError:
            if replaced:
                os.replace(folder / PLACE_OF_THE_OLD, path)
            raise


@contextmanager
def output_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Make a folder as `ensure_output_folder` does; what of it and its parents is new and empty vanishes on failure."""
    path = Path(path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield ensure_output_folder(path)
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # it holds something
                folder.rmdir()
        raise


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A temporary folder in `folder`, removed at the end, or by the next process if this one is killed."""
    with _locked_staging(folder) as (made, _):
        yield made


def settle(folder: str | os.PathLike[str]) -> None:
    """Move the files of a set to their places that a killed process had written but not yet moved.

    Called before files are read from a folder. A set that another process is moving just now is waited for.

    Raises:
        InputError: the files cannot be moved, or another process does not get done.
    """
    pending = Path(folder) / PENDING
    end = time.monotonic() + PATIENCE_S
    while pending.is_dir():
        lock, known = _lock(pending)
        if known and lock is None and time.monotonic() < end:
            time.sleep(0.01)
            continue
        try:
            if known and lock is None:
                raise InputError(f"another command has been moving its files into {folder} for long; wait for its end")
            _finish(pending, alone=known)
        except OSError as error:
            raise InputError(
                f"an interrupted command left files of its result in {pending}, and they cannot be moved to their "
                f"places ({error.strerror}); move them, or repeat that command"
            ) from None
        finally:
            _release(lock)


def _publish(made: Path, folder: Path, alone: bool, names: Sequence[str], obsolete: Sequence[str] = ()) -> None:
    (made / PLAN).write_text(json.dumps({"names": list(names), "obsolete": list(obsolete)}))
    pending = folder / PENDING
    settle(folder)
    os.replace(made, pending)
    _finish(pending, alone=alone)


def _finish(pending: Path, *, alone: bool) -> None:
    """Move a published set to its places. May be repeated after it was interrupted.

    Args:
        alone: whether no other process can be doing the same.
    """
    try:
        plan = json.loads((pending / PLAN).read_text("utf-8"))
    except FileNotFoundError:  # all has been moved, and this folder is being removed
        plan = {"names": [], "obsolete": []}
    folder = pending.parent
    waiting = [name for name in plan["names"] if (pending / name).exists()]
    # Old files go before new ones come. The last name says that a set is complete: it goes first and comes last.
    for name in (*(reversed(waiting) if alone else ()), *plan["obsolete"]):
        (folder / name).unlink(missing_ok=True)
    for name in waiting:
        with suppress(FileNotFoundError):
            os.replace(pending / name, folder / name)
    with suppress(FileNotFoundError):
        shutil.rmtree(pending)


@contextmanager
def _locked_staging(folder: Path) -> Iterator[tuple[Path, bool]]:
    """A staging folder, and whether its lock keeps other processes from it."""
    settle(folder)
    _clean(folder)
    while True:
        made = temporary_folder_in(folder)
        lock, known = _lock(made)
        if not known or (lock is not None and made.exists()):
            break
        _release(lock)  # another process took it for abandoned, before it was locked
    try:
        yield made, known
    finally:
        shutil.rmtree(made, ignore_errors=True)
        _release(lock)


@cache
def _clean(folder: Path) -> None:
    """Remove what killed processes left, or name it. Once in a process: large folders take long to look through."""
    for abandoned in folder.glob(f"{STAGING}*"):
        lock, known = _lock(abandoned)
        if lock is not None:
            shutil.rmtree(abandoned, ignore_errors=True)
            _release(lock)
        elif not known and _age_s(abandoned) > DAY_S:
            warnings.warn(
                f"{abandoned} is more than a day old and probably left by a command that was killed; remove it, unless "
                "one still runs",
                stacklevel=2,
            )


def _age_s(path: Path) -> float:
    """Seconds since something was made or removed in a folder; 0 if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _lock(folder: Path) -> tuple[int | None, bool]:
    """A descriptor that holds the folder's lock unless another process does; and whether locks work there."""
    if sys.platform == "win32":
        return None, False
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None, True
    except OSError:
        return None, False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        return None, isinstance(error, BlockingIOError)
    return descriptor, True


def _release(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


@contextmanager
def _space_for(path: Path, folder: Path) -> Iterator[None]:
    """Say so where writing fails because the disk is full."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not _is_full(error, folder):
            raise
        place = path.parent.parent / path.name if path.parent.name.startswith(STAGING) else path
        raise InputError(f"there is no room to write {place}: the disk or your quota is full; free some") from error


def _is_full(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
    except OSError as full:
        return full.errno in FULL
    return False
