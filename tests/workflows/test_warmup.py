"""`corereg warmup`: what it compiles is all that a registration needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from corereg.io.images.image import write_image
from corereg.workflows.warmup import CACHE_VARIABLE
from helpers.pairs import pair


@pytest.mark.slow
def test_after_a_warmup_registrations_of_every_kind_compile_nothing(tmp_path: Path) -> None:
    """Each in a process of its own, on scans of other sizes and orientations than those of the warm-up."""
    for image in pair():
        write_image(tmp_path / f"{image.name}.nii.gz", image.array, image.grid)
    environment = {**os.environ, CACHE_VARIABLE: str(tmp_path / "cache")}

    def corereg(*words: str) -> str:
        command = [sys.executable, "-m", "corereg", *words]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def compiled() -> set[str]:
        return {path.name for path in (tmp_path / "cache").rglob("*.nbc")}

    assert str(tmp_path / "cache") in corereg("warmup")
    kernels = compiled()
    assert len(kernels) > 30
    for options in ([], ["--one-way"], ["--parametrisation", "diffeomorphic"], ["--model", "head-neck-ct"]):
        corereg("register", "fixed.nii.gz", "moving.nii.gz", "-o", "out", "--force", "--refine-steps", "2", *options)
        assert compiled() == kernels, options
    corereg("apply", "out/transform.h5", "moving.nii.gz", "-o", "applied.nii.gz")
    assert compiled() == kernels
