"""Label maps of a pair beside its images: what is scored are the voxels of the images."""

import shutil
from pathlib import Path

import pytest

from corereg.evaluation.evaluate import evaluate
from corereg.io.images.image import read_labels, write_image
from helpers.cohorts import Cohort
from helpers.images import stored_along


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
