"""VoxelMorph for Table 1: its network, trained on the pairs that train our model, for as many steps and pairs a step.

Upstream: `protocol`, `runs`. Downstream: `run`, which scores it like any other method.
"""

import json
import subprocess
from pathlib import Path

from corereg.errors import InputError
from corereg.evaluation.benchmark.peers.catalogue import METHODS, VOXELMORPH
from corereg.evaluation.benchmark.peers.environments import python_of
from corereg.evaluation.benchmark.peers.running import DRIVERS
from corereg.io.atomic import atomic_path
from corereg.io.images.image import read_image, write_image
from corereg.io.images.nifti import is_nifti
from corereg.io.places import ensure_output_folder
from corereg.method.device import find_device
from corereg.preprocessing.intensity import ABDOMEN_RANGE_HU, CT_RANGE_HU
from corereg.training.config import TrainConfig
from corereg.workflows.reproduce.runs import Trainer

__all__ = ["describe_training", "train_voxelmorph", "voxelmorph_model"]

SCRIPT = DRIVERS.with_name("train_voxelmorph.py")
MODEL, TASK, LOG, FINISHED = "model.pt", "task.json", "log.txt", "finished.json"
TAIL_LINES = 3


def voxelmorph_model(out: Path) -> Path:
    """Where the trained network is, or will be."""
    return out / VOXELMORPH / MODEL


def describe_training(config: TrainConfig) -> str:
    """One sentence for the report."""
    return (
        f"VoxelMorph: package voxelmorph, trained from scratch by our own loop on the same training pairs for "
        f"{config.cycles * config.steps_per_cycle} steps of {config.batch_size} pairs; "
        f"{METHODS[VOXELMORPH].settings.partition(';')[0]}."
    )


def train_voxelmorph(trainer: Trainer, config: TrainConfig, *, threads: int, seed: int) -> Path:
    """Train the network, resume its training, or return the finished one.

    Raises:
        InputError: the tool's process failed; its last lines are quoted.
    """
    folder = ensure_output_folder(trainer.out / VOXELMORPH)
    if (folder / FINISHED).is_file():
        return folder / MODEL
    scans = trainer.data.training.scans
    paths = [_nifti(scan.image, scan.name, trainer.out / VOXELMORPH) for scan in scans]
    task = {
        "pairs": [[str(paths[fixed]), str(paths[moving])] for fixed, moving in trainer.data.training.training],
        "spacing_mm": config.spacing_mm,
        "window": ABDOMEN_RANGE_HU if config.modality == "ct-abdomen" else CT_RANGE_HU,
        "steps": config.cycles * config.steps_per_cycle,
        "batch_size": config.batch_size,
        "seed": seed,
        "threads": threads,
        "device": find_device(trainer.device).type,
    }
    with atomic_path(folder / TASK) as staged:
        staged.write_text(json.dumps(task, indent=1), encoding="utf-8")
    if trainer.log:
        trainer.log("training: voxelmorph")
    _run(folder)
    with atomic_path(folder / FINISHED) as staged:
        staged.write_text(json.dumps({"steps": task["steps"]}), encoding="utf-8")
    return folder / MODEL


def _run(folder: Path) -> None:
    command = [python_of(METHODS[VOXELMORPH]), SCRIPT, folder.resolve() / TASK, folder.resolve() / MODEL]
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            process.wait()
        except BaseException:  # an interruption; the last saved step is resumed
            process.kill()
            process.wait()
            raise
    if process.returncode != 0:
        lines = (folder / LOG).read_text("utf-8", errors="replace").strip().splitlines()
        raise InputError(
            f"the training of VoxelMorph failed ({' / '.join(lines[-TAIL_LINES:])}); see {folder / LOG}, or leave "
            f"{VOXELMORPH} out of --methods"
        )


def _nifti(image: Path, name: str, folder: Path) -> Path:
    """The scan as NIfTI, which the tool reads: itself, or a copy."""
    if is_nifti(image):
        return image.resolve()
    copy = ensure_output_folder(folder / "scans") / f"{name}.nii.gz"
    if not copy.is_file():
        scan = read_image(image)
        write_image(copy, scan.array, scan)
    return copy.resolve()
