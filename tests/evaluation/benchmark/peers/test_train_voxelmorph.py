"""VoxelMorph's training and registration: our loop and conventions, with a stub of the package or with the package."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corereg.evaluation.benchmark.peers import running
from corereg.evaluation.benchmark.peers.catalogue import METHODS, VOXELMORPH
from corereg.evaluation.benchmark.peers.environments import is_installed, python_of
from corereg.evaluation.field_files import read_field
from corereg.geometry.grid import Grid
from corereg.io.images.image import write_image
from helpers.scenes import centred_grid, scan

SCRIPT = running.DRIVERS.with_name("train_voxelmorph.py")
SHIFT_MM = np.array([7.0, -5.0, 6.0])
STUB = '''
"""A network that moves everything by a learned share of the distance between the centres of mass."""
from types import SimpleNamespace

import torch
from torch.nn import functional

class VxmPairwise(torch.nn.Module):
    def __init__(self, ndim, source_channels, target_channels, nb_features, integration_steps, device):
        super().__init__()
        self.share = torch.nn.Parameter(torch.zeros(ndim))

    def forward(self, source, target, return_warped_source=False):
        index = torch.stack(torch.meshgrid(*map(torch.arange, source.shape[2:]), indexing="ij")).float()
        centre = lambda image: (index * image).sum((2, 3, 4)) / image.sum((2, 3, 4))
        shift = 100 * self.share * (centre(source) - centre(target))
        disp = shift[:, :, None, None, None].expand(-1, -1, *source.shape[2:])
        if not return_warped_source:
            return disp
        sizes = torch.tensor(source.shape[2:]).view(3, 1, 1, 1)
        coords = (2 * (index + disp) / (sizes - 1) - 1).movedim(1, -1).flip(-1)
        return disp, functional.grid_sample(source, coords, align_corners=True)

nn = SimpleNamespace(models=SimpleNamespace(VxmPairwise=VxmPairwise))
'''


def moved(points_mm: Any) -> Any:
    """What the moving scan shows at q lies at q - shift in the patient, so that fixed p matches p + shift."""
    return points_mm - SHIFT_MM


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Grid]:
    """Two scans on different oblique grids, neither of them of the working grid's voxel size."""
    folder = tmp_path_factory.mktemp("pair")
    grids = centred_grid((46, 40, 36), (4.0, 4.5, 5.0), "oblique"), centred_grid((52, 44, 30), (3.6, 4.2, 6.0), "LPS")
    write_image(folder / "fixed.nii.gz", scan(grids[0]).array, grids[0])
    write_image(folder / "moving.nii.gz", scan(grids[1], moved).array, grids[1])
    return folder, grids[0]


def task_of(folder: Path, steps: int) -> dict[str, Any]:
    return {
        "pairs": [[str(folder / "fixed.nii.gz"), str(folder / "moving.nii.gz")]],
        "spacing_mm": 5.5,
        "window": [-200, 300],
        "steps": steps,
        "batch_size": 1,
        "seed": 1,
        "threads": 1,
        "device": "cpu",
    }


def with_stub(folder: Path) -> dict[str, str]:
    """The environment in which the stub is the package."""
    (folder / "stub").mkdir(exist_ok=True)
    (folder / "stub" / "voxelmorph.py").write_text(STUB)
    (folder / "stub" / "voxelmorph-0.3.4.dist-info").mkdir(exist_ok=True)
    (folder / "stub" / "voxelmorph-0.3.4.dist-info" / "METADATA").write_text("Name: voxelmorph\nVersion: 0.3.4\n")
    return os.environ | {"PYTHONPATH": str(folder / "stub")}


def train(task: dict[str, Any], model: Path, python: Path, environment: dict[str, str]) -> None:
    model.with_suffix(".json").write_text(json.dumps(task))
    words = [python, SCRIPT, model.with_suffix(".json"), model]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def offsets_mm(folder: Path, grid: Grid, model: Path, python: Path, environment: dict[str, str]) -> Any:
    """The displacement of each voxel of the body, as the benchmark's driver writes it."""
    out = model.with_suffix(".nii.gz")
    words = ["voxelmorph", folder / "fixed.nii.gz", folder / "moving.nii.gz", out, "--set", f'model="{model}"']
    done = subprocess.run([python, running.DRIVERS, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    disp_vox = read_field(out, grid, grid).own_vox
    found = np.moveaxis(np.einsum("ac,cijk->aijk", grid.linear, disp_vox), 0, -1)
    return found[scan(grid).array > -200]


def test_training_finds_a_known_shift_in_millimetres_of_the_world(pair: tuple[Path, Grid], tmp_path: Path) -> None:
    """Between grids of different axes and voxels: a wrong axis, sign, unit or direction would double the error."""
    environment = with_stub(tmp_path)
    train(task_of(pair[0], 120), tmp_path / "model.pt", Path(sys.executable), environment)
    found = offsets_mm(*pair, tmp_path / "model.pt", Path(sys.executable), environment)
    assert np.linalg.norm(found - SHIFT_MM, axis=-1).max() < 0.25 * np.linalg.norm(SHIFT_MM)


@pytest.mark.slow
def test_training_resumes_as_if_it_had_not_stopped(pair: tuple[Path, Grid], tmp_path: Path) -> None:
    environment = with_stub(tmp_path)
    for name, stops in (("whole", (20,)), ("resumed", (9, 20))):
        for steps in stops:
            train(task_of(pair[0], steps), tmp_path / f"{name}.pt", Path(sys.executable), environment)
    whole, resumed = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "resumed"))
    assert whole["step"] == resumed["step"] == 20
    assert torch.equal(whole["weights"]["share"], resumed["weights"]["share"])
    assert not torch.equal(whole["weights"]["share"], torch.zeros(3))


@pytest.mark.slow
def test_the_package_itself_comes_closer_to_a_known_shift(pair: tuple[Path, Grid], tmp_path: Path) -> None:
    method = METHODS[VOXELMORPH]
    if not is_installed(method):
        pytest.skip("not installed: corereg peers install voxelmorph")
    train(task_of(pair[0], 150), tmp_path / "model.pt", python_of(method), dict(os.environ))
    found = offsets_mm(*pair, tmp_path / "model.pt", python_of(method), dict(os.environ))
    assert np.linalg.norm(found - SHIFT_MM, axis=-1).mean() < 0.9 * np.linalg.norm(SHIFT_MM)
