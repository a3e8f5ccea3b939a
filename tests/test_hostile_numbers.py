"""NaN, infinite and extreme numbers given to every entry: a result or one line, never a signal or a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from corereg import Image, register
from helpers.fuzz import READ, REFUSED
from helpers.scenes import centred_grid, scan, wave

TESTS = Path(__file__).parent


def outcomes(*numbers: str) -> dict[str, tuple[str, str]]:
    """Name of each case -> its outcome and message, from one process."""
    done = subprocess.run(
        [sys.executable, "-m", "helpers.hostile_numbers", *numbers],
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {case["name"]: (case["outcome"], case["report"]) for case in found}


def assert_no_faults(found: dict[str, tuple[str, str]]) -> None:
    faults = [f"{name}: {report}" for name, (outcome, report) in found.items() if outcome not in (READ, REFUSED)]
    assert not faults, faults[0]


def test_nan_and_huge_numbers_are_computed_with_or_refused_in_one_line() -> None:
    found = outcomes("nan", "3e38")
    assert_no_faults(found)
    for name, words in {
        "apply_points of nan": "1 points with NaN, infinite or masked coordinates",
        "moved points of a transform of nan": "displacements of up to nan voxels",
        "total_mm of 3e+38": "displacements of up to 3e+38 voxels",
        "matrix of nan": "expected a 4x4 matrix of finite numbers",
        "chained matrices of 1e200": "expected a 4x4 matrix of finite numbers",
        "inverse of an .h5 of nan": "NaN or infinite numbers in its inverse",
        "Learn2Reg file of 3e+38": "displacements of up to 3e+38 in the unit of the file",
        "points in .mrk.json of nan": "not three finite numbers",
        "model file of nan": "holds NaN or infinite numbers, expected finite weights",
        "sdlogj of nan": "NaN or infinite offsets",
    }.items():
        outcome, report = found[name]
        assert outcome == REFUSED, name
        assert words in report
    for name in ("warp of nan", "match with weights of nan", "refine from a start of nan", "apply_points of 3e+38"):
        assert found[name][0] == READ, found[name]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_more_numbers_are_computed_with_or_refused_in_one_line() -> None:
    assert_no_faults(outcomes("inf", "-inf", "-1e38", "1e-45", "-1e-40"))


def test_denormal_voxels_count_as_zero() -> None:
    grid = centred_grid((24, 22, 20), (6.0, 6.0, 7.0))
    fixed, moving = scan(grid), scan(grid, wave)
    chosen = np.random.default_rng(0).uniform(size=grid.shape) < 0.1
    found = [
        register(fixed, Image(np.where(chosen, value, moving.array), grid), affine="none", spacing=8.0, refine_steps=2)
        for value in (0.0, 1e-45)
    ]
    assert torch.equal(found[0].refined.disp_vox, found[1].refined.disp_vox)
