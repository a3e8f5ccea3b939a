"""Data sets of every layout. Images are never opened: empty files do."""

import json
from pathlib import Path

import pytest

from corereg.data.layouts.listing import read_table
from corereg.data.pairs import points_of_pair, read_dataset
from helpers.layouts import learn2reg, named, pair, scan_names, touch, write_text
from helpers.refusals import refusal


def test_real_head_and_neck_cohort_has_2701_training_and_15_validation_pairs(data_dir: Path) -> None:
    for path in (data_dir / "headneck", data_dir / "headneck" / "HeadNeckCT_dataset.json"):
        dataset = read_dataset(path)
        assert (len(dataset.scans), len(dataset.training), len(dataset.validation)) == (80, 74 * 73 // 2, 15)
        assert (dataset.name, dataset.layout, dataset.intra_patient) == ("HeadNeckCT", "learn2reg", False)
        assert dataset.label_names[7] == "mandible"
        assert 0 not in dataset.label_names
        assert all(scan.labels is not None and scan.labels.is_file() for scan in dataset.scans)


def test_learn2reg_scans_of_validation_and_test_do_not_train(tmp_path: Path) -> None:
    first, second, third, fourth, fifth, sixth = names = scan_names(range(1, 7))
    learn2reg(
        tmp_path,
        names,
        registration_val=[pair(fifth, second)],
        registration_test=[pair(sixth, sixth, "Ts")],
        labels={"0": {"0": "background", "1": "liver"}, "1": {"2": "spleen"}},
    )
    touch(tmp_path / "labelsTr" / f"{third}.nii.gz")
    dataset = read_dataset(tmp_path)
    assert named(dataset, dataset.training) == [(first, third), (first, fourth), (third, fourth)]
    assert named(dataset, dataset.validation) == [(fifth, second)]
    assert dataset.label_names == {1: "liver", 2: "spleen"}
    assert {scan.name for scan in dataset.scans if scan.labels} == {third}
    assert [scan.patient for scan in dataset.scans[:2]] == ["0001", "0002"]


def test_learn2reg_validation_scans_outside_training_join_the_scans(tmp_path: Path) -> None:
    learn2reg(tmp_path, scan_names([1, 2]), registration_val=[pair(*scan_names([8, 9]), "Ts")])
    touch(*(tmp_path / part / f"{name}.nii.gz" for name in scan_names([8, 9]) for part in ("imagesTs", "labelsTs")))
    dataset = read_dataset(tmp_path)
    assert named(dataset, dataset.training) == [tuple(scan_names([1, 2]))]
    fixed, moving = (dataset.scans[i] for i in dataset.validation[0])
    assert (fixed.image, moving.labels) == (
        tmp_path / "imagesTs" / "Task_0008_0000.nii.gz",
        tmp_path / "labelsTs" / "Task_0009_0000.nii.gz",
    )


def test_lumirs_validation_pairs_are_read_and_their_scans_do_not_train(tmp_path: Path) -> None:
    """Keys and folders as in the challenge's own inference script and evaluation."""
    learn2reg(tmp_path, scan_names([1, 2, 3]), validation=[pair(*scan_names([3, 9]), "Val")])
    touch(*(tmp_path / "imagesVal" / f"{name}.nii.gz" for name in scan_names([3, 9])))
    dataset = read_dataset(tmp_path)
    assert named(dataset, dataset.validation) == [tuple(scan_names([3, 9]))]
    assert named(dataset, dataset.training) == [tuple(scan_names([1, 2]))]


def test_scans_listed_as_validation_are_no_pairs(tmp_path: Path) -> None:
    learn2reg(tmp_path, scan_names([1, 2]), validation=[{"image": "./imagesTr/Task_0002_0000.nii.gz"}])
    assert read_dataset(tmp_path).validation == ()


@pytest.mark.parametrize(
    ("pairing", "expected"),
    [
        ("auto", [("Task_0001_0001", "Task_0001_0000")]),
        ("intra", [("Task_0001_0001", "Task_0001_0000"), ("Task_0002_0001", "Task_0002_0000")]),
        ("inter", [("Task_0001_0001", "Task_0002_0000"), ("Task_0002_0001", "Task_0001_0000")]),
    ],
)
def test_learn2reg_modalities_take_their_sides(tmp_path: Path, pairing: str, expected: list[tuple[str, str]]) -> None:
    """Case 3 is validated: none of its scans trains, listed or not."""
    learn2reg(
        tmp_path,
        [*scan_names([1, 2, 3], 0), *scan_names([1, 2, 3], 1)],
        pairings="paired",
        registration_direction={"fixed": 1, "moving": 0},
        training_paired_images=[pair(f"Task_{case}_0001", f"Task_{case}_0000") for case in ("0001", "0003")],
        registration_val=[pair("Task_0003_0001", "Task_0003_0000")],
    )
    dataset = read_dataset(tmp_path, pairing=pairing)
    assert sorted(named(dataset, dataset.training)) == expected
    assert named(dataset, dataset.validation) == [("Task_0003_0001", "Task_0003_0000")]
    assert dataset.intra_patient is (pairing != "inter")


@pytest.mark.parametrize("folder", ["keypoints01Tr", "keypoints00010000Tr", "keypoints00000001Tr", "landmarks10Tr"])
def test_keypoints_of_a_pair_of_modalities_are_found_in_every_spelling(tmp_path: Path, folder: str) -> None:
    learn2reg(tmp_path, ["Task_0001_0000", "Task_0001_0001", "Task_0002_0000"], pairings="hybrid")
    points = [tmp_path / folder / f"Task_0001_000{modality}.csv" for modality in (1, 0)]
    touch(*points)
    fixed, moving = (read_dataset(tmp_path, pairing="intra").scans[i] for i in (1, 0))
    assert points_of_pair(fixed, moving) == tuple(points)


def test_keypoints_are_found_where_the_json_or_the_layout_has_them(tmp_path: Path) -> None:
    """The JSON gives them the ending of images, as released ones do."""
    listed, beside, neither = names = scan_names([1, 2, 3])
    learn2reg(tmp_path, names)
    places = tmp_path / "k" / f"{listed}.csv", tmp_path / "keypointsTr" / f"{beside}.csv"
    touch(*places)
    first, second, third = read_dataset(tmp_path).scans
    assert points_of_pair(first, second) == places
    assert (third.name, third.points, points_of_pair(first, third)) == (neither, None, None)


def test_nnunet_takes_channel_0_of_each_case(tmp_path: Path) -> None:
    root = tmp_path / "Dataset005_Prostate"
    content = {
        "channel_names": {"0": "T2", "1": "ADC"},
        "labels": {"background": 0, "peripheral": 1, "whole": [1, 2]},
        "file_ending": ".nrrd",
    }
    write_text(root / "dataset.json", json.dumps(content))
    touch(*(root / "imagesTr" / f"case_{case}_000{channel}.nrrd" for case in (10, 11, 12) for channel in (0, 1)))
    touch(root / "labelsTr" / "case_11.nrrd")
    touch(root / "imagesTr" / "._case_10_0000.nrrd", root / "._other_dataset.json")  # notes of macOS
    dataset = read_dataset(root)
    assert named(dataset, dataset.training) == [("case_10", "case_11"), ("case_10", "case_12"), ("case_11", "case_12")]
    assert all(scan.image.name.endswith("_0000.nrrd") for scan in dataset.scans)
    assert [scan.labels for scan in dataset.scans] == [None, root / "labelsTr" / "case_11.nrrd", None]
    assert dataset.label_names == {1: "peripheral"}
    assert (dataset.name, dataset.layout, dataset.validation) == ("Dataset005_Prostate", "nnunet", ())
    assert "3 files" in dataset.notes[0]


METADATA = """NoteAcc_DEID,VolumeAcc_DEID,MRN_DEID,status
trn00001,trn00001.npz,A,ok
trn00002,trn00002.npz,B,ok
trn00003,trn00003.npz,A,ok
trn00004,trn00004.npz,A,ok
trn00005,trn00005.npz,C,ok
trn00006,trn00006.npz,C,ok
tst00001,tst00001.npz,D,ok
tst00002,tst00002.npz,D,ok
val00001,val00001.npz,C,ok
val00002,val00002.npz,E,ok
val00003,val00003.npz,E,ok
oth00001,oth00001.npz,F,ok
trn00099,trn00099.npz,A,ok
"""


@pytest.mark.parametrize("beside", [True, False])
def test_rad_chestct_pairs_scans_of_one_patient(tmp_path: Path, beside: bool) -> None:
    """Patient C is in the test set too, and does not train; a scan without a file or a row is not in the set."""
    scans = tmp_path / "scans"
    names = [line.split(",")[1] for line in METADATA.splitlines()[1:-1]]
    touch(*(scans / name for name in (*names, "trn07777.npz")))
    table = write_text((scans if beside else tmp_path) / "CT_Scan_Metadata_Complete_35747.csv", METADATA)
    dataset = read_dataset(scans, metadata=None if beside else table)
    assert dataset.layout == "rad-chestct"
    assert named(dataset, dataset.training) == [
        ("trn00001", "trn00003"),
        ("trn00001", "trn00004"),
        ("trn00003", "trn00004"),
    ]
    assert named(dataset, dataset.validation) == [("tst00001", "tst00002")]
    assert named(dataset, dataset.test) == [("val00002", "val00003")]
    assert dataset.intra_patient
    assert [note.split()[0] for note in dataset.notes] == ["1", "1", "1"]
    inter = read_dataset(scans, metadata=table, pairing="inter")
    assert set(named(inter, inter.training)) == {(f"trn0000{a}", f"trn0000{b}") for a, b in ((1, 2), (2, 3), (2, 4))}


def test_json_in_the_working_directory_with_its_scans_next_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a.nii", tmp_path / "b.nii")
    write_text(tmp_path / "X_dataset.json", '{"training": [{"image": "a.nii"}, {"image": "./b.nii"}]}')
    monkeypatch.chdir(tmp_path)
    for path in ("X_dataset.json", "."):
        assert [scan.name for scan in read_dataset(path).scans] == ["a", "b"]


def test_folder_pairs_all_its_images_and_dicom_series(tmp_path: Path) -> None:
    names = ["a.nii.gz", "b.nii", "c.NRRD", "d.mha", "e.mhd", "f.npz"]
    touch(*(tmp_path / name for name in (*names, "e.raw", ".hidden.nii", "notes.txt", "other/g.nii.gz")))
    (tmp_path / "series" / "deeper").mkdir(parents=True)
    (tmp_path / "series" / "deeper" / "1").write_bytes(bytes(128) + b"DICM")
    dataset = read_dataset(tmp_path)
    assert [scan.image.name for scan in dataset.scans] == [*names, "series"]
    assert [scan.name for scan in dataset.scans] == ["a", "b", "c", "d", "e", "f", "series"]
    assert set(dataset.training) == {(i, j) for j in range(7) for i in range(j)}
    assert (dataset.layout, dataset.validation, dataset.intra_patient) == ("folder", (), False)


def test_csv_lists_pairs_by_paths_relative_to_it(tmp_path: Path) -> None:
    table = """\ufefffixed, moving,fixed_labels,moving_labels,split
p1/ct.nii.gz,p2/ct.nii.gz,,seg/p2.nii.gz,train

../elsewhere/x.nrrd,p1/ct.nii.gz,,,val
p2/ct.nii.gz, p3.mha,,,
"""
    path = write_text(tmp_path / "set" / "pairs.csv", table)
    folder = path.parent
    images = [folder / "p1/ct.nii.gz", folder / "p2/ct.nii.gz", tmp_path / "elsewhere/x.nrrd", folder / "p3.mha"]
    touch(*images, folder / "seg/p2.nii.gz")
    dataset = read_dataset(path)
    assert [scan.image for scan in dataset.scans] == images
    assert [scan.name for scan in dataset.scans] == ["p1_ct", "p2_ct", "elsewhere_x", "set_p3"]
    assert [scan.labels for scan in dataset.scans] == [None, folder / "seg/p2.nii.gz", None, None]
    assert (dataset.training, dataset.validation) == (((0, 1), (1, 3)), ((2, 0),))
    assert (dataset.name, dataset.layout) == ("pairs", "csv")
    every = read_dataset(path, pairing="inter")
    assert (every.training, every.validation) == (((1, 3),), ((2, 0),))


def test_metadata_without_the_columns_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "trn00001.npz", tmp_path / "trn00002.npz")
    table = write_text(tmp_path / "summary.csv", "VolumeAcc_DEID,sex\ntrn00001.npz,F\n")
    assert "MRN_DEID" in refusal(read_dataset, tmp_path, metadata=table)
    assert "No such file" in refusal(read_dataset, tmp_path, metadata=tmp_path / "gone.csv")


def test_a_row_with_more_cells_than_the_header_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("fixed,moving\na.nii,b.nii,\nc, left.nii,d.nii\n")
    assert "row 2" in refusal(read_table, table)
    table.write_text('fixed,moving\na.nii,b.nii,\n"c, left.nii",d.nii\n')
    assert [row["fixed"] for row in read_table(table)] == ["a.nii", "c, left.nii"]
