"""The files of a registered pair. Imports nothing, so that commands can name them before anything heavy is loaded."""

__all__ = ["DEFAULT_OUTPUTS", "OUTPUTS", "RESULT"]

RESULT = "result.json"
"""Always written, and last: a folder that holds it is complete."""

OUTPUTS = {
    "warped": "warped.nii.gz",
    "transform": "transform.nii.gz",
    "inverse_transform": "inverse_transform.nii.gz",
    "transform_h5": "transform.h5",
    "warped_labels": "warped_labels.nii.gz",
    "uncertainty": "uncertainty.nii.gz",
    "report": "report.html",
    "compact": "transform_compact.npz",
}
"""What may be kept or left out -> its file."""

DEFAULT_OUTPUTS = tuple(name for name in OUTPUTS if name != "compact")
"""Kept unless others are chosen: `compact` is the transform once more, in half precision."""
