"""The paper's experiments from end to end: train, search the working point, score, put the published numbers beside.

Source of the published numbers: CoRe (Kats et al.), Tables 1 to 3. What is done otherwise than there, on purpose: the
smoothing weight is searched on pairs that are not scored, and all structures count.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corereg.data.pairs import read_dataset
from corereg.errors import InputError
from corereg.evaluation.benchmark.peers.catalogue import OWN
from corereg.evaluation.benchmark.plan import Plan
from corereg.evaluation.benchmark.run import Benchmark, benchmark
from corereg.evaluation.cases import Case, Cases, read_cases
from corereg.evaluation.measures import mean_sd, summaries
from corereg.io.atomic import atomic_path, ensure_output_folder
from corereg.report.cohort import write_benchmark
from corereg.report.tables import markdown
from corereg.training.checkpoint import CHECKPOINT
from corereg.training.train import MODEL, train

__all__ = ["PROTOCOLS", "Protocol", "reproduce"]

REPORT = "reproduction.md"
PERCENT = 100


@dataclass(frozen=True, slots=True)
class Published:
    """One method's row in the paper: Dice in %, its standard deviation, SDlogJ, seconds; None where it has none."""

    dice: float
    sd: float | None = None
    sdlogj: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Protocol:
    """One of the paper's data sets."""

    recipe: str
    modality: str
    sdlogj: float
    """Middle of the band in which the paper searches its smoothing weight."""
    scored_part: str
    """The pairs of the data set that are the paper's test pairs."""
    search_cases: tuple[str, ...]
    """Training scans whose pairs the smoothing weight is searched on; none where the data set has validation pairs."""
    methods: Mapping[str, Published]
    objectives: Mapping[str, float]
    views: Mapping[str, float]


PROTOCOLS = {
    "abdomen-ct": Protocol(
        recipe="abdomen-ct",
        modality="ct-abdomen",
        sdlogj=0.145,
        scored_part="validation",  # of Learn2Reg: the paper tests on its 45 pairs
        search_cases=("0002", "0008", "0014", "0020", "0026", "0030"),
        methods={
            "initial": Published(25.9, 7.1),
            "DEEDs": Published(46.5, 8.1, 0.058, 45.2),
            "NiftyReg": Published(34.9, 9.3, 0.034, 123.5),
            "VoxelMorph": Published(35.4, 8.9, 0.134, 0.2),
            "LapIRN": Published(42.4, 8.2, 0.089, 0.7),
            "SAMConvex": Published(49.2, 7.8, 0.096, 5.1),
            "RegCyc": Published(51.1, 7.3, 0.146, 1.2),
            "CoRe": Published(52.1, 7.5, 0.148, 1.2),
        },
        objectives={"registration": 51.1, "contrastive": 50.3, "joint": 52.1},
        views={"none": 51.1, "intensity": 49.4, "geometric": 52.1, "both": 50.2},
    ),
    "chest-ct": Protocol(
        recipe="chest-ct",
        modality="ct",
        sdlogj=0.100,
        scored_part="test",
        search_cases=(),
        methods={
            "initial": Published(34.1, 14.5),
            "DEEDs": Published(88.5, 6.9, 0.049, 45.0),
            "NiftyReg": Published(84.4, 7.4, 0.021, 85.5),
            "VoxelMorph": Published(55.6, 10.3, 0.101, 0.3),
            "LapIRN": Published(83.4, 7.6, 0.075, 0.8),
            "SAMConvex": Published(88.1, 7.1, 0.079, 6.4),
            "RegCyc": Published(87.3, 6.9, 0.106, 1.9),
            "CoRe": Published(89.4, 6.6, 0.109, 1.9),
        },
        objectives={"registration": 87.3, "contrastive": 86.7, "joint": 89.4},
        views={"none": 87.3, "intensity": 89.3, "geometric": 89.4, "both": 89.3},
    ),
}

RUNS: dict[str, dict[str, str]] = {
    "joint": {},
    "registration": {"objective": "registration"},
    "contrastive": {"objective": "contrastive"},
    "intensity": {"views": "intensity"},
    "both-views": {"views": "both"},
}
"""Training runs and their settings: without the contrast there are no views, and geometric views are the method's."""
RUNS_OF_TABLE = {
    1: ("joint",),
    2: ("registration", "contrastive", "joint"),
    3: ("registration", "intensity", "joint", "both-views"),
}
OBJECTIVES = {"registration": "registration", "contrastive": "contrastive", "joint": "joint"}
VIEWS = {"none": "registration", "intensity": "intensity", "geometric": "joint", "both": "both-views"}


