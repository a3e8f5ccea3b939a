"""The driver of a batch adds next to nothing to a pair."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "batch.py"


def test_driver_is_quick_and_small() -> None:
    """Wide of what is measured, since tests share a machine; loading torch alone would exceed the memory."""
    words = [sys.executable, str(BENCHMARK), "--pairs", "3000"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["ms_per_pair"] < 5
    assert measured["resume_seconds"] < 5
    assert measured["driver_peak_mib"] < 150
