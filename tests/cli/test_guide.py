"""What a user knows, given to `corereg register`: it counts, it is reported, and what cannot be used is one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from corereg import read_image, write_image
from corereg.evaluation.cases import standing_still
from corereg.evaluation.metrics import mean_dice, warp_labels
from corereg.io.points.points import Points, write_points
from helpers.commands import Command, one_line

QUICK = ["--affine", "none", "--refine-steps", "3", "--spacing", "4.5", "--no-report"]


@pytest.fixture
def points(tmp_path: Path) -> list[Path]:
    coords = np.random.default_rng(0).uniform(-30, 30, (8, 3))
    paths = [tmp_path / "fixed.fcsv", tmp_path / "moving.csv"]
    for path, offset in zip(paths, (0.0, 5.0), strict=True):
        write_points(path, Points(coords + offset))
    return paths


def test_labels_and_landmarks_guide_and_are_reported(
    scans: Path, points: list[Path], tmp_path: Path, command: Command
) -> None:
    labels = ["--fixed-labels", scans / "fixed_labels.nii.gz", "--moving-labels", scans / "moving_labels.nii.gz"]
    marks = ["--fixed-points", points[0], "--moving-points", points[1], "--point-tolerance", "1"]
    bones = ["--rigid-labels", scans / "fixed_labels.nii.gz"]
    pair = [scans / "fixed.nii.gz", scans / "moving.nii.gz"]
    (tmp_path / "names.json").write_text('{"17": "Liver", "90": "spine"}', "utf-8")
    chosen = ["--guide-only", "liver,3", "--label-names", tmp_path / "names.json"]
    done = command("register", *pair, "-o", tmp_path / "out", *labels, *chosen, *marks, *bones, *QUICK)
    assert done.status == 0, done.err
    summary = json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))
    metrics = summary["metrics"]
    dices = {"dice_guiding", "dice_guiding_before", "dice_not_guiding", "dice_not_guiding_before"}
    assert dices | {"tre_mm", "tre_before_mm", "tre_unregistered_mm", "tre_left_out_mm", "rigid_deviation_mm"} <= set(
        metrics
    )
    assert metrics["dice_not_guiding"] == metrics["dice_per_label"]["90"]
    assert metrics["tre_before_mm"] == pytest.approx(5 * 3**0.5, abs=1e-3)
    assert len(summary["landmarks"]) == 8
    assert summary["configuration"]["guidance"]["only"] == [3, 17], "names become numbers"
    assert summary["configuration"]["guidance"]["point_tolerance_mm"] == 1.0


def test_unmatched_points_are_paired_and_named(scans: Path, tmp_path: Path, command: Command) -> None:
    coords = np.random.default_rng(0).uniform(-30, 30, (30, 3))
    write_points(tmp_path / "fixed.fcsv", Points(coords[:26], [f"f{n}" for n in range(26)]))
    write_points(tmp_path / "moving.csv", Points(coords[:3:-1] + 4.0))
    points = ["--fixed-points", tmp_path / "fixed.fcsv", "--moving-points", tmp_path / "moving.csv"]
    pair = [scans / "fixed.nii.gz", scans / "moving.nii.gz"]
    out = tmp_path / "out"
    done = command("register", *pair, "-o", out, *points, "--unmatched-points", "--points-only", "--no-report")
    assert done.status == 0, done.err
    summary = json.loads((out / "result.json").read_text("utf-8"))
    assert {mark["name"] for mark in summary["landmarks"]} == {f"f{n}" for n in range(4, 26)}
    assert summary["affine"]["start"] == "landmarks"
    assert all(mark["after_mm"] < 1e-3 for mark in summary["landmarks"])


def test_initial_transform_and_rigid_result(scans: Path, field: Path, tmp_path: Path, command: Command) -> None:
    pair = [scans / "fixed.nii.gz", scans / "moving.nii.gz"]
    done = command(
        "register", *pair, "-o", tmp_path / "out", "--initial", field, "--affine", "rigid-only", "--no-report"
    )
    assert done.status == 0, done.err
    summary = json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))
    assert len(summary["inputs"]["initial"]["sha256"]) == 64
    assert summary["metrics"]["fold_percent"] == 0.0


def test_dice_without_registration_is_that_of_evaluate(
    scans: Path, field: Path, tmp_path: Path, command: Command
) -> None:
    labels = [scans / "fixed_labels.nii.gz", scans / "moving_labels.nii.gz"]
    given = ["--fixed-labels", labels[0], "--moving-labels", labels[1], "--initial", field]
    pair = [scans / "fixed.nii.gz", scans / "moving.nii.gz"]
    assert command("register", *pair, "-o", tmp_path / "out", *given, *QUICK).status == 0
    found = json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))["metrics"]
    fixed, moving = map(read_image, labels)
    still = warp_labels(moving.array, standing_still(fixed.grid, moving.grid), other_shape=True)
    assert found["dice_unregistered"] == pytest.approx(mean_dice(fixed.array, still, moving.array))
    assert abs(found["dice_before"] - found["dice_unregistered"]) > 0.01, "the initial transform comes before"


def test_what_cannot_guide_is_refused_in_one_line(
    scans: Path, points: list[Path], tmp_path: Path, command: Command
) -> None:
    fixed = read_image(scans / "fixed_labels.nii.gz")
    write_image(tmp_path / "other.nii.gz", np.where(fixed.array > 0, 5, 0).astype(np.uint8), fixed.grid)
    write_points(tmp_path / "few.csv", Points(np.zeros((3, 3))))
    write_points(tmp_path / "two.csv", Points(np.zeros((2, 3))))
    far = tmp_path / "far.csv"
    write_points(far, Points(np.full((8, 3), 900.0)))
    labels = ["--fixed-labels", tmp_path / "other.nii.gz", "--moving-labels", scans / "moving_labels.nii.gz"]
    same = ["--fixed-labels", scans / "fixed_labels.nii.gz", "--moving-labels", scans / "moving_labels.nii.gz"]
    (tmp_path / "names.json").write_text('{"3": "spleen", "90": "spine"}', "utf-8")
    refused = {
        "common label": [*labels, "--guide-labels"],
        "3 moving": ["--fixed-points", points[0], "--moving-points", tmp_path / "few.csv"],
        "2 unmatched points": [
            *["--fixed-points", points[0], "--moving-points", tmp_path / "two.csv", "--unmatched-points"]
        ],
        "outside both": ["--fixed-points", far, "--moving-points", far],
        "which is no file": ["--initial", tmp_path / "missing.h5"],
        "guide-only": ["--guide-only", ""],
        "no names": [*same, "--guide-only", "liver"],
        "spleen, spine": [*same, "--guide-only", "lung", "--label-names", tmp_path / "names.json"],
        "without intensities": ["--points-only"],
        "1 further fixed": ["--fixed", scans / "moving.nii.gz"],
    }
    for expected, options in refused.items():
        pair = [scans / "fixed.nii.gz", scans / "moving.nii.gz"]
        outcome = command("register", *pair, "-o", tmp_path / "out", *options, *QUICK)
        assert expected in one_line(outcome).replace("guide_only", "guide-only")
        assert not (tmp_path / "out").exists()
