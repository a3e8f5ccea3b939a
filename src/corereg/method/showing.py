"""How a result shows itself: three lines in a terminal, with a picture in a notebook."""

import base64
import html
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.lazy import nibabel
from corereg.method.wording import affine_words, grid_words, metric_words, modality_words

__all__ = ["as_html", "as_text"]

DARKEST, BRIGHTEST = 1.0, 99.0
"""Percentiles of the fixed slice that become black and white."""

PICTURE_WIDTH = 720
"""Pixels of all three slices side by side."""


def as_text(result: Any) -> str:
    """Three lines about a `RegistrationResult`: which images, what was done, and how well; then reasons to doubt it."""
    images = f"{result.moving.name} onto {result.fixed.name}"
    done = f"{modality_words(result.intensities)}, affine {affine_words(result.alignment)}"
    seconds = sum(result.seconds.values())
    return "\n".join(
        (
            f"RegistrationResult: {images}",
            f"  {done}, grid {grid_words(result.refined.grid)}, model {result.model.name}, {seconds:.1f} s",
            f"  {result.quality.verdict.upper()}, {metric_words(result.metrics)}",
            *(f"  {reason}" for reason in result.quality.reasons),
        )
    )


def as_html(result: Any) -> str:
    """The same lines, and the middle axial slice of the fixed image, of the warped one and of their difference."""
    fixed, warped = (_axial_slice(array, result.fixed.grid) for array in (result.fixed.array, result.warped().array))
    panels = [_grey(fixed, fixed), _grey(warped, warped), _grey(warped - fixed, fixed - fixed.mean())]
    row = np.concatenate(panels, axis=1)
    step = -(-row.shape[1] // PICTURE_WIDTH)
    return (
        f"<pre>{html.escape(as_text(result))}</pre>"
        f'<img alt="fixed, warped and their difference" width="{PICTURE_WIDTH}" src="{_png(row[::step, ::step])}">'
    )


def _axial_slice(array: NDArray[Any], grid: Grid) -> NDArray[np.float64]:
    """The middle slice across the body, as radiologists look at it: the patient's right at the left, front on top."""
    orientation = nibabel().orientations
    turned = orientation.apply_orientation(array, orientation.io_orientation(grid.affine))
    return np.asarray(turned[::-1, ::-1, turned.shape[2] // 2].T, dtype=np.float64)


def _grey(values: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.uint8]:
    low, high = np.percentile(window, (DARKEST, BRIGHTEST))
    return np.asarray(255 * ((values - low) / max(high - low, 1e-9)).clip(0, 1), dtype=np.uint8)


def _png(grey: NDArray[np.uint8]) -> str:
    """A data URI."""
    from matplotlib.image import imsave

    file = BytesIO()
    imsave(file, grey, cmap="gray", vmin=0, vmax=255, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
