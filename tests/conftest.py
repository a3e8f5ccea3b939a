"""Fixtures that several rooms share. No grid is a cube: unequal shapes, unequal spacings, four orientations."""

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from corereg import Transform, cli, read_image, write_image
from corereg.geometry.grid import Grid
from helpers.commands import Command, Outcome
from helpers.grids import ORIENTATIONS, make_grid
from helpers.pairs import FIXED, MOVING
from helpers.scenes import scan, wave
from helpers.transforms import label_map


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


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`corereg` with arguments, in this process to be quick."""

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


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fixed.nii.gz, moving.nii.gz and label maps of both; not to be changed."""
    folder = tmp_path_factory.mktemp("scans")
    for name, image in (("fixed", scan(FIXED)), ("moving", scan(MOVING, wave))):
        write_image(folder / f"{name}.nii.gz", image.array.astype(np.int16), image.grid)
        write_image(folder / f"{name}_labels.nii.gz", label_map(image.grid, np.uint8).array, image.grid)
    return folder


@pytest.fixture(scope="session")
def field(scans: Path) -> Path:
    """A transform file on the fixed grid."""
    shift = np.eye(4)
    shift[:3, 3] = 6.0, -3.0, 3.5
    Transform((shift,), fixed=read_image(scans / "fixed.nii.gz")).save(scans / "field.nii.gz")
    return scans / "field.nii.gz"
