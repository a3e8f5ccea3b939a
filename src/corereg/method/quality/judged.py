"""What a registration is judged by: both images as they were compared, and what was found between them.

Upstream: `register`. Downstream: the measures.

Legend: volumes are (1, 1, I, J, K) on the working grid.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from corereg.geometry.displacement import Disp
from corereg.geometry.grid import Grid, Matrix
from corereg.method.affine.align import Alignment
from corereg.method.affine.coarse_copies import CoarseCopy

__all__ = ["Judged"]

Volume = Float[Tensor, "1 1 I J K"]


class Judged(NamedTuple):
    """A registered pair on its working grid."""

    fixed: Volume
    moving: Volume
    """After the affine pre-alignment."""
    fixed_weight: Volume | None
    """1 where the image has data that counts; None counts all voxels."""
    moving_weight: Volume | None
    coarse: Disp
    refined: Disp
    disagreement_vox: Float[Tensor, "1 X Y Z"] | None
    """By how much the two directions, refined apart, missed being each other's inverse; on the 1/2 grid."""
    working: Grid
    shown: tuple[int, int, int]
    """How many voxels along each axis cover the fixed image; the rest is padding."""
    alignment: Alignment | None
    """The affine pre-alignment; None if it was off."""
    copies: tuple[CoarseCopy, CoarseCopy]
    """The fixed and the moving image as the pre-alignment takes them."""

    @property
    def affine(self) -> Matrix:
        """(4, 4), from the fixed image's world to the moving image's."""
        return np.eye(4) if self.alignment is None else self.alignment.affine
