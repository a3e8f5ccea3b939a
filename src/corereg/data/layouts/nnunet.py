"""nnU-Net's raw layout: dataset.json, imagesTr/<case>_<channel>, labelsTr/<case>. Each case is a patient.

Only channel 0000 is used: the other channels are aligned with it already.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corereg.data.layouts.listing import Listing, Scan, visible

__all__ = ["list_nnunet"]

CHANNEL = "_0000"


def list_nnunet(folder: Path, content: Mapping[str, Any]) -> Listing:
    """Read a folder, given the content of its dataset.json. Labels may be missing; cases of imagesTs are for tests."""
    ending = str(content.get("file_ending", ".nii.gz"))
    training, test = (_cases(folder, split, ending) for split in ("Tr", "Ts"))
    scans = (*training, *test)
    every = sum(len(visible(folder / f"images{split}", f"*{ending}")) for split in ("Tr", "Ts"))
    left_out = every - len(scans)
    return Listing(
        name=folder.resolve().name,
        layout="nnunet",
        scans=scans,
        training=tuple(range(len(training))),
        test=tuple(range(len(training), len(scans))),
        # A region, nnU-Net's name for a group of labels, has a list in place of a number.
        label_names={n: name for name, n in content.get("labels", {}).items() if isinstance(n, int) and n > 0},
        notes=(f"{left_out} files of channels other than 0000 are left out",) if left_out else (),
    )


def _cases(folder: Path, split: str, ending: str) -> list[Scan]:
    scans = []
    for image in visible(folder / f"images{split}", f"*{CHANNEL}{ending}"):
        case = image.name.removesuffix(CHANNEL + ending)
        labels = folder / f"labels{split}" / (case + ending)
        scans.append(Scan(case, image, labels if labels.is_file() else None))
    return scans
