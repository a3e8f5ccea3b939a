"""The rows of a batch on disk: a JSON object per line, one for each pair, appended when its folder is complete.

Upstream: outcomes of `workers`. Downstream: `page`, and a later run, which reads the rows once and looks for one file
of each pair.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from corereg.errors import InputError
from corereg.io.atomic import atomic_path
from corereg.io.json_files import finite
from corereg.workflows.batch.plan import Contents, Shard
from corereg.workflows.outputs import RESULT

__all__ = ["OK", "Row", "RowFile", "locked", "read_rows", "resume", "write_parquet"]

Row = dict[str, Any]

OK = "ok"
"""Status of a pair that is done; those of the others say in a word what went wrong."""

SHARDS = "rows-*.jsonl"
LOCK = ".{}.lock"
PATIENCE_S = 2.0

PARQUET_BLOCK_BYTES = 2**24


class RowFile:
    """Rows to append to. Each is written by one system call, so that an interruption does not cut it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row."""
        self._file.write(_line(row))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a file, none if it is missing. Damaged lines, such as one cut short by a full disk, are skipped."""
    return (row for row, _ in _intact_lines(path))


def resume(directory: Path, shard: Shard, contents: Contents) -> set[int]:
    """Find the pairs that are done and whose results are there, and keep their rows only: the others are run again.

    A run of all pairs takes the rows of shards over into its own file.

    Returns: hashes of the keys of pairs that are done.
    """
    own = directory / shard.rows
    others = [path for path in (directory / Shard().rows, *sorted(directory.glob(SHARDS))) if path != own]
    done: set[int] = set()
    with atomic_path(own) as staged, staged.open("wb") as file:
        for path in (own, *others):
            for row, line in _intact_lines(path):
                key = hash(row["key"])
                if row["status"] != OK or key in done or contents.replaces(row):
                    continue
                if not (directory / row["name"] / RESULT).exists():  # removed, to have it made again
                    continue
                done.add(key)
                if path == own or shard.of == 1:
                    file.write(line)
    if shard.of == 1:
        for path in others:
            path.unlink()
    return done


@contextmanager
def locked(directory: Path, shard: Shard) -> Iterator[None]:
    """Keep other runs from the rows meanwhile: from those of this shard, or of all if it is the only one.

    Raises:
        InputError: another run is using them.
    """
    first = FileLock(directory / LOCK.format(Shard().rows))
    shards = directory.glob(LOCK.format(SHARDS)) if shard.of == 1 else [directory / LOCK.format(shard.rows)]
    with ExitStack() as held:
        try:
            held.enter_context(first.acquire(timeout=PATIENCE_S))
            for path in shards:
                held.enter_context(FileLock(path).acquire(timeout=0))
            if shard.of > 1:
                first.release()  # shards hold it only as they start
        except Timeout:
            raise InputError(
                f"another `corereg batch` is writing to {directory}, expected to be the only one; wait for its end, or "
                "give each its own --shard"
            ) from None
        yield


def write_parquet(directory: Path) -> Path | None:
    """Write rows.parquet if pyarrow is installed."""
    try:
        arrow_json: Any = import_module("pyarrow.json")
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        return None
    path = directory / "rows.parquet"
    rows = directory / Shard().rows
    if not rows.stat().st_size:
        return None
    options = arrow_json.ReadOptions(block_size=PARQUET_BLOCK_BYTES)
    with atomic_path(path) as staged:
        parquet.write_table(arrow_json.read_json(rows, read_options=options), staged)
    return path


def _line(row: Mapping[str, Any]) -> bytes:
    return os.fsencode(json.dumps(finite(row), allow_nan=False, default=str) + "\n")


def _intact_lines(path: Path) -> Iterator[tuple[Row, bytes]]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and all(isinstance(row.get(name), str) for name in ("name", "key", "status")):
                yield row, line.rstrip() + b"\n"
