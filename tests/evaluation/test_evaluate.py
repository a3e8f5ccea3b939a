"""Fields scored: every form reads the same, mistakes are reported, numbers agree with other people's code."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage, stats

from corereg.errors import InputError
from corereg.evaluation import metrics
from corereg.evaluation.cases import read_cases
from corereg.evaluation.evaluate import evaluate
from corereg.evaluation.field_files import read_field
from corereg.io.images.image import read_labels, to_sitk, write_image
from corereg.io.transforms.convert import convert_transform
from corereg.io.transforms.formats.itk_field import write_displacement_field
from corereg.io.transforms.formats.learn2reg import write_disp_vox
from corereg.io.transforms.formats.registry import FORMATS
from helpers.cohorts import SHAPE, SPACING_MM, Cohort, make_cohort
from helpers.evaluations import run
from helpers.grids import make_grid


def change(path: Path, name: str, value: object) -> Path:
    """A copy of a dataset JSON with one entry changed."""
    copy = path.with_name("Changed_dataset.json")
    copy.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {name: value}))
    return copy


class TestForms:
    def test_true_fields_score_one(self, cohort, fields):
        found = evaluate(cohort.path, fields)
        assert [row["dice"] for row in found.rows] == [1.0, 1.0, 1.0]
        assert max(row["dice_before"] for row in found.rows) < 0.8
        assert found.summary["hd95_mm"].mean == 0
        assert found.suspicions == {}
        assert found.left_out == {}

    @pytest.mark.parametrize("form", ["short", "full npz", "itk nifti", "itk mha", "folder of a registration"])
    def test_other_forms_read_the_same(self, form, cohort, tmp_path):
        for long, disp_vox in cohort.fields.items():
            _, fixed, _, moving, _ = long.split("_")
            if form == "short":
                write_disp_vox(tmp_path / f"disp_{fixed}_{moving}.nii.gz", disp_vox)
            elif form == "full npz":
                np.savez(tmp_path / f"{long}.npz", any_key=np.moveaxis(disp_vox, 0, -1))
            elif form == "folder of a registration":
                (tmp_path / long).mkdir()
                cohort.write_itk(tmp_path / long / "transform.nii.gz", long)
            else:
                cohort.write_itk(tmp_path / f"{long}{'.mha' if form == 'itk mha' else '.nii.gz'}", long)
        found = evaluate(cohort.path, tmp_path)
        for row, disp_vox in zip(found.rows, cohort.fields.values(), strict=True):
            assert row["dice"] > 0.999
            assert row["sdlogj"] == pytest.approx(metrics.sdlogj(disp_vox), abs=1e-5)

    @pytest.mark.parametrize("to", ["itk", "niftyreg", "niftyreg-displacement", "fsl", "numpy"])
    def test_forms_of_other_tools(self, to, cohort, tmp_path):
        name, disp_vox = next(iter(cohort.fields.items()))
        field = cohort.write_itk(tmp_path / "field.nii.gz", name)
        written = tmp_path / f"{name}{FORMATS[to].suffixes[0]}"
        convert_transform(field, written, to=to, fixed=cohort.grid, moving=cohort.grid)
        read = read_field(written, cohort.grid, cohort.grid)
        assert read.unit == "millimetres"
        np.testing.assert_allclose(read.disp_vox, disp_vox, atol=2e-3)

    def test_half_size_npz_of_the_older_tasks(self, cohort, tmp_path):
        for long, disp_vox in cohort.fields.items():
            halved = np.stack([ndimage.zoom(component, 0.5, order=2) for component in disp_vox])
            np.savez_compressed(tmp_path / f"{long}.npz", halved.astype(np.float16))
        found = evaluate(cohort.path, tmp_path)
        assert min(row["dice"] for row in found.rows) > 0.9
        name, disp_vox = next(iter(cohort.fields.items()))
        as_challenge = np.stack(
            [ndimage.zoom(h, 2, order=2) for h in np.load(tmp_path / f"{name}.npz")["arr_0"].astype(np.float32)]
        )
        read = read_field(tmp_path / f"{name}.npz", cohort.grid, cohort.grid).disp_vox
        np.testing.assert_allclose(read, as_challenge, atol=2e-3)
        assert np.abs(read - disp_vox)[:, 2:-2, 2:-2, 2:-2].mean() < 0.05

    def test_itk_field_between_two_geometries_warps_as_simpleitk_does(self, tmp_path):
        fixed_grid = make_grid((20, 26, 22), (2.0, 1.5, 2.5), "oblique", (0.0, 0.0, 0.0))
        moving_grid = make_grid((30, 24, 28), (1.8, 2.2, 1.6), "LPS", (30.0, 30.0, -8.0))
        rng = np.random.default_rng(4)
        moving = ndimage.gaussian_filter(rng.normal(size=moving_grid.shape), 2)
        moving_labels = (np.digitize(moving, np.quantile(moving, [0.4, 0.7]))).astype(np.uint8)
        disp_mm = np.stack([6 * ndimage.gaussian_filter(rng.normal(size=fixed_grid.shape), 4) for _ in range(3)])
        write_displacement_field(tmp_path / "disp_A_B.nii.gz", disp_mm.astype(np.float32), fixed_grid)
        field = read_field(tmp_path / "disp_A_B.nii.gz", fixed_grid, moving_grid)
        ours = metrics.warp_labels(moving_labels, field.disp_vox, other_shape=True)
        loaded = SimpleITK.ReadImage(str(tmp_path / "disp_A_B.nii.gz"), SimpleITK.sitkVectorFloat64)
        theirs = SimpleITK.Resample(
            to_sitk(moving_labels, moving_grid),
            to_sitk(np.zeros(fixed_grid.shape, np.uint8), fixed_grid),
            SimpleITK.DisplacementFieldTransform(loaded),
            SimpleITK.sitkNearestNeighbor,
        )
        same = ours == SimpleITK.GetArrayFromImage(theirs).T
        # The challenge ends the image at the outermost centres, ITK half a voxel further out.
        index = np.stack(np.meshgrid(*map(np.arange, fixed_grid.shape), indexing="ij"), 0) + field.disp_vox
        sizes = np.reshape(moving_grid.shape, (3, 1, 1, 1))
        inner = ((index >= 0) & (index <= sizes - 1)).all(0)
        assert inner.mean() > 0.2
        assert same[inner].mean() > 0.9995
        np.testing.assert_allclose(np.einsum("ac,cijk->aijk", fixed_grid.linear, field.own_vox), disp_mm, atol=1e-5)


class TestMeasures:
    def test_landmarks_in_voxels_give_millimetres(self, cohort, tmp_path):
        still = {name: np.zeros_like(u) for name, u in cohort.fields.items()}
        folder = Cohort(cohort.path, cohort.grid, still).write_fields(tmp_path / "fields")
        landmarks = cohort.path.parent / "landmarksTr"
        landmarks.mkdir(exist_ok=True)
        try:
            np.savetxt(landmarks / "Made_0001_0000.csv", [(5, 6, 7), (8, 9, 10)], delimiter=",")
            np.savetxt(landmarks / "Made_0002_0000.csv", [(6, 6, 7), (8, 9, 12)], delimiter=",")
            rows = evaluate(cohort.path, folder).rows
        finally:
            for file in landmarks.iterdir():
                file.unlink()
        assert rows[0]["tre_mm"] == pytest.approx((SPACING_MM[0] + 2 * SPACING_MM[2]) / 2)
        assert rows[0]["tre_mm"] == rows[0]["tre_before_mm"]
        assert "tre_mm" not in rows[1]

    def test_inverse_consistency_of_a_shift_and_of_one_that_misses(self):
        there = np.zeros((3, 9, 10, 11))
        there[0] = 1.5
        assert metrics.inverse_consistency_mm(there, -there, SPACING_MM).max() == pytest.approx(0)
        back = -there
        back[2] = 2.0
        errors = metrics.inverse_consistency_mm(there, back, SPACING_MM)
        assert errors == pytest.approx(np.full(7 * 10 * 11, 2 * SPACING_MM[2]))

    def test_inverse_consistency_equals_a_slow_loop(self):
        rng = np.random.default_rng(6)
        there, back = rng.normal(0, 0.7, (2, 3, 5, 6, 7))
        expected = []
        for voxel in np.ndindex(5, 6, 7):
            at = np.array(voxel) + there[(slice(None), *voxel)]
            if (at < 0).any() or (at > np.array([4, 5, 6])).any():
                continue
            low = np.minimum(np.floor(at).astype(int), [3, 4, 5])
            share = at - low
            v = np.zeros(3)
            for corner in np.ndindex(2, 2, 2):
                weight = np.prod(np.where(corner, share, 1 - share))
                v += weight * back[(slice(None), *(low + corner))]
            expected.append(np.linalg.norm((at + v - voxel) * SPACING_MM))
        np.testing.assert_allclose(metrics.inverse_consistency_mm(there, back, SPACING_MM), expected, atol=1e-12)

    def test_opposite_fields_in_the_folder_are_held_against_each_other(self, cohort, tmp_path):
        folder = cohort.write_fields(tmp_path / "both")
        for name, disp_vox in cohort.fields.items():
            _, fixed, _, moving, _ = name.split("_")
            write_disp_vox(folder / f"disp_{moving}_0000_{fixed}_0000.nii.gz", -disp_vox)
        rows = evaluate(cohort.path, folder).rows
        expected = [metrics.inverse_consistency_mm(u, -u, SPACING_MM).mean() for u in cohort.fields.values()]
        assert [row["inverse_mm"] for row in rows] == pytest.approx(expected, rel=1e-4)

    def test_test_pairs_come_first_where_they_are_labelled(self, tmp_path):
        made = make_cohort(tmp_path / "test", pairs=2, split="test")
        content = json.loads(made.path.read_text("utf-8"))
        both = change(made.path, "registration_val", content["registration_test"][:1])
        assert (read_cases(both).split, len(read_cases(both).cases)) == ("test", 2)
        assert (read_cases(both, "validation").split, len(read_cases(both, "validation").cases)) == ("validation", 1)
        with pytest.raises(InputError, match="without test pairs"):
            read_cases(change(both, "registration_test", []), "test")


class TestMistakes:
    def test_missing_fields_are_listed_and_status_is_2(self, cohort, tmp_path):
        folder = cohort.write_fields(tmp_path / "fields")
        gone = next(iter(cohort.fields))
        (folder / f"{gone}.nii.gz").unlink()
        status, said = run(cohort.path, folder, "--csv", tmp_path / "rows.csv")
        assert status == 2
        assert f"without 1 of 3 fields, expected {gone} or disp_0001_0002" in said
        assert "--partial" in said
        assert not (tmp_path / "rows.csv").exists()

    def test_partial_scores_the_fields_present(self, cohort, tmp_path):
        folder = cohort.write_fields(tmp_path / "fields")
        first, second, _ = cohort.fields
        (folder / f"{first}.nii.gz").unlink()
        write_disp_vox(folder / f"{second}.nii.gz", cohort.fields[second][:, 1:])
        status, said = run(cohort.path, folder, "--partial", "--json", tmp_path / "all.json")
        assert status == 0
        reported = json.loads((tmp_path / "all.json").read_text("utf-8"))
        assert [row["dice"] for row in reported["rows"]] == [1.0]
        assert len(reported["left_out"]) == 2
        assert "left out Made_0001_0000 <- Made_0002_0000" in said

    def test_field_of_another_shape_is_refused(self, cohort, tmp_path):
        folder = cohort.write_fields(tmp_path / "fields")
        name = next(iter(cohort.fields))
        write_disp_vox(folder / f"{name}.nii.gz", cohort.fields[name][:, 1:])
        status, said = run(cohort.path, folder)
        assert status == 2
        assert "expected (24, 30, 26" in said

    def test_itk_field_on_another_grid_is_refused(self, cohort, tmp_path):
        name = next(iter(cohort.fields))
        elsewhere = make_grid(SHAPE, SPACING_MM, "RAS")
        moved = Cohort(cohort.path, elsewhere, cohort.fields)
        with pytest.raises(InputError, match="expected the grid of the fixed image"):
            read_field(moved.write_itk(tmp_path / "field.nii.gz", name), cohort.grid, cohort.grid)

    @pytest.mark.parametrize("content", [b"", b"no archive", None])
    def test_damaged_files_are_refused(self, content, cohort, tmp_path):
        path = tmp_path / "field.npz"
        if content is None:
            np.savez(path, a=np.zeros((3, 4, 5, 6)), b=np.zeros(2))
        else:
            path.write_bytes(content)
        with pytest.raises(InputError, match=r"field\.npz"):
            read_field(path, cohort.grid, cohort.grid)

    def test_millimetres_where_voxels_belong_are_reported(self, cohort, tmp_path):
        folder = cohort.write_fields(tmp_path / "fields", scale=SPACING_MM)
        status, said = run(cohort.path, folder, "--csv", tmp_path / "rows.csv")
        assert status == 2
        assert "its numbers look like millimetres" in said
        assert len((tmp_path / "rows.csv").read_text("utf-8").splitlines()) == 4
        assert run(cohort.path, folder, "--no-check")[0] == 0

    def test_voxels_where_millimetres_belong_are_reported(self, tmp_path):
        made = make_cohort(tmp_path / "cohort", pairs=1)
        name = next(iter(made.fields))
        in_voxels = np.einsum("ac,cijk->aijk", made.grid.linear / SPACING_MM, made.fields[name])
        write_displacement_field(tmp_path / f"{name}.nii.gz", in_voxels.astype(np.float32), made.grid)
        assert "look like voxels" in str(evaluate(made.path, tmp_path).suspicions)

    @pytest.mark.parametrize(
        ("mistake", "words"), [(lambda u: u[::-1], "axes in reverse"), (lambda u: -u, "from moving to fixed")]
    )
    def test_wrong_axes_and_direction_are_reported(self, mistake, words, cohort, tmp_path):
        wrong = Cohort(cohort.path, cohort.grid, {name: mistake(u) for name, u in cohort.fields.items()})
        reported = evaluate(cohort.path, wrong.write_fields(tmp_path)).suspicions.values()
        assert any(words in text for text in reported)

    def test_field_of_another_pair_is_named(self, cohort, tmp_path):
        first, second, third = cohort.fields.items()
        swapped = {first[0]: second[1], second[0]: first[1], third[0]: third[1]}
        reported = evaluate(cohort.path, Cohort(cohort.path, cohort.grid, swapped).write_fields(tmp_path)).suspicions
        assert set(reported) == {"Made_0001_0000 <- Made_0002_0000", "Made_0003_0000 <- Made_0004_0000"}
        assert "field of Made_0003_0000 <- Made_0004_0000" in reported["Made_0001_0000 <- Made_0002_0000"]

    @pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.2])
    def test_fields_that_are_merely_poor_are_not_suspected(self, share, cohort, tmp_path):
        assert evaluate(cohort.path, cohort.write_fields(tmp_path, scale=share)).suspicions == {}

    @pytest.mark.parametrize("content", ["", "{}", '{"registration_val": []}'])
    def test_data_set_without_pairs_is_refused(self, content, tmp_path):
        (tmp_path / "x_dataset.json").write_text(content)
        assert run(tmp_path / "x_dataset.json", tmp_path)[0] == 2

    def test_missing_folder_is_refused(self, cohort, tmp_path):
        assert run(cohort.path, tmp_path / "nowhere")[0] == 2


class TestOutput:
    def test_csv_has_a_line_for_each_pair_and_a_column_for_each_label(self, cohort, fields, tmp_path):
        assert run(cohort.path, fields, "--csv", tmp_path / "rows.csv")[0] == 0
        with (tmp_path / "rows.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["dice_per_label_2"]) for row in rows] == [1, 1, 1]
        assert float(rows[0]["sdlogj"]) == pytest.approx(metrics.sdlogj(next(iter(cohort.fields.values()))), abs=1e-6)

    def test_a_second_folder_is_compared(self, cohort, fields, tmp_path):
        worse = cohort.write_fields(tmp_path / "worse", scale=0.5)
        found = evaluate(cohort.path, fields, against=worse)
        assert found.against is not None
        differences = [a["dice"] - b["dice"] for a, b in zip(found.rows, found.against.rows, strict=True)]
        assert found.comparisons["dice"].difference == pytest.approx(np.mean(differences))
        assert found.comparisons["dice"].p == pytest.approx(stats.wilcoxon(differences).pvalue)
        status, said = run(cohort.path, fields, "--against", worse)
        assert status == 0
        assert f"{np.mean(differences):+.3f}" in said

    def test_json_is_strict(self, cohort, tmp_path):
        still = Cohort(cohort.path, cohort.grid, {name: np.full_like(u, 99.0) for name, u in cohort.fields.items()})
        found = evaluate(cohort.path, still.write_fields(tmp_path / "away"), check=False)
        assert found.rows[0]["hd95_mm"] == math.inf
        found.write_json(tmp_path / "all.json")
        reported = json.loads((tmp_path / "all.json").read_text("utf-8"), parse_constant=pytest.fail)
        assert reported["rows"][0]["hd95_mm"] is None


def test_real_labels_against_simpleitk(data_dir, tmp_path):
    """The whole command on a real pair list, its Dice held against SimpleITK's for the same warped labels."""
    dataset = data_dir / "headneck" / "HeadNeckCT_dataset.json"
    cases = read_cases(dataset)
    grid = read_labels(cases.cases[0].fixed.labels).grid
    rng = np.random.default_rng(0)
    disp_vox = np.stack([40 * ndimage.gaussian_filter(rng.normal(size=grid.shape), 8) for _ in range(3)])
    for case in cases.cases[:2]:
        write_disp_vox(tmp_path / f"{case.field_names()[1]}.nii.gz", disp_vox.astype(np.float32))
    row = evaluate(dataset, tmp_path, partial=True, check=False).rows[1]
    fixed, moving = (read_labels(scan.labels).array for scan in (cases.cases[1].fixed, cases.cases[1].moving))
    warped = metrics.warp_labels(moving, disp_vox.astype(np.float32))
    oracle = SimpleITK.LabelOverlapMeasuresImageFilter()
    oracle.Execute(*(SimpleITK.GetImageFromArray(a.astype(np.uint8)) for a in (fixed, warped)))
    shared = sorted((set(np.unique(fixed)) & set(np.unique(moving))) - {0})
    expected = {int(label): oracle.GetDiceCoefficient(int(label)) for label in shared}
    found = {label: score for label, score in row["dice_per_label"].items() if not math.isnan(score)}
    assert found == pytest.approx(expected)
    assert row["dice"] == pytest.approx(np.mean(list(expected.values())))


