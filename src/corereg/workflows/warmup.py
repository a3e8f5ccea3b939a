"""`corereg warmup`: everything that is compiled or made once, so that later commands find it in their caches."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from corereg.data.phantom import make_breathing_pair
from corereg.io.images.image import write_image
from corereg.method.register_settings import RegisterSettings
from corereg.workflows.register import register_to_folder

__all__ = ["CACHE_VARIABLE", "warm_up"]

CACHE_VARIABLE = "NUMBA_CACHE_DIR"

SPACING_MM = 6.0
QUICK: RegisterSettings = {"refine_steps": 2, "device": "cpu"}

WAYS: tuple[RegisterSettings, ...] = (
    {},
    {"modality": "mr", "similarity": "features", "symmetric": False, "fine": True},
    {"parametrisation": "diffeomorphic", "fine": False},
    {"model": "head-neck-ct", "affine": "none"},
)
"""Settings which together use all kernels of a registration: both measures, both grids, one and both directions, both
kinds of features, with and without pre-alignment."""


def warm_up(progress: Callable[[str], None] | None = None) -> str:
    """Register a small made-up pair in several ways, with masks and labels.

    Returns: where the compiled kernels are kept, in words.
    """
    progress = progress or (lambda stage: None)
    pair = make_breathing_pair(0, spacing_mm=SPACING_MM)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.nii.gz" for name in ("fixed", "moving", "labels")}
        for name, array in (("fixed", pair.fixed), ("moving", pair.moving), ("labels", pair.fixed_labels)):
            write_image(paths[name], array, pair.grid)
        for number, settings in enumerate(WAYS, start=1):
            progress(f"compiling, part {number} of {len(WAYS)}")
            result = register_to_folder(
                paths["fixed"],
                paths["moving"],
                Path(folder) / "out",
                fixed_labels=paths["labels"],
                moving_labels=paths["labels"],
                fixed_mask=paths["labels"],
                force=True,
                **(QUICK | settings),
            )
            result.transform.apply_points(pair.grid.to_world([[0.0, 0.0, 0.0]]))
    return os.environ.get(CACHE_VARIABLE) or f"the package's own folders, since {CACHE_VARIABLE} is not set"
