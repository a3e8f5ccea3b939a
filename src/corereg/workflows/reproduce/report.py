"""reproduction.md: every row of the paper's tables, published and here, with what the numbers here rest on.

A reader must not mistake a short run, part of the data or a missed working point for a reproduction: such rows are
marked, and the page begins with what differs from the paper.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corereg.evaluation.benchmark.peers.catalogue import Method
from corereg.evaluation.benchmark.run import Benchmark
from corereg.evaluation.measures import values
from corereg.evaluation.statistics import Summary, compare, holm, summarise
from corereg.report.tables import markdown, p_text
from corereg.settings import changed_keys
from corereg.training.config import TrainConfig
from corereg.workflows.reproduce.protocol import Protocol, ProtocolData
from corereg.workflows.reproduce.published import INITIAL, METHODS, OBJECTIVES, OURS, VIEWS, Published
from corereg.workflows.reproduce.runs import JOINT, OBJECTIVE_RUNS, VIEW_RUNS, run_config

__all__ = ["Reproduction", "write_up"]

PERCENT = 100.0
NOT_APPLICABLE = "n/a"
MISSED = "\N{DAGGER}"
"""Marks an SDlogJ outside the paper's band."""
PUBLISHED, HERE = "published", "**here**"
HEADER = ["", "", "pairs", "Dice %", "SDlogJ", "s"]
REGCYC_RUN = "registration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """Everything that the page reports."""

    protocol: Protocol
    data: ProtocolData
    config: TrainConfig
    """Configuration of the joint run."""
    tables: Sequence[int]
    found: Benchmark
    spacings_mm: Mapping[str, Sequence[float]]
    """Voxel size of each run's working grid, as its model's card states it."""
    pictures: Sequence[str] = ()
    """Paths of pictures, relative to the page."""
    trained_peers: Sequence[str] = ()
    """How other methods were trained, a sentence for each."""

    def runs(self) -> dict[str, Method]:
        """The methods of this package, by the run that trained their model."""
        return {method.name.rpartition(":")[2]: method for method in self.found.methods if ":" in method.name}

    def peers(self) -> list[Method]:
        """The other methods."""
        return [method for method in self.found.methods if method not in self.runs().values()]


def write_up(done: Reproduction) -> str:
    """The page as Markdown."""
    parts = [f"# {done.protocol.name}: published and reproduced\n", _differences(done)]
    if 1 in done.tables:
        parts.append(_methods_table(done))
    for table, title, published, runs in (
        (2, "objectives", OBJECTIVES, OBJECTIVE_RUNS),
        (3, "views", VIEWS, VIEW_RUNS),
    ):
        if table in done.tables:
            parts.append(_ablation_table(done, table, title, published[done.protocol.name], runs))
    parts.append(_legend(done))
    if done.pictures:
        parts.append("## Figure 3: three test pairs before and after\n")
        parts += [f"![{path}]({path})\n" for path in done.pictures]
    parts.append(_working_points(done))
    return "\n".join(parts)


def _differences(done: Reproduction) -> str:
    """What keeps this from being a reproduction, first of all; then what was done in any case."""
    protocol, data, config = done.protocol, done.data, done.config
    missing = []
    for name, here, paper in (
        ("training", len(data.training.training), protocol.training_pairs),
        ("test", len(data.scored.cases), protocol.test_pairs),
    ):
        if here != paper:
            missing.append(f"{here} {name} pairs instead of {paper}")
    recipe = run_config(JOINT, protocol, {})
    changed = [f"{change} " for change in changed_keys(recipe, config)]
    if changed:
        missing.append(f"training settings other than the paper's: {'; '.join(c.strip() for c in changed)}")
    for run, spacing in done.spacings_mm.items():
        if any(not math.isclose(mm, protocol.spacing_mm, rel_tol=0.01) for mm in spacing):
            shown = " x ".join(f"{mm:.3g}" for mm in spacing)
            missing.append(f"{run} trained on a grid of {shown} mm instead of {protocol.spacing_mm:g} mm")
    verdict = (
        "The data set, splits, training settings and grid have the sizes and values of the paper.\n"
        if not missing
        else "**This is not a reproduction of the paper.** It differs in:\n\n" + "".join(f"- {m}\n" for m in missing)
    )
    steps = config.cycles * config.steps_per_cycle
    ran = (
        f"Data set {data.training.name}: {len(data.training.training)} training pairs, {len(data.search.cases)} pairs "
        f"to search R on, {len(data.scored.cases)} test pairs. Each model trained for {config.cycles} cycles of "
        f"{config.steps_per_cycle} steps ({steps} in all), {config.batch_size} pairs per step, seed {config.seed}.\n"
    ) + "".join(f"\n{sentence}\n" for sentence in done.trained_peers)
    return f"{verdict}\n{ran}"


def _methods_table(done: Reproduction) -> str:
    published, runs = METHODS[done.protocol.name], done.runs()
    here: dict[str, Method] = {OURS: runs[JOINT]}
    if REGCYC_RUN in runs:
        here["RegCyc"] = runs[REGCYC_RUN]
    by_title = {method.title: method for method in done.peers()}
    lines = []
    for title, row in published.items():
        lines.append([title, PUBLISHED, "", *_published(row)])
        if title == INITIAL:
            before = values(done.found.of(runs[JOINT]), "dice_before")
            lines.append([title, HERE, str(len(before)), _dice(summarise(before)), "", ""])
        elif title in here or title in by_title:
            method = here.get(title) or by_title.pop(title)
            lines.append([title, HERE, *_measured(done, method)])
    lines += [[title, HERE, *_measured(done, method)] for title, method in by_title.items()]
    p = _p_values(done)
    for line in lines:
        line.append(p.get(line[0], "") if line[1] == HERE else "")
    return "## Table 1: methods\n\n" + markdown([*HEADER, f"p against {OURS}"], lines)


def _ablation_table(
    done: Reproduction, table: int, title: str, published: Mapping[str, float], runs: Mapping[str, str]
) -> str:
    methods, lines = done.runs(), []
    for row, dice in published.items():
        lines.append([row, PUBLISHED, "", *_published(Published(dice))])
        lines.append([row, HERE, *_measured(done, methods[runs[row]])])
    return f"## Table {table}: {title}\n\n" + markdown(HEADER, lines)


def _published(row: Published) -> list[str]:
    sd = "" if row.sd is None else f" \N{PLUS-MINUS SIGN} {row.sd:.1f}"
    sdlogj = "" if row.sdlogj is None else f"{row.sdlogj:.3f}"
    return [f"{row.dice:.1f}{sd}", sdlogj, "" if row.seconds is None else f"{row.seconds:.1f}"]


def _measured(done: Reproduction, method: Method) -> list[str]:
    rows = done.found.of(method)
    if not rows:
        return [f"0 of {len(done.data.scored.cases)}", *[NOT_APPLICABLE] * 3]
    dice, sdlogj, seconds = (summarise(values(rows, name)) for name in ("dice", "sdlogj", "seconds"))
    low, high = done.protocol.sdlogj_band
    own = method in done.runs().values()
    mark = MISSED if own and not low <= sdlogj.mean <= high else ""
    count = f"{len(rows)} of {len(done.data.scored.cases)}"
    return [count, _dice(dice), _spread(sdlogj, 3) + mark, _spread(seconds, 1)]


def _dice(found: Summary) -> str:
    return _spread(found, 1, PERCENT)


def _spread(found: Summary, digits: int, factor: float = 1.0) -> str:
    """Mean and standard deviation; a single pair has none."""
    sd = NOT_APPLICABLE if math.isnan(found.sd) else f"{factor * found.sd:.{digits}f}"
    return f"{factor * found.mean:.{digits}f} \N{PLUS-MINUS SIGN} {sd}"


def _p_values(done: Reproduction) -> dict[str, str]:
    """Wilcoxon's p of each row of Table 1 against ours, over the pairs that both have, as is and corrected by Holm."""
    runs = done.runs()
    ours = {_pair(row): row for row in done.found.of(runs[JOINT])}
    others = {method.title: done.found.of(method) for method in done.peers()}
    if REGCYC_RUN in runs:
        others["RegCyc"] = done.found.of(runs[REGCYC_RUN])
    others[INITIAL] = [row | {"dice": row.get("dice_before")} for row in ours.values()]
    raw = {}
    for title, rows in others.items():
        pairs = [(ours[_pair(row)], row) for row in rows if _pair(row) in ours]
        first, second = (values([pair[side] for pair in pairs], "dice") for side in (0, 1))
        raw[title] = compare(first, second).p if len(pairs) > 1 else math.nan
    corrected = holm(raw)
    return {
        title: NOT_APPLICABLE if math.isnan(p) else f"{p_text(p)} ({p_text(corrected[title])})"
        for title, p in raw.items()
    }


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["fixed"], row["moving"]