def test_a_mask_of_the_fixed_scan_gives_the_regularity_inside_it_as_well(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "cohort", pairs=1)
    fields = cohort.write_fields(tmp_path / "fields")
    assert "sdlogj_masked" not in evaluate(cohort.path, fields).rows[0]
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:15, 5:22, 6:20] = 1
    (name, disp_vox), fixed = next(iter(cohort.fields.items())), sorted((cohort.path.parent / "imagesTr").iterdir())
    number = name.split("_")[1]
    image = next(path for path in fixed if f"_{number}_" in path.name)
    (cohort.path.parent / "masksTr").mkdir()
    write_image(cohort.path.parent / "masksTr" / image.name, mask, cohort.grid)
    row = evaluate(cohort.path, fields).rows[0]
    assert row["sdlogj_masked"] == pytest.approx(metrics.sdlogj(disp_vox, mask), abs=1e-5)
    assert row["sdlogj_masked"] != pytest.approx(row["sdlogj"], abs=1e-4)


def test_label_maps_without_a_common_label_are_warned_of(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "cohort", pairs=1)
    fields = cohort.write_fields(tmp_path / "fields")
    path = sorted((cohort.path.parent / "labelsTr").iterdir())[0]
    labels = read_labels(path)
    write_image(path, labels.array + 10 * (labels.array > 0), labels)
    with pytest.warns(UserWarning, match="share no label"):
        assert math.isnan(evaluate(cohort.path, fields).rows[0]["dice"])


def test_a_table_does_not_replace_a_field_that_is_scored(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "cohort", pairs=1)
    fields = cohort.write_fields(tmp_path / "fields")
    field = next(fields.iterdir())
    status, said = run(cohort.path, fields, "--csv", field, "--force")
    assert status == 2
    assert "an input of the same command" in said
    for _ in range(2):  # a table of an earlier run, beside the fields, may be replaced
        assert run(cohort.path, fields, "--csv", fields / "rows.csv", "--force")[0] == 0
