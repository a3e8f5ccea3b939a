"""Label maps of a pair beside its images: what is scored are the voxels of the images."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from corereg.evaluation.evaluate import evaluate
from corereg.geometry.grid import Grid
from corereg.io.images.image import read_labels, write_image
from helpers.cohorts import Cohort
from helpers.images import stored_along
from helpers.refusals import refusal


def stored_otherwise(cohort: Cohort, folder: Path, axes: str) -> Cohort:
    """The cohort with the label maps stored along other axes than the images."""
    shutil.copytree(cohort.path.parent, folder)
    for path in (folder / "labelsTr").iterdir():
        labels = read_labels(path)
        write_image(path, *stored_along(axes, labels.array, labels.grid))
    return Cohort(folder / cohort.path.name, cohort.grid, cohort.fields)


@pytest.mark.parametrize("axes", ["LPS", "SAL"])
@pytest.mark.parametrize("form", ["voxels", "millimetres"])
def test_label_maps_stored_along_other_axes_than_the_images_score_the_same(form, axes, cohort, tmp_path):
    turned = stored_otherwise(cohort, tmp_path / "cohort", axes)
    folder = tmp_path / "fields"
    if form == "voxels":
        cohort.write_fields(folder)
    else:
        folder.mkdir()
        for name in cohort.fields:
            cohort.write_itk(folder / f"{name}.nii.gz", name)
    assert evaluate(turned.path, folder).rows == evaluate(cohort.path, folder).rows


def test_label_maps_on_another_grid_than_the_images_are_not_resampled_and_that_is_said(cohort, tmp_path):
    """The challenge's measures count the voxels that were labelled."""
    shutil.copytree(cohort.path.parent, tmp_path / "cohort")
    for path in (tmp_path / "cohort" / "labelsTr").iterdir():
        labels = read_labels(path)
        write_image(path, labels.array[:-1], Grid((23, 30, 26), labels.grid.affine))
    (tmp_path / "fields").mkdir()
    for name in cohort.fields:
        cohort.write_itk(tmp_path / "fields" / f"{name}.nii.gz", name)
    with pytest.warns(UserWarning, match="lies on a grid of its own, 23 x 30 x 26 voxels"):
        message = refusal(evaluate, tmp_path / "cohort" / cohort.path.name, tmp_path / "fields")
    assert "or, if it is labelled, of its label map: 23 x 30 x 26 voxels" in message


def test_label_maps_of_the_same_size_elsewhere_are_scored_voxel_by_voxel_and_that_is_said(cohort, tmp_path):
    shutil.copytree(cohort.path.parent, tmp_path / "cohort")
    for path in (tmp_path / "cohort" / "labelsTr").iterdir():
        labels, away = read_labels(path), np.eye(4)
        away[0, 3] = 40
        write_image(path, labels.array, Grid(labels.grid.shape, away @ labels.grid.affine))
    cohort.write_fields(tmp_path / "fields")
    with pytest.warns(UserWarning, match="as if they were the image's, as the challenge does: check its header"):
        found = evaluate(tmp_path / "cohort" / cohort.path.name, tmp_path / "fields", check=False)
    expected = evaluate(cohort.path, tmp_path / "fields", check=False)
    assert [row["dice"] for row in found.rows] == [row["dice"] for row in expected.rows]
