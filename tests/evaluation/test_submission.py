"""Submissions to the challenge."""

import os
import zipfile

import numpy as np
import pytest

from corereg.errors import InputError
from corereg.evaluation.evaluate import evaluate
from corereg.evaluation.submission import write_submission
from corereg.io.transforms.formats.learn2reg import write_disp_vox
from helpers.cohorts import SHAPE
from helpers.evaluations import run


class TestSubmission:
    def test_new_form_has_both_names_and_the_challenges_header(self, cohort, fields, tmp_path):
        import nibabel

        written = write_submission(cohort.path, fields, tmp_path / "out")
        assert len(written) == 6
        long, short = (tmp_path / "out" / name for name in ("disp_0001_0000_0002_0000.nii.gz", "disp_0001_0002.nii.gz"))
        assert os.path.samefile(long, short)
        image = nibabel.load(long)
        assert image.shape == (*SHAPE, 3)
        assert image.get_data_dtype() == np.float32
        np.testing.assert_array_equal(image.affine, np.eye(4))
        assert (int(image.header["sform_code"]), int(image.header["intent_code"])) == (2, 0)
        assert sorted(zipfile.ZipFile(tmp_path / "out" / "submission.zip").namelist()) == sorted(
            w.name for w in written
        )
        assert evaluate(cohort.path, tmp_path / "out").summary["dice"].mean == 1

    def test_old_form_is_half_size_float16_in_full_voxels(self, cohort, fields, tmp_path):
        written = write_submission(cohort.path, fields, tmp_path / "out", form="npz", names="short")
        assert [path.name for path in written] == [f"disp_{n:04d}_{n + 1:04d}.npz" for n in (1, 3, 5)]
        with np.load(written[0]) as content:
            assert content.files == ["arr_0"]
            stored = content["arr_0"]
        assert (stored.dtype, stored.shape) == (np.float16, (3, *(n // 2 for n in SHAPE)))
        truth = next(iter(cohort.fields.values()))
        assert np.abs(stored).max() == pytest.approx(np.abs(truth).max(), rel=0.1)

    def test_incomplete_or_rough_submissions_are_refused_and_nothing_is_left(self, cohort, tmp_path):
        folder = cohort.write_fields(tmp_path / "fields")
        name = next(iter(cohort.fields))
        write_disp_vox(folder / f"{name}.nii.gz", np.random.default_rng(0).normal(0, 3, (3, *SHAPE)).astype(np.float32))
        with pytest.raises(InputError, match="smooth enough"):
            write_submission(cohort.path, folder, tmp_path / "out", form="npz")
        (folder / f"{name}.nii.gz").unlink()
        with pytest.raises(InputError, match="must be complete"):
            write_submission(cohort.path, folder, tmp_path / "out")
        assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []

    def test_command_writes_and_says_so(self, cohort, fields, tmp_path):
        status, said = run(cohort.path, fields, "--submission", tmp_path / "out", "--submission-names", "long")
        assert status == 0
        assert "3 files, read back and checked" in said
        assert run(cohort.path, fields, "--submission", tmp_path / "out", "--submission-form", "tar")[0] == 2
