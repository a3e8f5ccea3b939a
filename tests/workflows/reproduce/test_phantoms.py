"""Both protocols from end to end on phantoms in the paper's layout, killed twice on the way."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from corereg.evaluation.benchmark.rows import key_of, read_rows
from helpers.protocols import phantom_abdomen, phantom_chest
from helpers.stops import stopped
from helpers.training import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

SMALLEST: dict[str, Any] = SMALL | {"steps_per_cycle": 1, "pseudo_labels.pairs": 1, "pseudo_labels.refine.steps": 1}
SMALLEST |= {"validation_refine.steps": 1, "spacing_mm": 8.0}
SCORED_PAIRS = 3
"""How many of the abdomen's 45 pairs are scored: each takes a process for every model."""


def command(protocol: str, dataset: Path, out: Path, tables: str) -> list[str]:
    code = "from corereg.cli import main; main()"
    settings = [word for key, value in SMALLEST.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    options = ["--tables", tables, "--device", "cpu", "--threads", "1", *settings]
    return [sys.executable, "-c", code, "reproduce", protocol, str(dataset), "-o", str(out), *options]


def killed_twice(words: list[str], out: Path) -> str:
    """Kill the command in its second training and while it scores, then let it end; return reproduction.md."""
    status, _ = stopped(words, lambda: (out / "registration" / "metrics.jsonl").is_file(), signal.SIGKILL)
    assert status == -signal.SIGKILL
    status, _ = stopped(words, lambda: (out / "scores" / "rows.jsonl").is_file(), signal.SIGKILL)
    assert status == -signal.SIGKILL
    before = read_rows(out / "scores" / "rows.jsonl")
    subprocess.run(words, check=True, capture_output=True, timeout=6000)
    rows = read_rows(out / "scores" / "rows.jsonl")
    assert rows[: len(before)] == before
    assert len({key_of(row) for row in rows}) == len(rows)
    assert not list(out.rglob(".corereg-*"))
    return (out / "reproduction.md").read_text("utf-8")


def test_abdomen(tmp_path: Path) -> None:
    dataset, out = phantom_abdomen(tmp_path / "data", SCORED_PAIRS), tmp_path / "out"
    text = killed_twice(command("abdomen-ct", dataset, out, "1,2,3"), out)
    assert "This is not a reproduction" in text
    assert f"{SCORED_PAIRS} test pairs instead of 45" in text
    assert "190 training pairs, 15 pairs to search R on" in text
    # Table 1 shows two of the models, Table 2 three and Table 3 four.
    assert text.count(f"| {SCORED_PAIRS} of {SCORED_PAIRS} |") == 2 + 3 + 4
    assert len(list((out / "figure3").glob("*.png"))) == 3


def test_chest(tmp_path: Path) -> None:
    dataset, out = phantom_chest(tmp_path / "data"), tmp_path / "out"
    text = killed_twice(command("chest-ct", dataset, out, "1,2"), out)
    assert "This is not a reproduction" in text
    assert "8 training pairs, 2 pairs to search R on, 2 test pairs" in text
    assert text.count("| 2 of 2 |") == 2 + 3
    assert len(list((out / "figure3").glob("*.png"))) == 2
