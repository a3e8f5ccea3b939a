"""Pairs of a data set, and what is refused. Images are never opened: empty files do."""

from pathlib import Path
from typing import Any

import pytest

from corereg.data.layouts.listing import read_table
from corereg.data.pairs import read_dataset
from helpers.layouts import learn2reg, named, pair, scan_names, touch, write_text
from helpers.refusals import refusal


def test_same_stem_twice_still_gives_two_names(tmp_path: Path) -> None:
    touch(tmp_path / "a.nii.gz", tmp_path / "a.mha")
    names = [scan.name for scan in read_dataset(tmp_path).scans]
    assert len(set(names)) == 2


def nothing(folder: Path) -> Path:
    return folder / "nowhere"


def one_scan(folder: Path) -> Path:
    touch(folder / "a.nii.gz")
    return folder


def images_one_level_down(folder: Path) -> Path:
    touch(folder / "scans" / "a.nii.gz", folder / "scans" / "b.nii.gz")
    return folder


def text_file(folder: Path) -> Path:
    return write_text(folder / "scans.txt", "a b")


def broken_json(folder: Path) -> Path:
    return write_text(folder / "X_dataset.json", '{"training": [')


def other_json(folder: Path) -> Path:
    return write_text(folder / "config.json", '{"steps": 3}')


def json_list(folder: Path) -> Path:
    return write_text(folder / "config.json", "[1, 2]")


def two_jsons(folder: Path) -> Path:
    touch(folder / "A_dataset.json", folder / "B_dataset.json")
    return folder


def scans_missing(folder: Path) -> Path:
    path = learn2reg(folder, scan_names(range(1, 8)))
    for case in (2, 5, 6):
        (folder / "imagesTr" / f"Task_{case:04d}_0000.nii.gz").unlink()
    return path


def entry_without_an_image(folder: Path) -> Path:
    return write_text(folder / "X_dataset.json", '{"training": [{"label": "a.nii.gz"}, {"label": "b.nii.gz"}]}')


def pair_without_moving(folder: Path) -> Path:
    return learn2reg(folder, scan_names([1, 2]), registration_val=[{"fixed": "a.nii.gz"}])


def folder_of_labels(folder: Path) -> Path:
    touch(folder / "labelsTr" / "a.nii.gz", folder / "labelsTr" / "b.nii.gz")
    return folder / "labelsTr"


def labels_listed_as_images(folder: Path) -> Path:
    touch(folder / "labelsTr" / "a.nii.gz", folder / "labelsTr" / "b.nii.gz")
    text = '{"training": [{"image": "labelsTr/a.nii.gz"}, {"image": "labelsTr/b.nii.gz"}]}'
    return write_text(folder / "X_dataset.json", text)


def csv_of(text: str) -> Any:
    def write(folder: Path) -> Path:
        touch(folder / "a.nii", folder / "b.nii")
        return write_text(folder / "pairs.csv", text)

    return write


def csv_in_utf16(folder: Path) -> Path:
    (folder / "pairs.csv").write_bytes("fixed,moving\na.nii,b.nii\n".encode("utf-16"))
    return folder / "pairs.csv"


@pytest.mark.parametrize(
    ("write", "reported"),
    [
        (nothing, "does not exist"),
        (one_scan, "with 1 scan "),
        (images_one_level_down, "with 0 scans"),
        (text_file, "a dataset JSON or a CSV"),
        (broken_json, "not valid JSON"),
        (other_json, "without `training` or `registration_val`"),
        (json_list, "`channel_names`"),
        (two_jsons, "A_dataset.json, B_dataset.json"),
        (scans_missing, "Task_0002_0000.nii.gz, which does not exist (3 of 7 files"),
        (entry_without_an_image, "expected objects with `image`"),
        (pair_without_moving, "`fixed` and `moving`"),
        (folder_of_labels, "rather than labels"),
        (labels_listed_as_images, "rather than labels"),
        (csv_of("fixed,moving\na.nii,b.nii\na.nii,a.nii\n"), "with itself"),
        (csv_of("fixed|moving\na.nii|b.nii\n"), "columns fixed|moving"),
        (csv_of("fixed;moving\na.nii;b.nii;c.nii\n"), "that hold a semicolon into double quotes"),
        (csv_of("fixed,moving\na.nii,b.nii\nb.nii,\n"), "pair 2"),
        (csv_of("fixed,moving,moving\na.nii,b.nii,a.nii\n"), "several columns 'moving'"),
        (csv_of("fixed,moving,fixed_labels\na.nii,b.nii,c.nii\na.nii,d.nii,e.nii\n"), "one map for each scan"),
        (csv_of("fixed,moving,split\na.nii,b.nii,tset\n"), "'tset'"),
        (csv_of("fixed,moving,fixed_labels\na.nii,b.nii,c.nii\n"), "c.nii, which does not exist (1 of 3"),
        (csv_of("fixed,moving\n"), "with 0 scans"),
        (csv_of(""), "with 0 scans"),
        (csv_in_utf16, "expected a CSV in UTF-8"),
    ],
)
def test_anything_but_a_data_set_is_refused_in_one_line(tmp_path: Path, write: Any, reported: str) -> None:
    assert reported in refusal(read_dataset, write(tmp_path))


