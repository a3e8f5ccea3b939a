"""The benchmark of the whole command runs one and takes its time apart."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from corereg.data.phantom import make_breathing_pair
from corereg.io.images.image import write_image

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "command.py"


@pytest.mark.slow
def test_stages_and_the_rest_add_up_to_the_whole_command(tmp_path: Path) -> None:
    pair = make_breathing_pair(0, spacing_mm=6.0)
    paths = [tmp_path / f"{name}.nii.gz" for name in ("fixed", "moving")]
    for path, array in zip(paths, (pair.fixed, pair.moving), strict=True):
        write_image(path, array.astype(np.int16), pair.grid)
    words = ["--out", tmp_path / "out", "--pair", *paths, "--runs", "1", "--threads", "1"]
    done = subprocess.run([sys.executable, BENCHMARK, *map(str, words)], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    header, _, line = done.stdout.splitlines()
    names, cells = ([cell.strip() for cell in row.strip("|").split("|")] for row in (header, line))
    row = {name: float(cell) for name, cell in zip(names[4:], cells[4:], strict=True)}
    parts = ["read", "affine", "resample", "features", "passes", "refine", "judge", "inverse", "write", "rest"]
    assert abs(sum(row[name] for name in parts) - row["whole"]) < 0.1
    assert min(row[name] for name in ("affine", "refine", "imports", "kernels")) > 0
    assert 0 < row["kernels"] < row["whole"] > row["rest"] > 0
