"""Points in and out: LPS and RAS are honoured both ways, and a file is written back as it was read."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.points.points import POINT_SUFFIXES, Points, read_points, write_points
from helpers.refusals import refusal

COORDS_MM = np.array([[12.5, -7.25, 104.0], [-3.125, 0.0, 88.5], [40.0, 31.0, -2.75]])
"""RAS."""
LABELS = ["carina", "F-2", "dome, right"]
LPS = (-1, -1, 1)
OFFSET_MM = np.array([1.5, -2.0, 0.25])


def cells(system: str) -> list[str]:
    """x, y and z of each point, between commas, in a coordinate system."""
    signs = LPS if system == "LPS" else (1, 1, 1)
    return [",".join(f"{value + 0.0:g}" for value in row) for row in COORDS_MM * signs]


def fcsv(system: str, stated: str) -> str:
    rows = [
        f'vtkMRMLMarkupsFiducialNode_{n},{xyz},0,0,0,1,1,1,0,"{label}",note {n},'
        for n, (xyz, label) in enumerate(zip(cells(system), LABELS, strict=True))
    ]
    head = [
        "# Markups fiducial file version = 4.10",
        *([f"# CoordinateSystem = {stated}"] if stated else []),
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID",
    ]
    return "\n".join([*head, *rows]) + "\n"


def markups(system: str, **changes: Any) -> str:
    positions = [[float(value) for value in row.split(",")] for row in cells(system)]
    control = [
        {"id": str(n), "label": label, "position": position, "orientation": [1, 0, 0, 0, 1, 0, 0, 0, 1], "locked": True}
        for n, (label, position) in enumerate(zip(LABELS, positions, strict=True))
    ]
    control.insert(1, {"id": "9", "label": "not placed yet", "positionStatus": "undefined"})
    markup = {"type": "Fiducial", "coordinateSystem": system, "coordinateUnits": "mm", "controlPoints": control}
    markup = {key: value for key, value in (markup | changes).items() if value is not None}
    return json.dumps({"@schema": "markups", "markups": [markup], "display": {"color": [1, 0, 0]}})


def csv_with_comment(system: str) -> str:
    rows = [f'{n},{xyz},"{label}"' for n, (xyz, label) in enumerate(zip(cells(system), LABELS, strict=True))]
    return "\n".join([f"# CoordinateSystem = {system}", "case,X,Y,Z,Label", *rows])


def csv_with_columns(system: str) -> str:
    names = ",".join(f"{axis}_{system.lower()}" for axis in "zyx")
    flipped = [",".join(reversed(row.split(","))) for row in cells(system)]
    rows = [f'"{label}",{zyx}' for label, zyx in zip(LABELS, flipped, strict=True)]
    return "\n".join([f"name,{names}", *rows])


def csv_bare(system: str) -> str:
    return "\n".join([f"# CoordinateSystem = {system}", *cells(system)])


FILES = [
    *[pytest.param(".fcsv", fcsv(system, stated), id=f"fcsv-{stated}") for system, stated in
      [("LPS", "LPS"), ("RAS", "RAS"), ("RAS", "0"), ("LPS", "1")]],
    *[pytest.param(".mrk.json", markups(system), id=f"markups-{system}") for system in ("LPS", "RAS")],
    *[pytest.param(".csv", make(system), id=f"{make.__name__}-{system}")
      for make in (csv_with_comment, csv_with_columns, csv_bare) for system in ("LPS", "RAS")],
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "text"), FILES)
def test_points_are_read_in_ras_whatever_the_file_counts_in(tmp_path: Path, suffix: str, text: str) -> None:
    (tmp_path / f"points{suffix}").write_text(text)
    points = read_points(tmp_path / f"points{suffix}")
    np.testing.assert_array_equal(points.coords_mm, COORDS_MM)
    assert points.labels == (None if "csv" in suffix and "carina" not in text else LABELS)


@pytest.mark.parametrize(("suffix", "text"), FILES)
def test_moved_points_keep_everything_else_of_their_file(tmp_path: Path, suffix: str, text: str) -> None:
    source, out = tmp_path / f"source{suffix}", tmp_path / f"out{suffix}"
    source.write_text(text)
    points = read_points(source)
    write_points(out, points.moved_to(points.coords_mm + OFFSET_MM))
    again = read_points(out)
    np.testing.assert_allclose(again.coords_mm, COORDS_MM + OFFSET_MM)
    assert again.labels == points.labels
    write_points(out, again.moved_to(COORDS_MM))
    if suffix == ".mrk.json":
        assert json.loads(out.read_text("utf-8")) == json.loads(text)
    else:
        plain = [line.replace('"', "") for line in text.splitlines()]
        assert [line.replace('"', "") for line in out.read_text("utf-8").splitlines()] == plain


@pytest.mark.parametrize("target", POINT_SUFFIXES)
@pytest.mark.parametrize("system", ["LPS", "RAS"])
def test_conversion_keeps_coordinate_system_and_labels(tmp_path: Path, system: str, target: str) -> None:
    (tmp_path / "source.fcsv").write_text(fcsv(system, system))
    write_points(tmp_path / f"out{target}", read_points(tmp_path / "source.fcsv"))
    points = read_points(tmp_path / f"out{target}")
    np.testing.assert_array_equal(points.coords_mm, COORDS_MM)
    assert points.labels == LABELS
    assert system in (tmp_path / f"out{target}").read_text("utf-8")


@pytest.mark.parametrize(("suffix", "system"), [(".csv", "RAS"), (".fcsv", "LPS"), (".mrk.json", "LPS")])
def test_points_without_a_file_are_written_as_each_format_is_used(tmp_path: Path, suffix: str, system: str) -> None:
    write_points(tmp_path / f"out{suffix}", Points(COORDS_MM))
    points = read_points(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(points.coords_mm, COORDS_MM)
    assert points.labels == ["F-1", "F-2", "F-3"]
    text = (tmp_path / f"out{suffix}").read_text("utf-8")
    assert system in text
    assert ("12.5" in text, "-12.5" in text) == (True, system == "LPS")


def test_points_take_the_file_of_others_that_they_are_like(tmp_path: Path) -> None:
    (tmp_path / "source.fcsv").write_text(fcsv("LPS", "LPS"))
    write_points(tmp_path / "out.fcsv", Points(COORDS_MM), like=read_points(tmp_path / "source.fcsv"))
    assert "note 2" in (tmp_path / "out.fcsv").read_text("utf-8")


def test_positions_survive_to_a_nanometre(tmp_path: Path, grid: Grid) -> None:
    coords = grid.to_world(np.random.default_rng(0).uniform(0, 12, (5, 3)))
    for suffix in POINT_SUFFIXES:
        write_points(tmp_path / f"out{suffix}", Points(coords))
        np.testing.assert_allclose(read_points(tmp_path / f"out{suffix}").coords_mm, coords, atol=1e-9)


@pytest.mark.parametrize(("coordinates", "signs"), [("ras", (1, 1, 1)), ("LPS", LPS)])
def test_bare_table_is_read_when_its_coordinates_are_given(
    tmp_path: Path, coordinates: str, signs: tuple[int, int, int]
) -> None:
    (tmp_path / "points.csv").write_text("\ufeffx,y,z\r\n" + "\r\n".join(cells("RAS")), encoding="utf-8")
    points = read_points(tmp_path / "points.csv", coordinates=coordinates)
    np.testing.assert_array_equal(points.coords_mm, COORDS_MM * signs)


def test_each_markup_counts_in_its_own_system(tmp_path: Path) -> None:
    document = json.loads(markups("LPS"))
    document["markups"] += json.loads(markups("RAS"))["markups"]
    (tmp_path / "points.mrk.json").write_text(json.dumps(document))
    points = read_points(tmp_path / "points.mrk.json")
    np.testing.assert_array_equal(points.coords_mm, np.concatenate([COORDS_MM, COORDS_MM]))
    write_points(tmp_path / "out.mrk.json", points)
    assert json.loads((tmp_path / "out.mrk.json").read_text("utf-8")) == document


def test_reading_again_does_not_change_the_points_that_were_written(tmp_path: Path) -> None:
    (tmp_path / "points.mrk.json").write_text(markups("LPS"))
    points = read_points(tmp_path / "points.mrk.json")
    write_points(tmp_path / "out.mrk.json", points.moved_to(COORDS_MM + OFFSET_MM))
    assert points.source is not None
    np.testing.assert_array_equal(points.source.coords_mm(), COORDS_MM)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("points.txt", "1,2,3", "expected a file of points (.csv, .fcsv, .mrk.json)"),
        ("points.csv", "1,2,3\n4,5,6", "put the line `# CoordinateSystem = RAS`"),
        ("points.csv", "x,y,z\n4,5,6", "or name the columns x_ras,y_ras,z_ras (or x_lps,...)"),
        ("points.csv", "# CoordinateSystem = IJK\n4,5,6", "coordinate system 'IJK'"),
        ("points.csv", "# CoordinateSystem = RAS\nx_lps,y_lps,z_lps\n4,5,6", "both LPS and RAS are stated"),
        ("points.csv", "# CoordinateSystem = RAS\n# CoordinateSystem = LPS\nx,y,z\n4,5,6", "systems RAS and LPS"),
        ("points.csv", "# CoordinateSystem = RAS\nx,y,z,x\n4,5,6,7", "expected one each of x,y,z"),
        ("points.csv", "# CoordinateSystem = RAS\na,b,c\n4,5,6", "with the columns a,b,c, expected x,y,z too"),
        ("points.csv", "# CoordinateSystem = RAS\nx,y,z\n4,5", "with the line '4,5'"),
        ("points.csv", "# CoordinateSystem = RAS\nx,y,z\n4,five,6", "with the line '4,five,6'"),
        ("points.csv", "x_ras,y_ras,z_ras\n10,5,20,5,13,5", "no further ones"),
        ("points.csv", "# CoordinateSystem = RAS\n1,5,2,5,3,5", "no further ones"),
        ("points.csv", "# CoordinateSystem = RAS\nx,y,z\n4,nan,6", "expected finite numbers"),
        ("points.csv", "# CoordinateSystem = RAS\nx;y;z\n4,5,6", "with the line '4,5,6'"),
        ("points.csv", "# CoordinateSystem = RAS\nx;y;z\n4;inf;6", "expected finite numbers"),
        ("points.csv", "# CoordinateSystem = RAS\nx,y,z\n#4,5,6", "without a point in it"),
        ("points.csv", "label,r,a,s,defined\na,1,2,x,1", "expected finite numbers for r,a,s"),
        ("points.csv", "# CoordinateSystem = LPS\nlabel,r,a,s\na,1,2,3", "both RAS and LPS are stated"),
        ("points.csv", "# CoordinateSystem = RAS\nx,y,z\n1,2," + "3" * 200000, "field larger than field limit"),
        ("points.csv", "# CoordinateSystem = RAS\nx,y,z\n", "without a point in it"),
        ("points.csv", "", "does not say its coordinate system"),
        ("points.fcsv", fcsv("LPS", ""), "put the line `# CoordinateSystem = LPS`"),
        ("points.fcsv", fcsv("LPS", "2"), "coordinate system '2'"),
        ("points.mrk.json", "{", "expected Slicer markups in JSON"),
        ("points.mrk.json", "[1]", "expected Slicer markups in JSON"),
        ("points.mrk.json", markups("LPS", coordinateSystem=None), "add coordinateSystem"),
        ("points.mrk.json", markups("LPS", coordinateUnits="cm"), "a Fiducial in cm"),
        ("points.mrk.json", markups("LPS", type="ROI"), "with a ROI in mm"),
        ("points.mrk.json", markups("LPS", controlPoints=[]), "without a point in it"),
        ("points.mrk.json", "[" * 100000, "expected Slicer markups in JSON"),
        ("points.mrk.json", markups("LPS", coordinateSystem=""), "coordinate system ''"),
        *[
            ("points.mrk.json", markups("LPS", controlPoints=[{"position": position}]), "not three finite numbers")
            for position in ([1, "x"], [5], [[1, 2, 3]], [1, 2, None], [1, 2, math.nan], [1, 2, 10**400], "abc", 7)
        ],
        ("points.mrk.json", markups("LPS").replace("12.5", "1e400"), "not three finite numbers"),
        ("points.mrk.json", markups("LPS", controlPoints=[{"label": "a"}]), "not three finite numbers"),
    ],
)  # fmt: skip
def test_bad_points_are_refused_in_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    assert message in refusal(read_points, tmp_path / name)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("padded", [True, False])
def test_table_of_a_spreadsheet_is_read_and_written_back_alike(tmp_path: Path, delimiter: str, padded: bool) -> None:
    pad = delimiter * 3 if padded else ""
    rows = [delimiter.join([label, *xyz.split(",")]) for label, xyz in zip(["a", "#2", "c"], cells("LPS"), strict=True)]
    head = [f"# CoordinateSystem = LPS{pad}", f"# by hand{pad}", delimiter.join(["label", "x", "y", "z"])]
    (tmp_path / "points.csv").write_text("\n".join([*head, *rows, pad]) + "\n")
    points = read_points(tmp_path / "points.csv")
    np.testing.assert_array_equal(points.coords_mm, COORDS_MM)
    assert points.labels == ["a", "#2", "c"]
    write_points(tmp_path / "out.csv", points.moved_to(COORDS_MM + OFFSET_MM))
    again = read_points(tmp_path / "out.csv")
    np.testing.assert_allclose(again.coords_mm, COORDS_MM + OFFSET_MM)
    write_points(tmp_path / "out.csv", again.moved_to(COORDS_MM))
    assert (tmp_path / "out.csv").read_text("utf-8").splitlines() == [*head, *rows]


def test_decimal_commas_are_read_and_written_back(tmp_path: Path) -> None:
    rows = [xyz.replace(",", ";").replace(".", ",") for xyz in cells("RAS")]
    (tmp_path / "points.csv").write_text("\n".join(["# CoordinateSystem = RAS", "x;y;z", *rows]))
    points = read_points(tmp_path / "points.csv")
    np.testing.assert_array_equal(points.coords_mm, COORDS_MM)
    write_points(tmp_path / "out.csv", points)
    assert (tmp_path / "out.csv").read_text("utf-8").splitlines()[2] == "12,5;-7,25;104"


@pytest.mark.parametrize(("names", "system"), [("r,a,s", "RAS"), ("l,p,s", "LPS")])
def test_table_of_slicer_tells_its_system_by_its_columns(tmp_path: Path, names: str, system: str) -> None:
    head = f"label,{names},defined,selected,visible,locked,description"
    rows = [f"F-{n},{xyz},1,1,1,0," for n, xyz in enumerate(cells(system), 1)]
    rows.insert(1, "F-9,,,,0,1,1,0,not placed yet")
    (tmp_path / "points.csv").write_text("\n".join([head, *rows]))
    points = read_points(tmp_path / "points.csv")
    np.testing.assert_array_equal(points.coords_mm, COORDS_MM)
    assert points.labels == ["F-1", "F-2", "F-3"]
    write_points(tmp_path / "out.csv", points)
    assert (tmp_path / "out.csv").read_text("utf-8").splitlines() == [head, *rows]


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("excel_padded.csv", None),
        ("hash_label.csv", ["#1", "#2"]),
        ("semicolon_dot.csv", None),
        ("slicer_table_ras.csv", ["F-1", "F-2"]),
    ],
)
def test_shared_tables_are_read(cases_dir: Path, name: str, labels: list[str] | None) -> None:
    points = read_points(cases_dir / "points" / name)
    np.testing.assert_array_equal(points.coords_mm, [[10.5, -20.25, 30], [-15, 12, 5]])
    assert points.labels == labels


def test_shared_markups_without_a_number_are_refused(cases_dir: Path) -> None:
    assert "not three finite numbers" in refusal(read_points, cases_dir / "points" / "nan.mrk.json")


def test_missing_or_binary_points_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(read_points, tmp_path / "points.csv")
    (tmp_path / "points.csv").write_bytes(b"\xff\xfe\x00")
    assert "not readable text" in refusal(read_points, tmp_path / "points.csv")


def test_given_coordinates_that_contradict_the_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "points.fcsv").write_text(fcsv("LPS", "LPS"))
    assert "both LPS and RAS are stated" in refusal(read_points, tmp_path / "points.fcsv", coordinates="ras")
    assert "'voxels' for the argument" in refusal(read_points, tmp_path / "points.fcsv", coordinates="voxels")


@pytest.mark.parametrize("coords", [COORDS_MM[:2], COORDS_MM[:, :2]])
def test_positions_for_other_points_are_refused(tmp_path: Path, coords: NDArray[np.float64]) -> None:
    assert "give one for each point" in refusal(Points(COORDS_MM).moved_to, coords)


def test_output_of_unknown_format_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    assert "convert or rename" in refusal(write_points, tmp_path / "out.vtk", Points(COORDS_MM))
    assert not any(tmp_path.iterdir())
