"""`corereg demo`: the main jobs on synthetic data, from nothing to a report and a trained model."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.data.pairs import read_dataset
from corereg.data.phantom import write_cohort
from corereg.errors import InputError
from corereg.io.images.image import read_image
from corereg.io.places import ensure_output_folder
from corereg.lazy import nibabel
from corereg.method.features.model_file import load_model
from corereg.method.models import as_registering
from corereg.method.register import RegistrationResult
from corereg.settings import read_settings, with_settings
from corereg.training.config import TrainConfig
from corereg.training.loop import filled
from corereg.training.objective.objective import new_model
from corereg.training.process import cohort_volumes
from corereg.training.train import CONFIG, MODEL, train
from corereg.training.validation import Validation
from corereg.workflows.register import register_to_folder

__all__ = ["compare_with_untrained", "endpoint_error_mm", "run_demo"]

SUBJECTS = 3
SPACING_MM = 3.0
BODY_ABOVE_HU = -500.0
"""Lower HU is air around the patient, where a breathing field has no meaning."""

TRAINED_SUBJECTS = 7
TRAINED_SPACING_MM = 6.0
"""Few patients at a coarse spacing, so that training takes a minute or two on a laptop."""

FOLDERS = ("cohort", "breathing", "patients", "training_cohort", "run")
REPORT = "report.html"


def run_demo(out: Path, *, command: str = "corereg demo", progress: Callable[[str], None] | None = None) -> list[str]:
    """Register a breathing pair of known motion and two different phantom patients, and train on other patients.

    Args:
        out: folder for `cohort`, `breathing`, `patients`, `training_cohort`, `run` and a copy of the patients'
            `report.html`; an earlier demo in it is replaced.
        command: command line shown in the reports.

    Returns: lines to print.

    Raises:
        InputError: `out` holds something that is not from an earlier demo.
    """
    progress = progress or (lambda stage: None)
    ensure_output_folder(out)
    strangers = sorted(path.name for path in out.iterdir() if path.name not in (*FOLDERS, REPORT))
    if strangers:
        raise InputError(f"the demo folder {out} holds {strangers[0]}, expected an empty folder; choose another one")
    for folder in FOLDERS:
        shutil.rmtree(out / folder, ignore_errors=True)
    progress("making three patients")
    cohort = write_cohort(out / "cohort", subjects=SUBJECTS, spacing_mm=SPACING_MM).parent
    fixed, moving = (cohort / "imagesTs" / f"Phantom_0003_{modality:04d}.nii.gz" for modality in (0, 1))
    breathing = _register(fixed, moving, out / "breathing", command, progress)
    truth = np.asarray(nibabel().load(cohort / "fieldsTs" / "disp_0003_0000_0003_0001.nii.gz").dataobj)
    before, after = endpoint_error_mm(breathing, truth)
    first, second = (cohort / "imagesTr" / f"Phantom_{case:04d}_0000.nii.gz" for case in (1, 3))
    patients = _register(first, second, out / "patients", command, progress)
    shutil.copyfile(out / "patients" / REPORT, out / REPORT)
    untrained, trained = _train(out, progress)
    return [
        f"breathing, known motion: mean error {before:.1f} mm before, {after:.2f} mm after "
        f"({sum(breathing.seconds.values()):.0f} s)",
        f"two patients: mean Dice {patients.metrics['dice_before']:.3f} before, {patients.metrics['dice']:.3f} after, "
        f"SDlogJ {patients.metrics['sdlogj']:.3f} ({sum(patients.seconds.values()):.0f} s)",
        f"trained on {TRAINED_SUBJECTS - 2} unlabelled patients: mean Dice of two others {trained['dice_before']:.3f} "
        f"before, {untrained['dice']:.3f} with untrained features, {trained['dice']:.3f} with trained ones",
        f"open {out / REPORT} in a browser, and {out / 'patients'} in 3D Slicer",
    ]


def _register(
    fixed: Path, moving: Path, out: Path, command: str, progress: Callable[[str], None]
) -> RegistrationResult:
    def labels(image: Path) -> Path:
        return image.parent.parent / image.parent.name.replace("images", "labels") / image.name

    progress(f"registering: {out.name}")
    return register_to_folder(
        fixed,
        moving,
        out,
        fixed_labels=labels(fixed),
        moving_labels=labels(moving),
        command=command,
        affine="none",
    )


def _train(out: Path, progress: Callable[[str], None]) -> tuple[dict[str, float], dict[str, float]]:
    progress("making more patients to train on")
    dataset = write_cohort(out / "training_cohort", subjects=TRAINED_SUBJECTS, spacing_mm=TRAINED_SPACING_MM, seed=1)
    result = train(dataset, out / "run", recipe="tiny", progress=progress)
    progress("comparing with untrained features")
    return compare_with_untrained(dataset, result.folder)


def endpoint_error_mm(result: RegistrationResult, truth_vox: NDArray[np.floating]) -> tuple[float, float]:
    """Mean distance inside the body between the true and the found position of each voxel.

    Args:
        truth_vox: true displacement (I, J, K, 3) in voxels of the fixed grid, as in a Learn2Reg field; both images
            share the grid.

    Returns: millimetres without any displacement, and after registration.
    """
    grid = result.fixed.grid
    body = np.argwhere(read_image(result.fixed.name).array > BODY_ABOVE_HU)
    displaced = body + truth_vox[tuple(body.T)].astype(np.float64)
    start_mm, match_mm = grid.to_world(body), grid.to_world(displaced)
    found_mm = result.transform.apply_points(start_mm)
    before, after = (np.linalg.norm(match_mm - points, axis=1).mean() for points in (start_mm, found_mm))
    return float(before), float(after)


def compare_with_untrained(dataset: str | Path, run: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Figures of the random network (statistics filled) and of the run's model on the validation pairs.

    Args:
        dataset: the data set that the run was trained on.
        run: the run's folder.

    Returns: untrained, trained; see `Validation.measure`.
    """
    config = with_settings(TrainConfig(), read_settings(run / CONFIG))
    data = read_dataset(dataset, pairing=config.pairing)
    volumes = cohort_volumes(data, config, run / "cache")
    validation = Validation.of(data, volumes, config)
    both_ct, device = volumes.modality.startswith("ct"), torch.device("cpu")
    untrained = filled(new_model(config, seed=config.seed), volumes, device)
    models = (as_registering(model, both_ct=both_ct) for model in (untrained, load_model(run / MODEL)))
    first, second = (validation.measure(model, config, device) for model in models)
    return first, second
