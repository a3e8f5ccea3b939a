"""Lists of pairs, and a method that stands in for registration. Its behaviour is in the names of the pairs."""

import csv
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.io.atomic import atomic_folder, output_folder, staging
from corereg.workflows.batch.pairs import Pair
from corereg.workflows.batch.run import batch

__all__ = ["COPIED", "STUB", "as_csv", "copied", "scans", "stub", "use_stub"]

STUB, COPIED = "helpers.batches:stub", "helpers.batches:copied"


def stub(pair: Pair, folder: Path, **options: Any) -> dict[str, Any]:
    """Write result.json. Names say what happens before: `refused`, `broken`, `dies`, `stuck`, `nap`;
    `flaky` and `hangs` do so once. Or they say what the verdict is: `doubtful`, `wrong`.
    """
    kind, attempts = pair.name.split("-")[0], folder.parent / f"{pair.name}.attempts"
    with attempts.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if kind == "refused":
        raise InputError("got no scan, expected one")
    first = len(attempts.read_text("utf-8").split()) == 1
    if kind == "broken" or (kind == "flaky" and first):
        raise MemoryError("no room\nfor a volume")
    with output_folder(folder):
        if kind in ("dies", "stuck", "nap") or (kind == "hangs" and first):
            with staging(folder) as half:
                (half / "warped.nii.gz").write_text("half")
                if kind == "dies":
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(0.05 if kind == "nap" else 600)
        with atomic_folder(folder, last="result.json") as staged:
            (staged / "result.json").write_text(f"{options['settings']} {dict(pair.settings)}")
    verdict = {"doubtful": "warn", "wrong": "fail"}.get(kind, "pass")
    return {
        "verdict": verdict,
        "reasons": [] if verdict == "pass" else [f"it is {kind}"],
        "sdlogj": 0.05,
        "similarity_above_chance": float("nan"),
        "threads": options["threads"],
    }


def use_stub() -> None:
    """Let `corereg batch` in this process take the stub in place of registration."""
    assert batch.__kwdefaults__
    batch.__kwdefaults__["method"] = STUB


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


def copied(pair: Pair, folder: Path, **options: Any) -> dict[str, Any]:
    """Write the field that lies ready in truth/, next to the folder of the batch."""
    with output_folder(folder), atomic_folder(folder, last="result.json") as staged:
        shutil.copyfile(folder.parents[1] / "truth" / f"{pair.name}.nii.gz", staged / "transform.nii.gz")
        (staged / "result.json").write_text("{}")
    return {}
