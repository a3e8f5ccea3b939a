"""The examples run as a reader would run them, on made-up patients, and do what they say."""

import ast
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from corereg.data.phantom import make_breathing_pair, write_cohort
from corereg.io.images.image import read_image, write_image
from helpers.training import quick_recipe

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
LONGEST = 40
SPACING_MM = 8.0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four patients in Learn2Reg's layout: two train, the pair of the other two validates."""
    return write_cohort(tmp_path_factory.mktemp("patients") / "cohort", subjects=4, spacing_mm=SPACING_MM)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs an example by name with arguments, and returns what it prints."""

    def run(name, *arguments):
        path = next(path for path in EXAMPLES if path.stem == name)
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_imports_the_public_package_alone(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= LONGEST
    imported = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imported]
    assert [name for name in modules if name.startswith("corereg")] == ["corereg"]


def test_register_pair_finds_the_known_motion(run, tmp_path):
    pair = make_breathing_pair(1, "abdomen", SPACING_MM)
    for name, array in (("fixed", pair.fixed), ("moving", pair.moving)):
        write_image(tmp_path / f"{name}.nii.gz", array, pair.grid)
    printed = run("register_pair", tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz", tmp_path / "out")
    assert "SDlogJ" in printed
    inside = np.argwhere(pair.fixed_labels > 0)
    true_mm = np.einsum("ac,cn->na", pair.grid.linear, pair.disp_vox[(slice(None), *inside.T)])
    transform = SimpleITK.ReadTransform(str(tmp_path / "out" / "transform.h5"))
    lps = np.array([-1, -1, 1])
    start_mm = pair.grid.to_world(inside)
    found_mm = np.array([transform.TransformPoint(point) for point in (start_mm * lps).tolist()]) * lps - start_mm
    error, before = (np.linalg.norm(d, axis=1).mean() for d in (found_mm - true_mm, true_mm))
    assert error < before / 3
    warped = read_image(tmp_path / "out" / "warped.nii.gz")
    assert warped.grid.close_to(pair.grid, 1e-3)
    assert np.abs(warped.array - pair.fixed).mean() < np.abs(pair.moving - pair.fixed).mean() / 2


@pytest.mark.usefixtures("quick_affine")
def test_train_on_a_folder_writes_weights_and_registers_with_them(run, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("corereg.training.train.get_recipe", quick_recipe)
    arguments = ("--recipe", "tiny", "--cycles", "1", "--steps", "2")
    printed = run("train_on_a_folder", dataset.parent / "imagesTr", tmp_path / "run", *arguments)
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert "SDlogJ" in printed
    field = SimpleITK.ReadImage(str(tmp_path / "run" / "first_pair.nii.gz"))
    assert np.abs(SimpleITK.GetArrayFromImage(field)).max() > SPACING_MM


def test_evaluate_and_compare_scores_both_smoothness_weights(run, dataset, tmp_path):
    printed = run("evaluate_and_compare", dataset, tmp_path, "--regularisation", "1", "30")
    assert "dice: " in printed
    evaluation = json.loads((tmp_path / "evaluation.json").read_text("utf-8"))
    assert evaluation["summary"]["sdlogj"]["mean"] > evaluation["against"]["summary"]["sdlogj"]["mean"]
    assert all(row["dice"] > row["dice_before"] for row in evaluation["rows"])