def _legend(done: Reproduction) -> str:
    low, high = done.protocol.sdlogj_band
    return (
        f"Mean \N{PLUS-MINUS SIGN} standard deviation over the test pairs; {NOT_APPLICABLE}: not applicable, as for "
        "the deviation of a single pair. Published: CoRe (Kats et al.), Tables 1 to 3; the paper gives no deviation of "
        f"SDlogJ, and Dice alone for the ablations. {MISSED}: mean SDlogJ outside the paper's band of {low:g} to "
        f"{high:g}, so that the row is not at the paper's working point. p: Wilcoxon signed-rank test of Dice over the "
        "same test pairs, two-sided, uncorrected as in most papers; in brackets corrected by Holm for the rows of the "
        "table. Pairs share scans, so p is optimistic. Seconds are those of this machine (scores/provenance.json), the "
        "published ones those of the paper's.\n"
    )


def _working_points(done: Reproduction) -> str:
    lines = [
        [
            name.rpartition(":")[2],
            f"{point['regularisation']:.3g}",
            f"{point['sdlogj']:.3f}",
            f"{point['pairs']} {point['part']} pairs",
        ]
        for name, point in (done.found.provenance["matched"] or {}).items()
    ]
    return (
        "## Working points\n\n"
        f"R was searched for a mean SDlogJ of {done.protocol.sdlogj:g} on pairs that are not scored; the paper "
        "searched on its test pairs. All structures count; the paper's public code leaves out the last one of the "
        "chest. No test scan was opened before the scoring.\n\n"
        + markdown(["run", "R", "SDlogJ there", "searched on"], lines)
    )
