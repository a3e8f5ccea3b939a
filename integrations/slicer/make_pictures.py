"""Make the icon and the screenshot of the extension: python make_pictures.py [FOLDER]

The screenshot shows a pair of chest phantoms before and after registration, as red over cyan.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import corereg
from corereg.data.phantom import write_cohort

HERE = Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
FOLDER = HERE if HERE.is_dir() else HERE.parent
WINDOW = (-1000, 300)


def overlay(fixed, moving):
    """A coronal plane, (rows, columns, 3): the fixed image in red, the moving one in cyan, grey where they agree."""
    middle = fixed.shape[1] // 2
    planes = [np.clip((image[:, middle] - WINDOW[0]) / np.ptp(WINDOW), 0, 1).T[::-1] for image in (fixed, moving)]
    return np.stack([planes[0], planes[1], planes[1]], -1)


def phantom_pair():
    """Fixed and moving image of a breathing pair."""
    with tempfile.TemporaryDirectory() as folder:
        write_cohort(Path(folder) / "chest", subjects=2, kind="chest", spacing_mm=4.0, seed=0)
        exhale, inhale, *_ = sorted((Path(folder) / "chest" / "imagesTs").iterdir())
        return corereg.read_image(exhale), corereg.read_image(inhale)


def main():
    fixed, moving = phantom_pair()
    transform = corereg.register(fixed, moving).transform
    before = corereg.Transform((np.eye(4),), fixed, moving).apply(moving)
    figure = Figure(figsize=(10, 5), facecolor="black")
    axes = figure.subplots(1, 2)
    for axis, image, title in zip(axes, (before, transform.apply(moving)), ("before", "after"), strict=True):
        axis.imshow(overlay(fixed.array, image.array), aspect=fixed.grid.spacing[2] / fixed.grid.spacing[0])
        axis.set_title(title, color="white")
        axis.axis("off")
    figure.tight_layout()
    (FOLDER / "Screenshots").mkdir(exist_ok=True)
    figure.savefig(FOLDER / "Screenshots" / "registration.png", dpi=100, metadata={"Software": None})
    icon()


def icon():
    """Two grids, one of them bent onto the other."""
    figure = Figure(figsize=(1.28, 1.28), dpi=100)
    axis = figure.add_axes((0, 0, 1, 1))
    along, steps = np.linspace(-1, 1, 60), np.linspace(-0.8, 0.8, 5)
    for step in steps:
        for flip in (1, -1):
            bent = step + 0.18 * np.sin(3 * along) * np.cos(2 * step)
            axis.plot(*(along, np.full(60, step))[::flip], color="#c7cbe8", lw=1.5)
            axis.plot(*(along, bent)[::flip], color="#303f9f", lw=2.5)
    axis.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05))
    axis.axis("off")
    target = FOLDER / "CoreReg" / "Resources" / "Icons"
    target.mkdir(parents=True, exist_ok=True)
    figure.savefig(target / "CoreReg.png", transparent=True, metadata={"Software": None})


main()
