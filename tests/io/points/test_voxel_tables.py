"""Learn2Reg's tables of points: three voxel coordinates a line, from any spreadsheet."""

from pathlib import Path

import pytest

from corereg.errors import InputError
from corereg.io.points.points import read_voxel_table


@pytest.mark.parametrize(
    "text", ["5.5,6,7\n8,9,10\n", "5.5;6;7 # one\n8;9;10", "5,5;6;7\n\n8;9;10", "5,5\t6\t7\n8\t9\t10\n"]
)
@pytest.mark.parametrize("mark", ["", "\N{ZERO WIDTH NO-BREAK SPACE}"])
def test_any_separator_gives_the_same_points(text: str, mark: str, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(f"{mark}# by hand\n{text}", "utf-8")
    assert read_voxel_table(tmp_path / "points.csv").tolist() == [[5.5, 6, 7], [8, 9, 10]]


@pytest.mark.parametrize(
    "text", ["5,5,6,7\n", "x,y,z\n1,2,3\n", "1;2;3\n1,2,3\n", "1;2\n", "", "1;2;inf\n", "1,2,3\n1,2\n"]
)
def test_anything_but_three_numbers_a_line_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(text, "utf-8")
    with pytest.raises(InputError, match=r"points\.csv .*expected lines of .*check the file"):
        read_voxel_table(tmp_path / "points.csv")
