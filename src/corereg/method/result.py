"""The result of a registration: the object that `corereg.register` returns."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.displacement import Displacement
from corereg.io.images.image import Image
from corereg.io.transforms.transform import InverseError, Transform
from corereg.method.affine.align import Alignment
from corereg.method.config import RegisterConfig
from corereg.method.guidance.landmark_errors import LandmarkError
from corereg.method.models import ModelChoice
from corereg.method.quality.quality import Quality
from corereg.method.showing import as_html, as_text
from corereg.preprocessing.detection import Intensities
from corereg.provenance import versions

__all__ = ["RegistrationResult"]


@dataclass(frozen=True, slots=True, repr=False)
class RegistrationResult:
    """A registered pair."""

    transform: Transform
    """From fixed to moving: resamples the moving image onto the fixed grid."""
    inverse_transform: Transform
    """From moving to fixed."""
    inverse_error: InverseError
    """How far the two transforms are from being inverse to each other, inside the body of the moving image."""
    before: Transform
    """The transform before the last kind of registration: the initial one, then the pre-alignment if that is not all.
    """
    alignment: Alignment | None
    """The affine pre-alignment; None if it was off."""
    coarse: Displacement
    """The displacement before instance optimisation, on the working grid."""
    refined: Displacement
    """The displacement after instance optimisation, on the working grid, without the affine part."""
    deformation: Displacement
    """The same, composed with that of a deformable initial transform: what the metrics measure."""
    losses: tuple[float, ...]
    """Energy before each step of the instance optimisation."""
    metrics: Mapping[str, Any]
    """sdlogj and fold_percent of the deformation on the working grid, the inverse's error in mm, and landmarks' TRE."""
    landmarks: Sequence[LandmarkError]
    """Error of each pair of landmarks before and after."""
    seconds: Mapping[str, float]
    """Seconds per stage."""
    fixed: Image
    moving: Image
    intensities: tuple[Intensities, ...]
    """How the intensities of the fixed and of the moving image were understood."""
    quality: Quality
    """Whether the registration can be trusted: verdict, reasons, measures."""
    warnings: tuple[str, ...]
    """What was warned of on the way."""
    model: ModelChoice
    config: RegisterConfig
    """The settings as resolved."""
    regularisation: float
    """The R that was used."""
    peak_memory_mb: float
    """Largest memory of the process so far, in MiB."""
    uncertainty: NDArray[np.float32] | None = None
    """(I, J, K) on the fixed image's grid, if requested: the error in mm that 95 % of the voxels stay below."""

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def warped(self) -> Image:
        """The moving image on the fixed grid, linearly interpolated from the original: float32."""
        return self.transform.apply(self.moving)

    def summary(self) -> dict[str, Any]:
        """Everything except the fields as plain numbers and strings, for JSON."""
        alignment = None
        if self.alignment is not None:
            alignment = asdict(self.alignment) | {"affine": self.alignment.affine.tolist()}
        return {
            "metrics": dict(self.metrics),
            "seconds": dict(self.seconds),
            "peak_memory_mb": self.peak_memory_mb,
            "model": {"name": self.model.name, "sha256": self.model.sha256},
            "configuration": asdict(self.config),
            "seed": self.config.stages.seed,
            "regularisation": self.regularisation,
            "intensities": {
                name: asdict(each) for name, each in zip(("fixed", "moving"), self.intensities, strict=True)
            },
            "quality": self.quality.as_dict(),
            "warnings": list(self.warnings),
            "affine": alignment,
            "landmarks": [asdict(pair) for pair in self.landmarks],
            "grids": {
                "fixed": self.fixed.grid.as_dict(),
                "moving": self.moving.grid.as_dict(),
                "working": self.refined.grid.as_dict(),
            },
            "losses": list(self.losses),
            "versions": versions(),
        }
