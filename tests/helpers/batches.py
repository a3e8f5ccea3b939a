"""Lists of pairs, and a method that stands in for registration. Its behaviour is in the names of the pairs."""

import csv
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.io.atomic import atomic_folder, output_folder, staging
from corereg.workflows.batch.pairs import Pair

__all__ = ["STUB", "as_csv", "scans", "stub"]

STUB = "helpers.batches:stub"


def stub(pair: Pair, folder: Path, **options: Any) -> dict[str, Any]:
    """Write result.json. Names say what happens before: `refused`, `broken`, `dies`, `stuck`, `nap`, once `flaky`."""
    kind, attempts = pair.name.split("-")[0], folder.parent / f"{pair.name}.attempts"
    with attempts.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if kind == "refused":
        raise InputError("got no scan, expected one")
    if kind == "broken" or (kind == "flaky" and len(attempts.read_text("utf-8").split()) == 1):
        raise MemoryError("no room\nfor a volume")
    with output_folder(folder):
        if kind in ("dies", "stuck", "nap"):
            with staging(folder) as half:
                (half / "warped.nii.gz").write_text("half")
                if kind == "dies":
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(0.05 if kind == "nap" else 600)
        with atomic_folder(folder, last="result.json") as staged:
            (staged / "result.json").write_text(f"{options['settings']} {dict(pair.settings)}")
    return {"sdlogj": 0.05, "similarity_above_chance": float("nan"), "threads": options["threads"]}


def scans(folder: Path, names: Sequence[str]) -> list[Path]:
    """Empty files, which the stub does not open."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.nii.gz" for name in names]
    for path in paths:
        path.touch()
    return paths


def as_csv(path: Path, names: Sequence[str], **columns: str) -> Path:
    """A CSV of pairs of these names, all of the same two empty scans."""
    scans(path.parent, ["fixed", "moving"])
    rows: list[Mapping[str, str]] = [
        {"fixed": "fixed.nii.gz", "moving": "moving.nii.gz", "name": name, **columns} for name in names
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path
