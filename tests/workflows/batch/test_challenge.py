"""A submission to the challenge from a batch of its data set."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corereg.errors import InputError
from corereg.io.transforms.formats.learn2reg import read_disp_vox
from corereg.workflows.batch.run import batch
from helpers.batches import COPIED, STUB, as_csv
from helpers.cohorts import SHAPE, Cohort, make_cohort


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Two test pairs without labels, and their fields in truth/."""
    made = make_cohort(tmp_path / "data", pairs=2, split="test")
    shutil.rmtree(tmp_path / "data" / "labelsTr")
    content = json.loads(made.path.read_text("utf-8"))
    made.path.write_text(json.dumps(content | {"training": []}))
    (tmp_path / "truth").mkdir()
    for name in made.fields:
        _, *ids = name.split("_")
        made.write_itk(tmp_path / "truth" / "Made_{}_{}_Made_{}_{}.nii.gz".format(*ids), name)
    return made


def run(pairs: Any, out: Path, **options: Any) -> Any:
    return batch(pairs, out, **{"page": False, "method": COPIED, "submission": "nifti", **options})


def test_test_pairs_without_labels_become_a_submission(tmp_path: Path, cohort: Cohort) -> None:
    found = run(cohort.path, tmp_path / "out")
    assert (found.pairs, found.failed) == (2, 0)
    folder = tmp_path / "out" / "submission"
    names = zipfile.ZipFile(folder / "submission.zip").namelist()
    assert len(names) == 2
    for name, disp_vox in cohort.fields.items():
        assert f"{name}.nii.gz" in names
        np.testing.assert_allclose(read_disp_vox(folder / f"{name}.nii.gz", SHAPE), disp_vox, atol=1e-3)


def test_a_batch_with_failures_makes_none_and_says_so(tmp_path: Path, cohort: Cohort) -> None:
    next((tmp_path / "truth").iterdir()).unlink()
    with pytest.warns(UserWarning, match="1 pair failed, so no submission"):
        assert run(cohort.path, tmp_path / "out", retries=0).failed == 1
    assert not (tmp_path / "out" / "submission").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"submission": "tar"}, "nifti or npz"),
        ({"keep": "warped"}, "add transform to --keep"),
        ({"shard": "1/2"}, "leave --shard out"),
        ({"split": "validation"}, "no validation pairs"),
    ],
)
def test_a_submission_that_cannot_be_made_is_refused_first(
    tmp_path: Path, cohort: Cohort, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        run(cohort.path, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_list_of_pairs_makes_no_submission(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a Learn2Reg data set"):
        run(as_csv(tmp_path / "pairs.csv", ["a"]), tmp_path / "out", method=STUB)
