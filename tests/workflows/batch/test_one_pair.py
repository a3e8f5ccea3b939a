"""A pair of a batch: what guides it reaches its registration."""

import json
from pathlib import Path

import numpy as np
import pytest

from corereg import Transform, read_image, write_image
from corereg.io.points.points import Points, write_points
from corereg.workflows.batch.one_pair import register_pair
from corereg.workflows.batch.pairs import pair_source
from helpers.pairs import pair


def test_what_guides_a_pair_is_in_its_row_of_the_table(tmp_path: Path) -> None:
    for name, image in zip(("fixed", "moving"), pair(), strict=True):
        write_image(tmp_path / f"{name}.nii.gz", image.array, image.grid)
    fixed = read_image(tmp_path / "fixed.nii.gz")
    points = np.random.default_rng(0).uniform(-25, 25, (9, 3))
    write_points(tmp_path / "fixed.csv", Points(points))
    write_points(tmp_path / "moving.csv", Points(points[::-1] + np.array([8, 0, -3])))
    shift = np.eye(4)
    shift[:3, 3] = 6, 1, -2
    Transform((shift,), fixed=fixed).save(tmp_path / "start.tfm")
    write_image(tmp_path / "bones.nii.gz", (fixed.array > 100).astype(np.uint8), fixed.grid)
    (tmp_path / "pairs.csv").write_text(
        "fixed,moving,name,fixed_points,moving_points,initial,rigid_labels,unmatched_points,points_only\n"
        "fixed.nii.gz,moving.nii.gz,a,fixed.csv,moving.csv,start.tfm,bones.nii.gz,true,true\n"
    )
    [one] = pair_source(tmp_path / "pairs.csv")()
    options = {"keep": ["transform"], "threads": 1, "label_names": {}, "labels_use_image_grid": False}
    measures = register_pair(one, tmp_path / "a", command="test", settings={"spacing": 5.0}, **options)
    assert measures["tre_before_mm"] == pytest.approx(np.linalg.norm([2, -1, -1]), abs=1e-3)
    assert measures["tre_unregistered_mm"] == pytest.approx(np.linalg.norm([8, 0, -3]), abs=1e-3)
    assert measures["tre_mm"] < 0.5
    assert measures["rigid_deviation_mm"] < 0.5
    inputs = json.loads((tmp_path / "a" / "result.json").read_text("utf-8"))["inputs"]
    assert {"initial", "fixed_points", "moving_points"} <= set(inputs)
