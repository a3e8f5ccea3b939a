"""Readers of images, points and transforms on damaged files: success or one line, never a signal or a traceback."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from corereg.errors import InputError
from helpers import damaged_readers, damaged_transforms
from helpers.fuzz import FAULT, READ, REFUSED, in_children

TESTS = Path(__file__).parents[1]

QUICK_CASES, SLOW_CASES = 60, 2000

KINDS = [*damaged_readers.KINDS, *damaged_transforms.KINDS]


def outcomes(seed: int, cases: int) -> dict[str, dict[str, Any]]:
    """What came of the damaged files, for each kind. One process reads them all, since starting one takes seconds."""
    done = subprocess.run(
        [sys.executable, "-m", "helpers.damaged_transforms", str(seed), str(cases)],
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {found["kind"]: found for found in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def quick() -> dict[str, dict[str, Any]]:
    return outcomes(0, QUICK_CASES)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_file_is_read_or_refused_in_one_line(quick: dict[str, dict[str, Any]], kind: str) -> None:
    found = quick[kind]
    assert not found["faults"], found["faults"][0]
    assert found["read"] + found["refused"] == QUICK_CASES
    assert found["read"], "every case was refused: the base file is no good"
    assert found["refused"], "no case was refused: nothing was damaged"


@pytest.mark.filterwarnings("ignore:.*fork")
def test_traceback_a_signal_and_a_long_message_are_faults() -> None:
    def read(case: int) -> None:
        if case == 1:
            raise KeyError("x")
        if case == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if case == 3:
            raise InputError("two\nlines")
        if case == 4:
            raise InputError("one line")

    outcomes, reports = zip(*in_children(6, read), strict=True)
    assert outcomes == (READ, FAULT, FAULT, FAULT, REFUSED, READ)
    assert "KeyError" in reports[1]
    assert "SIGKILL" in reports[2]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_thousands_of_damaged_files_are_read_or_refused_in_one_line() -> None:
    found = outcomes(1, SLOW_CASES)
    assert set(found) == set(KINDS)
    faults = [fault for kind in found.values() for fault in kind["faults"]]
    assert not faults, faults[0]
