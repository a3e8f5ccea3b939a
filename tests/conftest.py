"""Fixtures that several rooms share. No grid is a cube: unequal shapes, unequal spacings, four orientations."""

import math
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from corereg import cli
from corereg.geometry.grid import Grid
from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE
from corereg.method.affine import align
from corereg.progress import Occasionally
from helpers.commands import Command, Outcome
from helpers.cuda import DEVICE, INTERPRETED
from helpers.grids import ORIENTATIONS, make_grid


@pytest.fixture(params=ORIENTATIONS)
def grid(request: pytest.FixtureRequest) -> Grid:
    return make_grid(orientation=request.param)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real scans, which are no part of the project."""
    root = Path(os.environ.get("COREREG_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real scans at {root} (set COREREG_DATA)")
    return root


@pytest.fixture(scope="session")
def cases_dir() -> Path:
    """Small inputs that once went wrong, which are no part of the project."""
    root = Path(os.environ.get("COREREG_CASES", Path(__file__).parents[2] / "shared" / "cases"))
    if not root.is_dir():
        pytest.skip(f"no inputs that went wrong at {root} (set COREREG_CASES)")
    return root


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def cuda_kernels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The Triton kernels; the public functions run on plain torch meanwhile. Skips where Triton cannot run."""
    pytest.importorskip("triton")
    if DEVICE.type == "cpu" and not INTERPRETED:
        pytest.skip("no CUDA device here, and TRITON_INTERPRET is not 1")
    monkeypatch.setenv(KERNELS_VARIABLE, "torch")
    from corereg.geometry.kernels import cuda

    return cuda


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`corereg` with arguments, in this process to be quick. It stays silent however long it takes."""
    monkeypatch.setattr("corereg.cli.messages.Occasionally", partial(Occasionally, first_s=math.inf))

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["corereg", *map(str, arguments)])
        capsys.readouterr()
        # As in a process of its own: warnings are shown, not raised.
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            with pytest.raises(SystemExit) as stopped:
                cli.main()
        status = 0 if stopped.value.code is None else stopped.value.code
        assert isinstance(status, int)
        return Outcome(status, *capsys.readouterr())

    return run


@pytest.fixture
def quick_affine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pre-alignments of a second, from the images as they lie alone."""
    starts = align._starts
    monkeypatch.setattr(align, "_starts", lambda *arguments: starts(*arguments)[:1])


LONGEST = (
    "method/test_register.py",
    "method/test_pipeline.py",
    "training/",
    "io/test_damaged_files.py",
    "test_docs.py",
    "test_examples.py",
    "test_hostile_numbers.py",
)
"""Where the tests lie that take longest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, because the last one to start may keep one worker busy while the others idle."""
    tests = Path(__file__).parent

    def is_short(item: pytest.Item) -> bool:
        return not item.path.relative_to(tests).as_posix().startswith(LONGEST)

    items.sort(key=is_short)
