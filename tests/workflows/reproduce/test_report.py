"""reproduction.md: nothing on it can be taken for more than it is."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from corereg.evaluation.benchmark.peers.catalogue import METHODS as TOOLS
from corereg.evaluation.benchmark.peers.catalogue import Method
from corereg.evaluation.benchmark.run import Benchmark
from corereg.evaluation.cases import Cases
from corereg.workflows.reproduce.protocol import PROTOCOLS, ProtocolData, read_protocol_data
from corereg.workflows.reproduce.report import MISSED, Reproduction, write_up
from corereg.workflows.reproduce.runs import run_config, runs_of
from helpers.protocols import empty_abdomen

PROTOCOL = PROTOCOLS["abdomen-ct"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ProtocolData:
    return read_protocol_data(PROTOCOL, empty_abdomen(tmp_path_factory.mktemp("abdomen")))


def our(run: str) -> Method:
    return replace(TOOLS["corereg"], name=f"corereg:{run}", title=f"corereg, {run}")


def rows_of(method: Method, cases: Cases, dice: float, sdlogj: float) -> list[dict[str, Any]]:
    rng = np.random.default_rng(len(method.name))
    return [
        {
            "method": method.name, "status": "ok", "fixed": case.fixed.name, "moving": case.moving.name,
            "dice": dice + rng.normal(0, 0.02), "dice_before": 0.25 + 0.001 * number, "sdlogj": sdlogj, "seconds": 2.0,
        }
        for number, case in enumerate(cases.cases)
    ]  # fmt: skip


def done(
    data: ProtocolData,
    *,
    tables: tuple[int, ...] = (1, 2, 3),
    settings: dict[str, Any] | None = None,
    sdlogj: float = 0.146,
    peers: tuple[Method, ...] = (),
    spacing: float = 2.0,
) -> Reproduction:
    runs = runs_of(tables)
    methods = (*(our(run) for run in runs), *peers)
    rows = [row for n, m in enumerate(methods) for row in rows_of(m, data.scored, 0.5 - 0.01 * n, sdlogj)]
    point = {"regularisation": 1.5, "sdlogj": 0.144, "pairs": 15, "part": "training"}
    provenance = {"matched": {our(run).name: point for run in runs}}
    return Reproduction(
        protocol=PROTOCOL,
        data=data,
        config=run_config("joint", PROTOCOL, settings or {}),
        tables=tables,
        found=Benchmark(data.scored, methods, tuple(rows), {}, provenance),
        spacings_mm={run: [spacing] * 3 for run in runs},
    )


def lines_of(text: str, first: str) -> list[list[str]]:
    lines = [line[1:-1].split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines if line[0].strip() == first]


def test_the_papers_own_settings_and_data_read_as_a_reproduction(data: ProtocolData) -> None:
    text = write_up(done(data))
    assert "not a reproduction" not in text
    assert "8 cycles of 1000 steps (8000 in all), 2 pairs per step, seed 0" in text
    assert "190 training pairs, 15 pairs to search R on, 45 test pairs" in text


def test_a_run_of_three_steps_cannot_be_read_as_a_reproduction(data: ProtocolData) -> None:
    text = write_up(done(data, settings={"cycles": 1, "steps_per_cycle": 3}))
    head = text.split("##")[0]
    assert "This is not a reproduction" in head
    assert "cycles: 8 -> 1; steps_per_cycle: 1000 -> 3" in head
    assert "(3 in all)" in head


def test_part_of_the_data_and_another_grid_are_named(data: ProtocolData) -> None:
    fewer = replace(data, scored=replace(data.scored, cases=data.scored.cases[:6]))
    text = write_up(done(fewer, spacing=8.0))
    assert "- 6 test pairs instead of 45" in text
    assert "- joint trained on a grid of 8 x 8 x 8 mm instead of 2 mm" in text


def test_every_row_has_pairs_dice_sdlogj_and_seconds_with_deviations(data: ProtocolData) -> None:
    made = done(data)
    text = write_up(made)
    dice = [100 * row["dice"] for row in made.found.of(our("joint"))]
    expected = f"{np.mean(dice):.1f} ± {np.std(dice, ddof=1):.1f}"
    for title in ("CoRe", "joint", "geometric"):
        here = [line for line in lines_of(text, title) if line[1] == "**here**"]
        assert here[0][2:6] == ["45 of 45", expected, "0.146 ± 0.000", "2.0 ± 0.0"]
    assert ["CoRe", "published", "", "52.1 ± 7.5", "0.148", "1.2", ""] in lines_of(text, "CoRe")
    assert ["intensity", "published", "", "49.4", "", ""] in [line[:6] for line in lines_of(text, "intensity")]
    assert [line[1] for line in lines_of(text, "RegCyc")] == ["published", "**here**"]


def test_our_own_pairs_before_registration_are_a_row(data: ProtocolData) -> None:
    text = write_up(done(data, tables=(1,)))
    before = [25 + 0.1 * n for n in range(45)]
    here = lines_of(text, "initial")[1]
    assert here[1:4] == ["**here**", "45", f"{np.mean(before):.1f} ± {np.std(before, ddof=1):.1f}"]


@pytest.mark.parametrize(("sdlogj", "marked"), [(0.134, True), (0.136, False), (0.154, False), (0.156, True)])
def test_a_missed_working_point_is_marked(sdlogj: float, marked: bool, data: ProtocolData) -> None:
    rows = lines_of(write_up(done(data, tables=(1,), sdlogj=sdlogj)), "CoRe")
    assert (MISSED in rows[1][4]) == marked
    assert MISSED not in rows[0][4]


def test_one_pair_has_no_deviation_and_no_p(data: ProtocolData) -> None:
    one = replace(data, scored=replace(data.scored, cases=data.scored.cases[:1]))
    text = write_up(done(one, peers=(TOOLS["niftyreg"],)))
    for title in ("CoRe", "NiftyReg", "joint", "none"):
        row = lines_of(text, title)[1]
        assert row[2] == "1 of 1"
        assert all(cell.endswith("± n/a") for cell in row[3:6])
    assert lines_of(text, "NiftyReg")[1][6] == "n/a"
    assert " nan" not in text


def test_p_is_wilcoxons_against_our_model_over_the_same_pairs(data: ProtocolData) -> None:
    made = done(data, tables=(1,), peers=(TOOLS["niftyreg"],))
    ours, theirs = ([row["dice"] for row in made.found.of(m)] for m in (our("joint"), TOOLS["niftyreg"]))
    before = [row["dice_before"] for row in made.found.of(our("joint"))]
    raw = [stats.wilcoxon(np.subtract(ours, other)).pvalue for other in (theirs, before)]
    cell = lines_of(write_up(made), "NiftyReg")[1][6]
    assert float(cell.split(" (")[0]) == pytest.approx(raw[0], rel=0.1)
    corrected = raw[0] * (2 if raw[0] < raw[1] else 1)
    assert float(cell.split("(")[1].rstrip(")")) == pytest.approx(corrected, rel=0.1)


def test_a_method_that_failed_on_every_pair_has_nan_scores(data: ProtocolData) -> None:
    made = done(data, tables=(1,), peers=(TOOLS["niftyreg"],))
    rows = tuple(r | {"status": "failed"} if r["method"] == "niftyreg" else r for r in made.found.rows)
    text = write_up(replace(made, found=replace(made.found, rows=rows)))
    assert lines_of(text, "NiftyReg")[1][2:] == ["0 of 45", "n/a", "n/a", "n/a", "n/a"]


def test_another_tool_gets_a_row_of_its_own(data: ProtocolData) -> None:
    text = write_up(done(data, tables=(1,), peers=(TOOLS["greedy"],)))
    assert [line[1] for line in lines_of(text, "greedy")] == ["**here**"]


def test_working_points_and_pictures_are_shown(data: ProtocolData) -> None:
    made = replace(done(data), pictures=("figure3/pair1.png",))
    text = write_up(made)
    assert "![figure3/pair1.png](figure3/pair1.png)" in text
    assert ["contrastive", "1.5", "0.144", "15 training pairs"] in lines_of(text, "contrastive")
