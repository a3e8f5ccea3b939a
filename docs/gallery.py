"""Register the pairs of the gallery and the tutorial, and make their pictures and the gallery's page.

python docs/gallery.py SCANS [NAME ...]        (SCANS: the folder that the paths of PAIRS start from)

Runs are kept in out/gallery and not repeated. The pictures are those of each run's report.
"""

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

ROOT = Path(__file__).parents[1]
RUNS, PICTURES = ROOT / "out" / "gallery", ROOT / "docs" / "assets" / "gallery"
WIDTH_PX, QUALITY = 900, 72
GAP_PX = 6
IMAGES = ("fixed", "moving, before", "moving, after")
TUTORIAL = {
    "tutorial-images": IMAGES,
    "tutorial-difference": ("before", "after"),
    "tutorial-deformation": ("grid", "determinant"),
}

PAGE = """<!-- Made by docs/gallery.py: do not edit. -->
# Gallery

One pair of each kind, registered by the command below its picture. Rows: the fixed scan, the moving scan resampled onto
the fixed grid before the deformable registration, and the warped scan. These are the pictures of each run's
`report.html`, which the same command writes; the report also shows differences, a checkerboard, the deformation and its
Jacobian. Grids are coarse to save computing; the pairs were not chosen by their results.

{pairs}
The scans are public and come from the collections named with each pair. Numbers are those of `result.json`:
[what they mean](how-to/judge.md).
"""

SECTION = """## {title}

{text}

![{alt}](assets/gallery/{name}.webp)

```text
{command}
```

{numbers}

Scans: {source}.
"""


class Pair(NamedTuple):
    """A registration to show."""

    name: str
    title: str
    text: str
    fixed: str
    moving: str
    options: tuple[str, ...]
    source: str


PAIRS = (
    Pair(
        *("chest", "Chest CT, different patients"),
        "A chest at 2 mm, and a scan from neck to abdomen of another patient: voxel sizes and fields of view differ. "
        "Part of the right lung is opaque in the fixed scan only, and nothing can match there.",
        *("chest/patient_d.nii.gz", "whole_body_ct/hnsc_0006.nii.gz", ("--spacing", "3.5")),
        "LIDC-IDRI and TCGA-HNSC (The Cancer Imaging Archive), CC BY 3.0",
    ),
    Pair(
        *("abdomen", "Abdominal CT, different patients"),
        "Upper abdomens of two patients with 5 mm slices and contrast agent.",
        *("abdomen/patient_b.nii.gz", "abdomen/patient_c.nii.gz", ("--spacing", "3")),
        "Colorectal-Liver-Metastases (The Cancer Imaging Archive), CC BY 4.0",
    ),
    Pair(
        *("head-and-neck", "Head-and-neck CT, different patients"),
        "The cohort's first validation pair. Coloured outlines are each scan's own structures, white ones those of the "
        "fixed scan.",
        *("headneck/imagesTr/HeadNeckCT_0075_0000.nii.gz", "headneck/imagesTr/HeadNeckCT_0076_0000.nii.gz"),
        (
            *("--fixed-labels", "headneck/labelsTr/HeadNeckCT_0075_0000.nii.gz"),
            *("--moving-labels", "headneck/labelsTr/HeadNeckCT_0076_0000.nii.gz"),
        ),
        "OpenKBP (github.com/ababier/open-kbp), MIT",
    ),
    Pair(
        *("brain", "Brain MR"),
        "Two T1-weighted brains: the Colin 27 average onto the MNI 152 template.",
        *("brain/mni152.nii.gz", "brain/colin27.nii.gz", ("--spacing", "2")),
        "as distributed with ANTsPy, Apache-2.0",
    ),
    Pair(
        *("ct-mr", "CT and MR of one patient"),
        "T1-weighted MR of a thigh onto the CT of the same patient, without settings for the modality "
        "([how it works](how-to/multimodal.md)).",
        *("ct_mr/sts_001_ct.nii.gz", "ct_mr/sts_001_mr.nii.gz", ("--spacing", "2.5")),
        "Soft-Tissue-Sarcoma (The Cancer Imaging Archive), CC BY 3.0",
    ),
)

