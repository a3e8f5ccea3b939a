"""The paper's data sets in miniature: made-up patients under the paper's numbers and names."""

import json
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from corereg.data.phantom import LABELS
from corereg.data.phantom.images import make_breathing_pair, make_subject
from corereg.io.images.image import write_image
from helpers.layouts import touch, write_text
from helpers.training import GRID, patient

TRAINING = (2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 23, 24, 26, 27, 29, 30)
TEST = (1, 4, 7, 10, 13, 16, 19, 22, 25, 28)
SEARCH = (2, 8, 14, 20, 26, 30)


def scan_name(case: int) -> str:
    return f"AbdomenCTCT_{case:04d}_0000"


def describe_abdomen(folder: Path, training: Iterable[int] = TRAINING, test: Sequence[int] = TEST) -> Path:
    """The dataset JSON of AbdomenCTCT, as released: the test scans are listed for training too."""
    cases = sorted((*training, *test))
    content = {
        "name": "AbdomenCTCT",
        "pairings": "unpaired",
        "labels": {"0": {"0": "background", "1": "spleen", "2": "right kidney"}},
        "training": [
            {"image": f"./imagesTr/{scan_name(c)}.nii.gz", "label": f"./labelsTr/{scan_name(c)}.nii.gz"} for c in cases
        ],
        "registration_val": [
            {"fixed": f"./imagesTr/{scan_name(f)}.nii.gz", "moving": f"./imagesTr/{scan_name(m)}.nii.gz"}
            for f, m in combinations(sorted(test), 2)
        ],
    }
    return write_text(folder / "AbdomenCTCT_dataset.json", json.dumps(content))


def empty_abdomen(folder: Path) -> Path:
    """All thirty scans as empty files."""
    for case in (*TRAINING, *TEST):
        touch(folder / "imagesTr" / f"{scan_name(case)}.nii.gz", folder / "labelsTr" / f"{scan_name(case)}.nii.gz")
    return describe_abdomen(folder)


def small_abdomen(folder: Path, training: Sequence[int] = (2, 8, 14), test: Sequence[int] = (1, 4)) -> Path:
    """A few scans with labels of bright and dark tissue."""
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for case in (*training, *test):
        image = patient(case)
        labels = np.where(image > 120, 1, np.where((image > -500) & (image < -20), 2, 0)).astype(np.uint8)
        write_image(folder / "imagesTr" / f"{scan_name(case)}.nii.gz", image, GRID)
        write_image(folder / "labelsTr" / f"{scan_name(case)}.nii.gz", labels, GRID)
    return describe_abdomen(folder, training, test)


def phantom_abdomen(folder: Path, listed: int) -> Path:
    """All thirty scans as phantoms at 8 mm, with the first pairs of the test scans listed."""
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for case in (*TRAINING, *TEST):
        image, labels, grid = make_subject(case, "abdomen", 8.0)
        write_image(folder / "imagesTr" / f"{scan_name(case)}.nii.gz", image.astype(np.int16), grid)
        write_image(folder / "labelsTr" / f"{scan_name(case)}.nii.gz", labels, grid)
    path = describe_abdomen(folder)
    content = json.loads(path.read_text("utf-8"))
    content["registration_val"] = content["registration_val"][:listed]
    content["labels"]["0"] |= {str(number): name for number, name in LABELS["abdomen"].items()}
    path.write_text(json.dumps(content))
    return path


def phantom_chest(folder: Path) -> Path:
    """Twelve chests at 8 mm, each breathed out and in: eight pairs to train, two to search and two to score."""
    folder.mkdir(parents=True)
    rows = ["fixed,moving,fixed_labels,moving_labels,split"]
    for number, split in enumerate(["train"] * 8 + ["val"] * 2 + ["test"] * 2, start=1):
        pair = make_breathing_pair(number, "chest", 8.0)
        names = [f"{kind}{number:02d}_{phase}.nii.gz" for kind in ("scan", "labels") for phase in ("out", "in")]
        arrays = (pair.fixed.astype(np.int16), pair.moving.astype(np.int16), pair.fixed_labels, pair.moving_labels)
        for name, array in zip(names, arrays, strict=True):
            write_image(folder / name, array, pair.grid)
        rows.append(",".join([*names, split]))
    return write_text(folder / "pairs.csv", "\n".join(rows) + "\n")


def empty_chest(folder: Path) -> Path:
    """RAD-ChestCT's folder with its table: patients with two scans in each split, and one with scans in two splits."""
    rows = ["VolumeAcc_DEID,MRN_DEID"]
    for prefix, patients in (("trn", "ABX"), ("tst", "CD"), ("val", "EF")):
        rows += [f"{prefix}{n:05d}.npz,{who}" for n, who in enumerate(sorted(patients * 2), start=1)]
    rows.append("val00009.npz,X")
    touch(*(folder / row.split(",")[0] for row in rows[1:]))
    write_text(folder / "CT_Scan_Metadata_Complete_35747.csv", "\n".join(rows) + "\n")
    return folder
