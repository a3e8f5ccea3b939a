"""Submissions to the challenge."""

import errno
import os
import zipfile

import numpy as np
import pytest

from corereg.errors import InputError
from corereg.evaluation import submission
from corereg.evaluation.archives import opened_fields
from corereg.evaluation.evaluate import evaluate
from corereg.evaluation.submission import write_submission
from corereg.io.transforms.formats.learn2reg import read_disp_vox, write_disp_vox
from helpers.cohorts import SHAPE
from helpers.evaluations import run


class TestSubmission:
    def test_new_form_has_both_names_and_the_challenges_header(self, cohort, fields, tmp_path):
        import nibabel

        written = write_submission(cohort.path, fields, tmp_path / "out", names="both")
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
        with pytest.raises(InputError, match=r"smooth enough.*--force"):
            write_submission(cohort.path, folder, tmp_path / "new" / "out", form="npz")
        (folder / f"{name}.nii.gz").unlink()
        with pytest.raises(InputError, match="must be complete"):
            write_submission(cohort.path, folder, tmp_path / "new" / "out")
        assert not (tmp_path / "new").exists()

    def test_sharp_bends_at_few_voxels_do_not_spoil_the_half_size_form(self, cohort, tmp_path):
        """The field changes by more than a voxel there, which no score notices."""
        folder = cohort.write_fields(tmp_path / "fields")
        name, disp_vox = next(iter(cohort.fields.items()))
        bent = disp_vox.copy()
        bent[:, 12, 15, 13] += 4
        write_disp_vox(folder / f"{name}.nii.gz", bent)
        written = write_submission(cohort.path, folder, tmp_path / "out", form="npz", names="long")
        back = read_disp_vox(written[0], SHAPE)
        assert np.abs(back - bent)[:, 2:-2, 2:-2, 2:-2].max() > 1

    def test_rough_fields_can_be_forced_with_a_warning_of_their_change(self, cohort, tmp_path):
        folder = cohort.write_fields(tmp_path / "fields")
        name = next(iter(cohort.fields))
        rough = np.random.default_rng(0).normal(0, 3, (3, *SHAPE)).astype(np.float32)
        write_disp_vox(folder / f"{name}.nii.gz", rough)
        with pytest.warns(UserWarning, match=rf"{name}.*voxels on average.*score differently"):
            written = write_submission(cohort.path, folder, tmp_path / "out", form="npz", force=True)
        assert len(written) == 3
        assert all(path.is_file() for path in written)

    def test_an_earlier_submission_is_replaced_as_a_whole_or_not_at_all(self, cohort, fields, tmp_path):
        out = tmp_path / "out"
        write_submission(cohort.path, fields, out)
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        folder = cohort.write_fields(tmp_path / "fields", scale=0.5)
        last = list(cohort.fields)[-1]
        (folder / f"{last}.nii.gz").write_bytes(b"damaged")
        with pytest.raises(InputError, match=last):
            write_submission(cohort.path, folder, out)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        write_disp_vox(folder / f"{last}.nii.gz", cohort.fields[last] / 2)
        write_submission(cohort.path, folder, out)
        assert {path.name for path in out.iterdir()} == set(before)
        assert all((out / name).read_bytes() != content for name, content in before.items())

    @pytest.mark.parametrize("wrong", [{"form": "tar"}, {"names": "none"}, {"directory": "file"}])
    def test_mistakes_are_refused_before_a_field_is_scored(self, wrong, cohort, fields, tmp_path, monkeypatch):
        def score(*args: object, **options: object) -> None:
            raise AssertionError("scoring has begun")

        monkeypatch.setattr("corereg.evaluation.evaluate.evaluate", score)
        (tmp_path / "file").write_text("")
        words = {"--submission": tmp_path / wrong.get("directory", "out")}
        words |= {f"--submission-{name}": value for name, value in wrong.items() if name != "directory"}
        status, said = run(cohort.path, fields, *(word for item in words.items() for word in item))
        assert status == 2
        assert next(iter(wrong.values())) in said
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_an_archive_scores_as_its_folder_does(self, cohort, fields, tmp_path):
        write_submission(cohort.path, fields, tmp_path / "out", form="npz")
        packed = tmp_path / "out" / "submission.zip"
        found, same = (evaluate(cohort.path, each) for each in (packed, tmp_path / "out"))
        assert found.summary == same.summary
        assert found.rows[0]["field"].startswith(str(packed))
        again = write_submission(cohort.path, packed, tmp_path / "again", names="short")
        assert len(again) == 3

    @pytest.mark.parametrize("wrong", ["nested", "damaged", "no archive", "incomplete"])
    def test_an_archive_that_a_challenge_would_refuse_is_refused(self, wrong, cohort, fields, tmp_path):
        packed = tmp_path / "submission.zip"
        if wrong == "no archive":
            packed.write_text("fields")
        else:
            names = sorted(path.name for path in fields.iterdir())
            with zipfile.ZipFile(packed, "w") as archive:
                for name in names[1:] if wrong == "incomplete" else names:
                    archive.write(fields / name, f"fields/{name}" if wrong == "nested" else name)
        if wrong == "damaged":
            content = bytearray(packed.read_bytes())
            content[len(content) // 2] ^= 255
            packed.write_bytes(content)
        words = {
            "nested": "without their folder",
            "damaged": "pack it again",
            "no archive": "neither a folder nor a zip",
            "incomplete": "without 1 of 3 fields",
        }
        status, said = run(cohort.path, packed)
        assert status == 2
        assert words[wrong] in said
        assert str(packed) in said

    @pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_an_archive_damaged_anywhere_opens_or_is_refused(self, method, tmp_path):
        """Each decompressor raises errors of its own."""
        packed = tmp_path / "submission.zip"
        with zipfile.ZipFile(packed, "w", method) as archive:
            for name in "abc":
                archive.writestr(name, bytes(range(256)) * 40)
        whole, refused = packed.read_bytes(), []
        for place in range(0, len(whole), 3):
            packed.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
            try:
                with opened_fields(packed):
                    pass
            except InputError as error:
                refused.append(str(error))
        assert len(refused) > 10
        assert all(str(packed) in message for message in refused)

    def test_a_full_disk_is_not_blamed_on_the_archive(self, tmp_path, monkeypatch):
        packed = tmp_path / "submission.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("a", "field")

        def full(*args: object, **options: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
        with pytest.raises(OSError, match="No space left"), opened_fields(packed):
            pass

    def test_a_field_that_loses_dice_in_half_size_is_refused_though_it_changes_little(
        self, cohort, fields, tmp_path, monkeypatch
    ):
        """The fields change by 0.03 voxels on average, which small structures notice."""
        monkeypatch.setattr(submission, "HALF_SIZE_DICE", 0.001)
        with pytest.raises(InputError, match=r"changes by 0\.0\d+ voxels.*loses 0\.\d+ of Dice.*--force"):
            write_submission(cohort.path, fields, tmp_path / "out", form="npz")

    def test_command_writes_and_says_so(self, cohort, fields, tmp_path):
        status, said = run(cohort.path, fields, "--submission", tmp_path / "out")
        assert status == 0
        assert "6 files, read back and checked" in said