def reproduce(
    name: str,
    dataset: Path,
    out: Path,
    *,
    tables: Sequence[int] = (1,),
    plan: Plan | None = None,
    settings: Mapping[str, Any] | None = None,
    command: str = "",
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Train and score as the paper does; goes on where an earlier call into the same folder stopped.

    Args:
        name: a key of `PROTOCOLS`.
        dataset: the paper's data in Learn2Reg's layout. For chest-ct with validation and test pairs and label maps,
            which RAD-ChestCT itself does not have.
        tables: 1, methods; 2, objectives (two more training runs); 3, views (two more).
        plan: threads, seed and time budget of the scoring, and other methods to score beside.
        settings: of the training, on top of the recipe.

    Returns: the report, a Markdown file with the published numbers beside ours.
    Raises:
        InputError: another name or table, or a data set without the pairs that the protocol needs.
    """
    if name not in PROTOCOLS or not set(tables) <= set(RUNS_OF_TABLE) or not tables:
        raise InputError(
            f"got {name!r} and tables {list(tables)}, expected one of {', '.join(PROTOCOLS)} and tables of 1, 2, 3; "
            "correct it"
        )
    protocol = PROTOCOLS[name]
    scored, search = _pairs(protocol, dataset)
    ensure_output_folder(out)
    models = []
    for run in dict.fromkeys(run for table in sorted(tables) for run in RUNS_OF_TABLE[table]):
        models.append(_trained(run, protocol, dataset, out, settings or {}, progress))
    plan = replace(
        plan or Plan(methods=(OWN,)), models=tuple(map(str, models)), part=scored.part, match_sdlogj=protocol.sdlogj
    )
    found = benchmark(
        dataset,
        ensure_output_folder(out / "scores"),
        plan,
        tuning=search,
        own={"modality": protocol.modality, "refine": "paper"},
        command=command,
        progress=progress,
    )
    write_benchmark(found, out / "scores")
    with atomic_path(out / REPORT) as staged:
        staged.write_text(_report(name, protocol, found, tables), encoding="utf-8")
    return out / REPORT


def _pairs(protocol: Protocol, dataset: Path) -> tuple[Cases, Cases]:
    """What is scored, and what the smoothing weight is searched on: no pair, nor scan, is in both."""
    scored = read_cases(dataset, protocol.scored_part)
    if not scored.scored:
        raise InputError(f"got {dataset}, whose {scored.part} pairs have no labels, expected label maps; add them")
    if not protocol.search_cases:
        return scored, read_cases(dataset, "validation")
    found = read_dataset(dataset)
    pairs = [(found.scans[fixed], found.scans[moving]) for fixed, moving in found.training]
    cases = tuple(Case(*pair) for pair in pairs if all(scan.patient in protocol.search_cases for scan in pair))
    if not cases:
        raise InputError(
            f"got {dataset} without training pairs of the scans {', '.join(protocol.search_cases)}, expected some to "
            "search the smoothing weight on; give the paper's data set"
        )
    return scored, Cases(found.name, "training", cases, found.label_names)


def _trained(
    run: str,
    protocol: Protocol,
    dataset: Path,
    out: Path,
    settings: Mapping[str, Any],
    progress: Callable[[str], None] | None,
) -> Path:
    """The model of a run: trained, gone on with, or there already."""
    folder = out / run
    model = folder / MODEL
    if not model.is_file():
        train(
            dataset,
            folder,
            recipe=protocol.recipe,
            settings={"affine": "none"} | RUNS[run] | dict(settings),
            resume=(folder / CHECKPOINT).exists(),
            progress=progress,
        )
    # A method is named after its model's file.
    named = out / f"{run}.safetensors"
    named.write_bytes(model.read_bytes())
    return named


def _report(name: str, protocol: Protocol, found: Benchmark, tables: Sequence[int]) -> str:
    ours = {method.name.rpartition(":")[2]: summaries(found.of(method)) for method in found.methods}
    text = [f"# {name}: published and reproduced\n\nDice in %. Published: CoRe, Tables 1 to 3.\n"]
    if 1 in tables:
        rows = [
            [method, "published", _spread(p.dice, p.sd), _known(p.sdlogj, 3), _known(p.seconds, 1)]
            for method, p in protocol.methods.items()
        ]
        for method in found.methods:
            run = method.name.rpartition(":")[2]
            if run in RUNS and run != "joint":
                continue
            title = "CoRe" if run == "joint" else method.title
            rows.append(
                [title, "**here**", _dice(ours[run]), *(_mean(ours[run], key) for key in ("sdlogj", "seconds"))]
            )
        text.append("## Table 1: methods\n\n" + markdown(["method", "", "Dice", "SDlogJ", "s"], rows))
    for table, heading, published, runs in (
        (2, "objectives", protocol.objectives, OBJECTIVES),
        (3, "views", protocol.views, VIEWS),
    ):
        if table in tables:
            lines = [[key, f"{dice:.1f}", _dice(ours[runs[key]])] for key, dice in published.items()]
            text.append(f"## Table {table}: {heading}\n\n" + markdown([heading, "published", "here"], lines))
    searched = "; ".join(
        f"{model}: R = {words['regularisation']:.3g} (SDlogJ {words['sdlogj']:.3f} over {words['pairs']} pairs)"
        for model, words in (found.provenance["matched"] or {}).items()
    )
    text.append(
        f"Smoothing weights, searched for SDlogJ {protocol.sdlogj:g} on {found.provenance['tuning']} pairs that are "
        f"not scored, where the paper searched on its test pairs: {searched}. Seconds are those of this machine: "
        "scores/provenance.json.\n"
    )
    return "\n".join(text)


def _spread(dice: float, sd: float | None) -> str:
    return f"{dice:.1f}" if sd is None else f"{dice:.1f} \N{PLUS-MINUS SIGN} {sd:.1f}"


def _known(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _dice(found: Mapping[str, Any]) -> str:
    dice = found.get("dice")
    return "" if dice is None else _spread(PERCENT * dice.mean, PERCENT * dice.sd)


def _mean(found: Mapping[str, Any], name: str) -> str:
    return mean_sd(found.get(name), 3 if name == "sdlogj" else 1) if name in found else ""
