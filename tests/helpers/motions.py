"""Affine motions."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation


def motion(
    *, degrees: tuple[float, float, float] = (0, 0, 0), scale: Any = 1.0, shift_mm: Any = (0, 0, 0)
) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * scale
    matrix[:3, 3] = shift_mm
    return matrix
