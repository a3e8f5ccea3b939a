"""The error of a registration at each pair of landmarks. Upstream: landmarks, point_guide. Downstream: the result."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corereg.io.transforms.transform import Transform
from corereg.method.guidance.landmarks import Landmarks
from corereg.method.guidance.point_guide import PointGuide

__all__ = ["LandmarkError", "landmark_errors", "mean_errors"]


@dataclass(frozen=True, slots=True)
class LandmarkError:
    """Target registration error of a pair of landmarks, in mm."""

    name: str
    unregistered_mm: float
    """Without any registration: the distance in the world of the two files."""
    before_mm: float
    """Before the last kind of registration."""
    after_mm: float
    left_out_mm: float | None = None
    """Error before refinement, with the displacement corrected by the other pairs alone; None if nothing guides."""
    wrong: bool = False
    """Whether it contradicts the other pairs and did not take part."""

    @property
    def words(self) -> str:
        """The errors, for readers."""
        return f"{self.before_mm:.1f} mm before, {self.after_mm:.1f} mm after{' (wrong pair)' if self.wrong else ''}"


def landmark_errors(
    landmarks: Landmarks | None, before: Transform, after: Transform, guide: PointGuide | None
) -> list[LandmarkError]:
    """The error of each pair. Warns of wrong ones by name."""
    if landmarks is None:
        return []
    positions_mm = (landmarks.fixed_mm, *(t.apply_points(landmarks.fixed_mm) for t in (before, after)))
    errors = [np.linalg.norm(there - landmarks.moving_mm, axis=1).tolist() for there in positions_mm]
    wrong = [False] * len(errors[0]) if guide is None or guide.wrong is None else guide.wrong.tolist()
    left_out = [None] * len(errors[0]) if guide is None or guide.left_out_mm is None else guide.left_out_mm.tolist()
    named = [name for name, bad in zip(landmarks.names, wrong, strict=True) if bad]
    if named:
        warnings.warn(
            f"the landmarks {', '.join(named)} contradict the others, so they do not guide; check these pairs",
            stacklevel=2,
        )
    return [LandmarkError(*each) for each in zip(landmarks.names, *errors, left_out, wrong, strict=True)]


def mean_errors(errors: Sequence[LandmarkError]) -> dict[str, float]:
    """Mean errors in mm, for the metrics; wrong pairs do not count."""
    right = [pair for pair in errors if not pair.wrong]
    if not right:
        return {}
    left_out = [pair.left_out_mm for pair in right if pair.left_out_mm is not None]
    means = {
        "tre_mm": float(np.mean([pair.after_mm for pair in right])),
        "tre_before_mm": float(np.mean([pair.before_mm for pair in right])),
        "tre_unregistered_mm": float(np.mean([pair.unregistered_mm for pair in right])),
    }
    return means | ({"tre_left_out_mm": float(np.mean(left_out))} if left_out else {})
