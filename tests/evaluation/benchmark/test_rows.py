"""Rows on disk: a file damaged in any way gives every intact row, and takes new ones."""

import json

import pytest

from corereg.evaluation.benchmark.rows import append_row, read_rows, resume_rows

ROWS = [
    {"method": "truth", "settings_hash": "a1", "fixed": f"f{n}", "moving": "m", "status": "ok", "dice": n / 4}
    for n in range(3)
]


def write(path, ending: bytes) -> None:
    for row in ROWS:
        append_row(path, row)
    with path.open("ab") as file:
        file.write(ending)


@pytest.mark.parametrize("cut", [1, 20, -2, -1])
def test_row_after_a_torn_last_line_is_kept(cut, tmp_path):
    path = tmp_path / "rows.jsonl"
    torn = json.dumps(ROWS[0] | {"fixed": "torn"})[:cut].encode()
    write(path, torn)
    assert resume_rows(path) == ROWS
    append_row(path, ROWS[0] | {"fixed": "new"})
    assert [row["fixed"] for row in read_rows(path)] == ["f0", "f1", "f2", "new"]
    assert path.read_text("utf-8").count("\n") == 4
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    "ending",
    [
        b"\0" * 50,
        b"\xff\xfe\n",
        b"[1, 2]\n",
        b'{"method": "truth"}\n',
        b'{"method": ["truth"], "settings_hash": "", "fixed": "", "moving": "", "status": ""}\n',
        b"[" * 100_000 + b"\n",
        b"\n\n",
    ],
)
def test_lines_that_are_no_rows_are_removed(ending, tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, ending)
    assert read_rows(path) == ROWS
    assert resume_rows(path) == ROWS
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == ROWS


def test_intact_file_is_not_touched(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, b"")
    before = path.stat()
    assert resume_rows(path) == ROWS
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


def test_missing_file_has_no_rows(tmp_path):
    assert resume_rows(tmp_path / "rows.jsonl") == []
    assert not (tmp_path / "rows.jsonl").exists()


def test_values_that_json_lacks_become_null(tmp_path):
    append_row(tmp_path / "rows.jsonl", ROWS[0] | {"dice": float("nan"), "hd95_mm": float("inf")})
    (row,) = read_rows(tmp_path / "rows.jsonl")
    assert row["dice"] is None
    assert row["hd95_mm"] is None