def test_pairs_of_one_patient_are_refused_where_patients_are_unknown(tmp_path: Path) -> None:
    touch(tmp_path / "a.nii", tmp_path / "b.nii")
    assert "patients are unknown" in refusal(read_dataset, tmp_path, pairing="intra")


def test_unknown_pairing_is_refused(tmp_path: Path) -> None:
    assert "auto, inter, intra" in refusal(read_dataset, tmp_path, pairing="all")


@pytest.mark.parametrize("separator", [",", ";", "\t", ",\t"])
@pytest.mark.parametrize("mark", ["", "\N{ZERO WIDTH NO-BREAK SPACE}"])
def test_any_separator_of_a_spreadsheet_gives_the_same_rows(tmp_path: Path, separator: str, mark: str) -> None:
    cells = [
        ("fixed", "moving", "name", "spacing"),
        ("a 1.nii", "b,1.nii" if separator == ";" else "b.nii", "x", "2.5"),
    ]
    text = "\n".join(["", *(separator.join(row) for row in cells), ""])
    (row,) = read_table(write_text(tmp_path / "pairs.csv", mark + text))
    assert row == dict(zip(*cells, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nfixed;moving\na.nii;b, 1.nii\n",
        "sep=|\r\nfixed|moving\r\na.nii|b, 1.nii\r\n",
        "fixed;moving;\na.nii;b, 1.nii;\n;;\n",
        ',fixed,moving\n0,a.nii,"b, 1.nii"\n',
        'fixed, moving\n  ,  \na.nii, "b, 1.nii"\n   \n',
    ],
)
def test_what_spreadsheets_and_libraries_add_to_a_table_is_left_out(tmp_path: Path, text: str) -> None:
    assert read_table(write_text(tmp_path / "pairs.csv", text)) == [{"fixed": "a.nii", "moving": "b, 1.nii"}]


def test_a_table_lists_test_pairs_whose_scans_do_not_train(tmp_path: Path) -> None:
    touch(*(tmp_path / f"{name}.nii" for name in "abcdef"))
    table = "fixed,moving,split\na.nii,b.nii,\nc.nii,d.nii,val\ne.nii,f.nii,test\n"
    dataset = read_dataset(write_text(tmp_path / "pairs.csv", table))
    splits = (dataset.training, dataset.validation, dataset.test)
    assert [named(dataset, pairs) for pairs in splits] == [[("a", "b")], [("c", "d")], [("e", "f")]]
    inter = read_dataset(tmp_path / "pairs.csv", pairing="inter")
    assert named(inter, inter.training) == [("a", "b")]


def test_listed_test_pairs_count_where_their_files_exist(tmp_path: Path) -> None:
    path = learn2reg(
        tmp_path,
        scan_names(range(1, 6)),
        registration_val=[pair("Task_0004_0000", "Task_0005_0000")],
        registration_test=[
            pair("Task_0007_0000", "Task_0008_0000", "Ts"),
            pair("Task_0009_0000", "Task_0010_0000", "Ts"),
        ],
    )
    dataset = read_dataset(path)
    assert dataset.test == ()
    assert "2 listed test pairs" in dataset.notes[0]
    touch(*(tmp_path / "imagesTs" / f"Task_{case:04d}_0000.nii.gz" for case in (7, 8)))
    dataset = read_dataset(path)
    assert named(dataset, dataset.test) == [("Task_0007_0000", "Task_0008_0000")]
    assert {scan for p in dataset.training for scan in p} == {0, 1, 2}
