"""The field and the label maps whose scores the challenge's own code has given."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SHAPE = (40, 36, 44)


def golden_field(amplitude: float) -> Array:
    i, j, k = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    turn = 2 * np.pi
    return amplitude * np.stack(
        [
            np.sin(turn * j / 18) * np.cos(turn * k / 22),
            np.cos(turn * i / 20) * np.sin(turn * k / 11),
            np.sin(turn * i / 10) * np.cos(turn * j / 12),
        ]
    )


def golden_labels() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    fixed, moving = np.zeros(SHAPE, np.int64), np.zeros(SHAPE, np.int64)
    fixed[10:25, 8:24, 12:30] = 1
    fixed[26:36, 20:32, 5:20] = 2
    fixed[2:6, 2:6, 36:42] = 3
    moving[12:27, 9:25, 10:28] = 1
    moving[25:35, 22:34, 6:21] = 2
    return fixed, moving


Array = NDArray[np.float64]
