"""`corereg demo`: the main jobs on data that the package makes itself, from nothing to a trained model and a report."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.data.pairs import read_dataset
from corereg.data.phantom import write_cohort
from corereg.errors import InputError
from corereg.io.atomic import ensure_output_folder
from corereg.io.images.image import read_image
from corereg.lazy import nibabel
from corereg.method.features.model_file import load_model
from corereg.method.features.network_and_mind import with_descriptors
from corereg.method.register import RegistrationResult
from corereg.training.config import from_settings, read_settings
from corereg.training.loop import filled
from corereg.training.objective.objective import new_model
from corereg.training.scans.volumes import prepare_volumes
from corereg.training.train import CONFIG, MODEL, train
from corereg.training.validation import Validation
from corereg.workflows.register import register_to_folder

__all__ = ["compare_with_untrained", "endpoint_error_mm", "run_demo"]

SUBJECTS = 3
SPACING_MM = 3.0
BODY_ABOVE_HU = -500.0
"""Air around the patient, about which a breathing field has nothing to say, is below."""

TRAINED_SUBJECTS = 7
TRAINED_SPACING_MM = 6.0
"""Coarse and few: the training is to be over in a minute or two on a laptop."""

PARTS = ("cohort", "breathing", "patients", "training_cohort", "run")


def run_demo(out: Path, *, command: str = "corereg demo", progress: Callable[[str], None] | None = None) -> list[str]:
    """Register a breathing pair of known motion and two different phantom patients, report both, and train on others.

    Args:
        out: folder for `cohort`, `breathing`, `patients`, `training_cohort`, `run` and, as the demo's face,
            `report.html`; made anew if it is an earlier demo's.
        command: what the reports call the command.

    Returns: lines to print.

    Raises:
        InputError: `out` holds something that is not of an earlier demo.
    """
    say = progress or (lambda stage: None)
    ensure_output_folder(out)
    strangers = sorted(p.name for p in out.iterdir() if p.name not in (*PARTS, "report.html"))
    if strangers:
        raise InputError(f"got the demo folder {out} with {strangers[0]} in it, expected an empty one; choose another")
    for part in PARTS:
        shutil.rmtree(out / part, ignore_errors=True)
    say("making three patients")
    cohort = write_cohort(out / "cohort", subjects=SUBJECTS, spacing_mm=SPACING_MM).parent
    fixed, moving = (cohort / "imagesTs" / f"Phantom_0003_{modality:04d}.nii.gz" for modality in (0, 1))
    breathing = _register(fixed, moving, out / "breathing", command, say)
    truth = np.asarray(nibabel().load(cohort / "fieldsTs" / "disp_0003_0000_0003_0001.nii.gz").dataobj)
    before, after = endpoint_error_mm(breathing, truth)
    first, second = (cohort / "imagesTr" / f"Phantom_{case:04d}_0000.nii.gz" for case in (1, 3))
    patients = _register(first, second, out / "patients", command, say)
    shutil.copyfile(out / "patients" / "report.html", out / "report.html")
    untrained, trained = _train(out, say)
    return [
        f"breathing, known motion: mean error {before:.1f} mm before, {after:.2f} mm after "
        f"({sum(breathing.seconds.values()):.0f} s)",
        f"two patients: mean Dice {patients.metrics['dice_before']:.3f} before, {patients.metrics['dice']:.3f} after, "
        f"SDlogJ {patients.metrics['sdlogj']:.3f} ({sum(patients.seconds.values()):.0f} s)",
        f"trained on {TRAINED_SUBJECTS - 2} unlabelled patients: mean Dice of two others {trained['dice_before']:.3f} "
        f"before, {untrained['dice']:.3f} with untrained features, {trained['dice']:.3f} with trained ones",
        f"open {out / 'report.html'} in a browser, and {out / 'patients'} in 3D Slicer",
    ]


def _train(out: Path, say: Callable[[str], None]) -> tuple[dict[str, float], dict[str, float]]:
    say("making more patients to train on")
    dataset = write_cohort(out / "training_cohort", subjects=TRAINED_SUBJECTS, spacing_mm=TRAINED_SPACING_MM, seed=1)
    result = train(dataset, out / "run", recipe="tiny", progress=say)
    say("comparing with untrained features")
    return compare_with_untrained(dataset, result.folder)


def _register(fixed: Path, moving: Path, out: Path, command: str, say: Callable[[str], None]) -> RegistrationResult:
    def labels(image: Path) -> Path:
        return image.parent.parent / image.parent.name.replace("images", "labels") / image.name

    say(f"registering: {out.name}")
    return register_to_folder(
        fixed,
        moving,
        out,
        fixed_labels=labels(fixed),
        moving_labels=labels(moving),
        command=command,
        affine="none",
    )


def endpoint_error_mm(result: RegistrationResult, truth_vox: NDArray[np.floating]) -> tuple[float, float]:
    """Mean distance inside the body between where the true field sends a voxel and where it is sent.

    Args:
        truth_vox: (I, J, K, 3), voxels of the fixed grid, a Learn2Reg field; both images share the grid.

    Returns: millimetres before (no displacement) and after registration.
    """
    grid = result.fixed.grid
    body = np.argwhere(read_image(result.fixed.name).array > BODY_ABOVE_HU)
    there = body + truth_vox[tuple(body.T)].astype(np.float64)
    start, match = grid.to_world(body), grid.to_world(there)
    found = result.transform.apply_points(start)
    return float(np.linalg.norm(match - start, axis=1).mean()), float(np.linalg.norm(match - found, axis=1).mean())


def compare_with_untrained(dataset: str | Path, run: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Figures of the random network, its statistics filled, and of the run's model on the validation pairs.

    Args:
        dataset: what the run was trained on.
        run: its folder.

    Returns: untrained, trained; see `Validation.measure`.
    """
    config = from_settings(read_settings(run / CONFIG))
    data = read_dataset(dataset, pairing=config.pairing)
    volumes = prepare_volumes(
        data, folder=run / "cache", spacing_mm=config.spacing_mm, modality=config.modality, affine=config.affine
    )
    validation = Validation.of(data, volumes, config)
    both_ct, device = volumes.modality.startswith("ct"), torch.device("cpu")
    untrained = filled(new_model(config, seed=config.seed), volumes, device)
    models = (with_descriptors(model, both_ct=both_ct) for model in (untrained, load_model(run / MODEL)))
    first, second = (validation.measure(model, config, device) for model in models)
    return first, second
