"""A cohort of made-up patients and a run on it, shared by the tests of training."""

import json
from pathlib import Path

import numpy as np
import pytest

from corereg.data.pairs import read_dataset
from corereg.io.images.image import write_image
from corereg.training.scans.volumes import Volumes, prepare_volumes
from helpers.training import GRID, patient, run

BRIGHT_HU, DARK_HU = 120.0, -20.0


@pytest.fixture(scope="session")
def cohort_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five patients in the Learn2Reg layout, the last two for validation, with label maps of bright and dark tissue."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "imagesTr").mkdir()
    (folder / "labelsTr").mkdir()
    for case in range(1, 6):
        image = patient(case)
        labels = np.where(image > BRIGHT_HU, 1, np.where((image > -500) & (image < DARK_HU), 2, 0)).astype(np.uint8)
        write_image(folder / "imagesTr" / f"Blobs_{case:04d}_0000.nii.gz", image, GRID)
        write_image(folder / "labelsTr" / f"Blobs_{case:04d}_0000.nii.gz", labels, GRID)

    def image_of(case: int) -> str:
        return f"./imagesTr/Blobs_{case:04d}_0000.nii.gz"

    content = {
        "name": "Blobs",
        "pairings": "unpaired",
        "modality": {"0": "CT"},
        "labels": {"0": {"0": "background", "1": "bright", "2": "dark"}},
        "training": [{"image": image_of(c), "label": image_of(c).replace("images", "labels")} for c in range(1, 6)],
        "registration_val": [{"fixed": image_of(4), "moving": image_of(5)}],
    }
    path = folder / "Blobs_dataset.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def volumes(cohort_json: Path, cache: Path) -> Volumes:
    return prepare_volumes(read_dataset(cohort_json), folder=cache, spacing_mm=4.0)


@pytest.fixture(scope="session")
def finished(cohort_json: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(cohort_json, folder, cache)
    return folder
