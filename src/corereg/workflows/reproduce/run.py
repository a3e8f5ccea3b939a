"""Train, search the working point, score, and write up: one call that can be repeated until it is done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.evaluation.benchmark.peers.catalogue import OWN, VOXELMORPH
from corereg.evaluation.benchmark.plan import Plan, choose_methods
from corereg.evaluation.benchmark.run import Benchmark, benchmark, kept_field
from corereg.io.atomic import atomic_path
from corereg.io.places import ensure_output_folder
from corereg.method.features.model_file import read_card
from corereg.report.cohort import write_benchmark
from corereg.workflows.reproduce.pictures import draw_pair, shown_cases
from corereg.workflows.reproduce.protocol import PROTOCOLS, labelled_scans, read_protocol_data
from corereg.workflows.reproduce.report import Reproduction, write_up
from corereg.workflows.reproduce.runs import JOINT, TABLES, Trainer, check_folder, run_config, runs_of, trained
from corereg.workflows.reproduce.totalsegmentator import merge_segmentations
from corereg.workflows.reproduce.voxelmorph import describe_training, train_voxelmorph, voxelmorph_model

__all__ = ["REPORT", "reproduce"]

REPORT, SCORES, PICTURES, LABELS = "reproduction.md", "scores", "figure3", "labels"

Line = Callable[[str], None]


def reproduce(
    name: str,
    dataset: Path,
    out: Path,
    *,
    tables: Sequence[int] = (1,),
    plan: Plan | None = None,
    settings: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    metadata: Path | None = None,
    segmentations: Path | None = None,
    totalsegmentator: int | None = None,
    device: str = "auto",
    devices: int = 1,
    command: str = "",
    progress: Line | None = None,
    log: Line | None = None,
) -> Path | None:
    """Train and score as the paper does. An interrupted call resumes if it is repeated.

    No test scan is opened before the scoring: training is watched, and R searched, on other pairs.

    Args:
        name: a key of `PROTOCOLS`.
        dataset: the paper's data, see `read_protocol_data`.
        out: folder of one reproduction; other settings need another folder.
        tables: 1, methods; 2, objectives (two more training runs); 3, views (two more).
        plan: threads, seed and time budget of the scoring, and other methods to score.
        settings: training settings on top of the paper's recipe.
        only: train these models and stop, so that several processes can train into one folder.
        metadata: RAD-ChestCT's table of patients, if it is not in the folder.
        segmentations, totalsegmentator: TotalSegmentator's output and version, see `merge_segmentations`.
        device, devices: where to train, and on how many.
        command: the command line, for the provenance.
        progress: called often with the current stage.
        log: called with lines worth keeping.

    Returns: the report, a Markdown file; None with `only`.

    Raises:
        InputError: an unknown name or table, a data set without the pairs that the protocol needs, a method that cannot
            run, or a folder that holds another reproduction. Raised before any training.
        Interrupted: a signal asked to stop; repeat the call to resume.
    """
    if name not in PROTOCOLS or not tables or not set(tables) <= set(TABLES):
        raise InputError(
            f"got {name!r} and tables {list(tables)}, expected one of {', '.join(PROTOCOLS)} and tables of 1, 2, 3; "
            "correct it"
        )
    protocol, plan = PROTOCOLS[name], plan or Plan(methods=(OWN,))
    needed = runs_of(tables)
    if not set(only) <= set(needed):
        raise InputError(f"got the runs {', '.join(only)}, expected some of {', '.join(needed)}, which the tables need")
    configs = {run: run_config(run, protocol, settings or {}) for run in only or needed}
    if VOXELMORPH in plan.methods:
        plan = replace(plan, trained=((VOXELMORPH, str(voxelmorph_model(out).resolve())),))
    chosen, _ = choose_methods(plan)
    labels = None
    if segmentations is not None:
        scans = labelled_scans(dataset, metadata)
        labels = merge_segmentations(scans, segmentations, out / LABELS, version=totalsegmentator, progress=progress)
    data = read_protocol_data(protocol, dataset, metadata=metadata, labels=labels)
    config = run_config(JOINT, protocol, settings or {})
    check_folder(ensure_output_folder(out), protocol, data, config)
    trainer = Trainer(data=data, out=out, device=device, devices=devices, progress=progress, log=log)
    models = {run: trained(run, configs[run], trainer) for run in configs}
    if only:
        return None
    compared = any(method.name == VOXELMORPH and method.needs_training for method in chosen)
    if compared:
        train_voxelmorph(trainer, config, threads=plan.threads, seed=plan.seed)
    plan = replace(
        plan,
        models=tuple(map(str, models.values())),
        match_sdlogj=protocol.sdlogj,
        keep_fields_of=tuple(case.name for case in shown_cases(data.scored)),
    )
    if log:
        log("searching R and scoring")
    found = benchmark(
        data.scored,
        ensure_output_folder(out / SCORES),
        plan,
        tuning=data.search,
        own={"modality": config.modality, "refine": "paper", "spacing": config.spacing_mm, "device": device},
        command=command,
        progress=progress,
    )
    write_benchmark(found, out / SCORES)
    done = Reproduction(
        protocol=protocol,
        data=data,
        config=config,
        tables=tables,
        found=found,
        spacings_mm={run: read_card(model)["data"]["spacing_mm"] for run, model in models.items()},
        pictures=_draw(found, out),
        trained_peers=(describe_training(config),) if compared else (),
    )
    with atomic_path(out / REPORT) as staged:
        staged.write_text(write_up(done), encoding="utf-8")
    return out / REPORT


def _draw(found: Benchmark, out: Path) -> list[str]:
    """Pictures of three pairs; paths relative to the report."""
    folder = ensure_output_folder(out / PICTURES)
    pictures = []
    for number, case in enumerate(shown_cases(found.cases), start=1):
        fields = {method.title: kept_field(out / SCORES, method, case) for method in found.methods}
        draw_pair(folder / f"pair{number}.png", case, {title: file for title, file in fields.items() if file.is_file()})
        pictures.append(f"{PICTURES}/pair{number}.png")
    return pictures
