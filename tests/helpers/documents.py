"""The code blocks of README and docs, and the files that they name."""

import json
import os
import re
import shlex
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np

from corereg.io.images.image import Image, write_image
from helpers.cohorts import make_cohort
from helpers.pairs import FIXED, MOVING, pair
from helpers.training import GRID, patient
from helpers.transforms import label_map, wavy

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

OTHER_PROGRAMS = {
    *("antsApplyTransforms", "cd", "conda", "docker", "export", "git", "make", "mkdocs", "pip", "pipx", "python"),
    *("rattler-build", "source", "TotalSegmentator", "uv", "uvx"),
}
"""What the pages run besides corereg; none of it is run by the tests."""

NOT_RUN = {"reproduce": "takes weeks, on data that is not public", "peers": "installs from a package index"}

SLOW = {"batch", "benchmark", "demo", "phantom", "train"}
"""Commands that take minutes."""

POINTS = "10,-12,8\n-20,5,14\n3,20,-9\n-8,-17,-20\n25,9,18\n"


class Block(NamedTuple):
    """A code block."""

    language: str
    text: str
    indented: bool = False

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a shell block, as lists of words; empty for shell syntax such as loops."""
        if self.language != "bash" or re.search(r"^ *(for|while|if) ", self.text, flags=re.M):
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines for part in line.split(" && ") if (words := shlex.split(part, comments=True))]

    @property
    def own(self) -> list[list[str]]:
        """The words after `corereg` of each of its commands."""
        return [words[1:] for words in self.commands if words[0] == "corereg"]

    @property
    def slow(self) -> bool:
        return any(words[0] in SLOW for words in self.own)


def blocks(page: Path) -> list[Block]:
    """All code blocks of a page, in order."""
    found = re.findall(r"^( *)```(\w+)[^\n]*\n(.*?)^ *```", page.read_text("utf-8"), flags=re.S | re.M)
    return [Block(language, textwrap.dedent(text), bool(indent)) for indent, language, text in found]


def stock(folder: Path) -> None:
    """Write every file that a page names as an input."""
    fixed, moving = pair()
    _write(folder, fixed, "fixed", "ct", "t1_fixed", "t2_fixed")
    _write(folder, moving, "moving", "other_moving_channel", "mr", "pet", "t1_moving", "t2_moving")
    for grid, names, mask in ((FIXED, ("fixed_labels", "bones"), "fixed"), (MOVING, ("moving_labels",), "moving")):
        labels = label_map(grid, np.uint8)
        _write(folder, labels, *names)
        write_image(folder / f"{mask}_mask.nii.gz", (labels.array > 0).astype(np.uint8), labels)
    series = np.stack([moving.array, moving.array[::-1]], -1).astype(np.float32)
    _nifti(folder / "fmri.nii.gz", series)
    (folder / "fixed_points.fcsv").write_text(
        "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n# columns = id,x,y,z\n"
        + "".join(f"{n},{line}\n" for n, line in enumerate(POINTS.split(), 1))
    )
    marks = [
        {"id": str(n), "position": [float(x) for x in line.split(",")]} for n, line in enumerate(POINTS.split(), 1)
    ]
    markups = {"markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": marks}]}
    (folder / "moving_points.mrk.json").write_text(json.dumps(markups))
    (folder / "fixed_keypoints.csv").write_text("20,18,16\n12,14,20\n")
    (folder / "liver.stl").write_text(
        "solid liver\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 10 0 0\nvertex 0 10 0\nendloop\nendfacet\n"
        "endsolid liver\n"
    )
    for name in ("atlas", "yesterday"):
        wavy(FIXED).save(folder / f"{name}.h5")
    (folder / "pairs.csv").write_text("fixed,moving,name\nfixed.nii.gz,moving.nii.gz,p1\n")
    for name in ("SCANS", "MAPS"):
        (folder / name).mkdir()
    for number in range(4):
        array = patient(number)
        write_image(folder / "SCANS" / f"patient_{number}.nii.gz", array, GRID)
        write_image(folder / "MAPS" / f"patient_{number}.nii.gz", (array > array.mean()).astype(np.uint8), GRID)
    cohort = make_cohort(folder / "DATASET")
    # The last pair's scans train.
    content = json.loads(cohort.path.read_text("utf-8"))
    content["registration_val"].pop()
    cohort.path.write_text(json.dumps(content), "utf-8")
    cohort.fields.popitem()
    cohort.write_fields(folder / "FIELDS")
    (folder / "names.json").write_text('{"3": "liver", "17": "spleen"}')
    (folder / "my.yaml").write_text("objective: registration\n")


def needs(words: list[str]) -> str | None:
    """An input that a reader has and the test lacks: an optional package that is not installed, or DICOM files."""
    if any(word.endswith((".dcm", "_dicom")) for word in words):
        return "DICOM"
    if "--ray" in words:
        return None if find_spec("ray") else "ray"
    if words[0] == "export" and "onnx" in words:
        return None if find_spec("onnx") else "onnx"
    mesh = any(word.endswith((".stl", ".vtk", ".ply")) for word in words)
    return "vtk" if mesh and find_spec("vtkmodules") is None else None


def expanded(words: list[str]) -> list[str]:
    """The words as the shell hands them on."""
    return [os.path.expandvars(word) for word in words]


def _write(folder: Path, image: Image, *names: str) -> None:
    for name in names:
        write_image(folder / f"{name}.nii.gz", image.array, image)


def _nifti(path: Path, array: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(array, MOVING.affine), path)