PHANTOM = Pair(
    *("tutorial", "", ""),
    *("torso/imagesTs/Phantom_0001_0000.nii.gz", "torso/imagesTs/Phantom_0001_0001.nii.gz"),
    (
        *("--fixed-labels", "torso/labelsTs/Phantom_0001_0000.nii.gz"),
        *("--moving-labels", "torso/labelsTs/Phantom_0001_0001.nii.gz"),
    ),
    "",
)


def main(scans: Path, names: list[str]) -> None:
    """Make what is missing and draw it."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    chosen = [pair for pair in PAIRS if not names or pair.name in names]
    for pair in chosen:
        draw(register(pair, scans) / "report.html", IMAGES, PICTURES / f"{pair.name}.webp")
    if not names or PHANTOM.name in names:
        if not (RUNS / "torso").exists():
            corereg("phantom", "torso", "--subjects", "2", folder=RUNS)
        report = register(PHANTOM, RUNS) / "report.html"
        for name, rows in TUTORIAL.items():
            draw(report, rows, PICTURES / f"{name}.webp")
    sections = [section(pair) for pair in PAIRS if (RUNS / pair.name).exists()]
    (ROOT / "docs" / "gallery.md").write_text(PAGE.format(pairs="\n".join(sections)), encoding="utf-8")


def register(pair: Pair, folder: Path) -> Path:
    """The folder with the pair's outputs."""
    out = RUNS / pair.name
    if not out.exists():
        corereg("register", pair.fixed, pair.moving, "-o", str(out), *pair.options, folder=folder)
    return out


def corereg(*words: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "corereg", *words], cwd=folder, check=True)


def draw(report: Path, rows: tuple[str, ...], path: Path) -> None:
    """Put rows of a report's pictures below each other, three planes in each."""
    html = report.read_text("utf-8")
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"[^>]*alt="([^"]+)"', html)
    lines = []
    for row in rows:
        planes = [png for png, alt in found if alt.lower().startswith(row)][:3]
        lines.append([Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB") for png in planes])
    width = max(sum(image.width + GAP_PX for image in line) for line in lines) - GAP_PX
    heights = [max(image.height for image in line) for line in lines]
    sheet = Image.new("RGB", (width, sum(heights) + GAP_PX * (len(lines) - 1)))
    top = 0
    for line, height in zip(lines, heights, strict=True):
        left = 0
        for image in line:
            sheet.paste(image, (left, top + (height - image.height) // 2))
            left += image.width + GAP_PX
        top += height + GAP_PX
    size = WIDTH_PX, round(WIDTH_PX * sheet.height / sheet.width)
    sheet.resize(size, Image.Resampling.LANCZOS).save(path, quality=QUALITY, method=6)


def section(pair: Pair) -> str:
    """A pair's part of the page."""
    result: dict[str, Any] = json.loads((RUNS / pair.name / "result.json").read_text("utf-8"))
    metrics = result["metrics"]
    numbers = [
        f"SDlogJ {metrics['sdlogj']:.3f}",
        f"folds {metrics['fold_percent']:.3f} %",
        f"inverse error {metrics['inverse_error_mean_mm']:.2f} mm (mean)",
    ]
    if metrics.get("dice") is not None:
        numbers.insert(0, f"Dice {metrics['dice_before']:.3f} before, {metrics['dice']:.3f} after")
    options = [f"{name} {value}" for name, value in zip(pair.options[::2], pair.options[1::2], strict=True)]
    words = ["corereg register", pair.fixed, pair.moving, f"-o out/{pair.name}", *options]
    return SECTION.format(
        **pair._asdict() | {"command": " \\\n    ".join(words)},
        alt=f"{pair.title}: fixed, moving before and after, in three planes",
        numbers=", ".join(numbers) + ".",
    ).replace("Scans: as", "Scans as")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
