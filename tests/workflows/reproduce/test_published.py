"""The published figures against a transcription of the paper's tables."""

import pytest

from corereg.workflows.reproduce.published import METHODS, OBJECTIVES, VIEWS, Published

TABLE_1 = """
| initial | 25.9 +- 7.1 | - | - | 34.1 +- 14.5 | - | - |
| DEEDs | 46.5 +- 8.1 | 0.058 | 45.2 | 88.5 +- 6.9 | 0.049 | 45.0 |
| NiftyReg | 34.9 +- 9.3 | 0.034 | 123.5 | 84.4 +- 7.4 | 0.021 | 85.5 |
| VoxelMorph | 35.4 +- 8.9 | 0.134 | 0.2 | 55.6 +- 10.3 | 0.101 | 0.3 |
| LapIRN | 42.4 +- 8.2 | 0.089 | 0.7 | 83.4 +- 7.6 | 0.075 | 0.8 |
| SAMConvex | 49.2 +- 7.8 | 0.096 | 5.1 | 88.1 +- 7.1 | 0.079 | 6.4 |
| RegCyc | 51.1 +- 7.3 | 0.146 | 1.2 | 87.3 +- 6.9 | 0.106 | 1.9 |
| CoRe | 52.1 +- 7.5 | 0.148 | 1.2 | 89.4 +- 6.6 | 0.109 | 1.9 |
"""
TABLE_2 = """
| registration | 51.1 | 87.3 |
| contrastive | 50.3 | 86.7 |
| joint | 52.1 | 89.4 |
"""
TABLE_3 = """
| none | 51.1 | 87.3 |
| intensity | 49.4 | 87.5 |
| geometric | 52.1 | 89.4 |
| both | 50.2 | 89.3 |
"""


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.strip().splitlines()]


def figure(cell: str) -> float | None:
    return None if cell == "-" else float(cell)


@pytest.mark.parametrize(("protocol", "first"), [("abdomen-ct", 1), ("chest-ct", 4)])
def test_table_1_is_the_papers(protocol: str, first: int) -> None:
    transcribed = {}
    for name, *row in cells(TABLE_1):
        dice, sdlogj, seconds = row[first - 1 : first + 2]
        mean, _, sd = dice.split()
        transcribed[name] = Published(float(mean), float(sd), figure(sdlogj), figure(seconds))
    assert METHODS[protocol] == transcribed


@pytest.mark.parametrize(("protocol", "column"), [("abdomen-ct", 1), ("chest-ct", 2)])
@pytest.mark.parametrize(("ours", "table"), [(OBJECTIVES, TABLE_2), (VIEWS, TABLE_3)])
def test_tables_2_and_3_are_the_papers(ours, table: str, protocol: str, column: int) -> None:
    assert ours[protocol] == {row[0]: float(row[column]) for row in cells(table)}


@pytest.mark.parametrize("protocol", METHODS)
def test_the_tables_agree_where_they_share_a_model(protocol: str) -> None:
    core, regcyc = METHODS[protocol]["CoRe"].dice, METHODS[protocol]["RegCyc"].dice
    assert OBJECTIVES[protocol]["joint"] == VIEWS[protocol]["geometric"] == core
    assert OBJECTIVES[protocol]["registration"] == VIEWS[protocol]["none"] == regcyc
