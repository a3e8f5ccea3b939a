"""Data sets of empty files: nothing opens the images."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from corereg.data.pairs import Dataset


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def named(dataset: Dataset, pairs: Iterable[tuple[int, int]]) -> list[tuple[str, str]]:
    return [(dataset.scans[fixed].name, dataset.scans[moving].name) for fixed, moving in pairs]


def pair(fixed: str, moving: str, part: str = "Tr") -> dict[str, str]:
    return {"fixed": f"./images{part}/{fixed}.nii.gz", "moving": f"./images{part}/{moving}.nii.gz"}


def learn2reg(root: Path, training: list[str], **content: Any) -> Path:
    """Empty scans of imagesTr, and the JSON that lists them."""
    touch(*(root / "imagesTr" / f"{name}.nii.gz" for name in training))
    entries = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz", "keypoints": f"./k/{name}.nii.gz"}
        for name in training
    ]
    text = json.dumps({"name": "Task", "pairings": "unpaired", "training": entries} | content)
    return write_text(root / "Task_dataset.json", text)


def scan_names(cases: Iterable[int], modality: int = 0) -> list[str]:
    return [f"Task_{case:04d}_{modality:04d}" for case in cases]
