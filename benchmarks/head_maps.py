"""Label maps of whole heads, ready for the recipe any-contrast: sides joined, rare labels merged, on one RAS grid.

    python benchmarks/head_maps.py DATA/brain_labelmaps OUT [--first 1] [--last 16]

Heads 17 to 20 are held out: pairs of them, painted or scanned, measure the model.
"""

import argparse
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.image import write_image

SHAPE = (176, 224, 224)
"""Voxels of 1 mm: the top of the head is `MARGIN` below the last, and most necks reach the first."""
MARGIN = 4

JOINED = {
    2: (41, 85), 3: (42,), 4: (43, 5, 44), 7: (46,), 8: (47,), 10: (49,), 11: (50,), 12: (51,), 13: (52,), 17: (53,),
    18: (54,), 24: (30, 62, 72), 25: (57,), 26: (58,), 28: (60,), 136: (137, 163, 164), 507: (508, 512, 530),
}  # fmt: skip
"""Labels that become one: the two sides of a structure, the ventricles' horns, vessels and fluid, and soft tissues."""


def joined(labels: NDArray[np.int16]) -> NDArray[np.int16]:
    table = np.arange(1 + max(int(labels.max()), *map(max, JOINED.values())), dtype=np.int16)
    for label, others in JOINED.items():
        table[list(others)] = label
    return table[labels]


def on_one_grid(labels: NDArray[np.int16]) -> NDArray[np.int16]:
    """The head, centred from side to side and front to back, with its top near the last plane."""
    inside = np.argwhere(labels > 0)
    first, last = inside.min(0), inside.max(0) + 1
    start = (first + last - np.array(SHAPE)) // 2
    start[2] = last[2] + MARGIN - SHAPE[2]
    placed = np.zeros(SHAPE, np.int16)
    low, high = np.maximum(start, 0), np.minimum(start + SHAPE, labels.shape)
    placed[_box(low - start, high - start)] = labels[_box(low, high)]
    return placed


def _box(low: NDArray[np.int64], high: NDArray[np.int64]) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--last", type=int, default=16)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for number in range(given.first, given.last + 1):
        name = f"head_{number:02d}.nii.gz"
        found = nibabel.as_closest_canonical(nibabel.load(given.maps / name))
        labels = joined(np.asarray(found.dataobj).astype(np.int16))
        write_image(given.out / name, on_one_grid(labels), Grid(SHAPE, np.eye(4)))


if __name__ == "__main__":
    main()
