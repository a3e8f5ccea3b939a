"""Displacements: compose and invert them, move them between grids, measure their regularity.

Pull-back: warped(x) = moving(x + u(x)) for every voxel x of the fixed grid. `disp_vox` is (B, 3, I, J, K) in voxels of
its own grid, channel a along array axis a. Composition, "first u0, then u1": u(x) = u1(x) + u0(x + u1(x)).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.kernels.dispatch import use_kernels, use_triton
from corereg.geometry.positions import linear_map
from corereg.geometry.strided import box_mean, strided_shape, subsample, upsample, window_mean
from corereg.geometry.warp import identity_coords, sample

__all__ = [
    "Displacement",
    "compose",
    "inverse_consistent",
    "invert",
    "jacobian_determinant",
    "sdlogj",
    "subsample_displacement",
    "transport_by_affines",
    "unfold",
    "upsample_displacement",
]

Disp = Float[Tensor, "B 3 I J K"]

LOG_JACOBIAN_SHIFT = 3.0
LOG_JACOBIAN_RANGE = (1e-9, 1e9)
LOG_JACOBIAN_MARGIN = 2
"""Learn2Reg evaluation: SDlogJ = std(log(clip(det J + 3, 1e-9, 1e9))), without the two outermost voxels."""

INVERSION_STEP = 0.75
"""Share of the correction taken by a fixed-point step. With it the iteration converges where the map stretches less
than 2.6-fold; with full steps, less than twofold."""

LEAST_JACOBIAN, UNFOLDING_ROUNDS = 0.2, 20
"""Voxels that keep a smaller share of their volume count as folded, since they may fold once brought to another grid;
smoothing stops after this many rounds."""

LARGE_VOXELS = 500_000
FINAL_ITERATIONS = 5
"""Larger volumes are inverted on the strided grid first, then refined by this many iterations on their own grid."""


def compose(first: Disp, then: Disp) -> Disp:
    """The displacement equivalent to warping by `first` and then warping the result by `then`.

    The image warped by `first` reads the original at y + first(y). Sampled at y = x + then(x), it reads the original at
    x + then(x) + first(x + then(x)).
    """
    if use_kernels(first, then):
        from corereg.geometry.kernels import sample as kernels_sample

        return kernels_sample.pull_displacement(first, then, kernels_sample.SUM)[0]
    return then + sample(first, identity_coords(then.shape[2:], like=then) + then)


def invert(
    disp_vox: Disp, *, iterations: int = 50, tolerance_vox: float = 1e-3
) -> tuple[Disp, Float[Tensor, "B I J K"]]:
    """Displacement v of the inverse map, v(x) = -u(x + v(x)), by damped fixed-point iteration on the same grid.

    The iteration stops when no component of v(x) + u(x + v(x)) exceeds the tolerance: line by line in the compiled
    kernels, for the whole volume in torch. Large volumes are first inverted at every second voxel, which leaves few
    iterations at full resolution. Beyond the grid u is held at its edge value. Where the map folds there is no inverse,
    and the residual shows it.

    Returns:
        v, and the residual |v(x) + u(x + v(x))| of each voxel, in voxels.
    """
    shape = disp_vox.shape[2:]
    if shape.numel() <= LARGE_VOXELS:
        start = (-disp_vox).contiguous()
    else:
        coarse, _ = invert(subsample_displacement(disp_vox, 2), iterations=iterations, tolerance_vox=tolerance_vox)
        start, iterations = upsample_displacement(coarse, 2, shape), FINAL_ITERATIONS
    if use_kernels(disp_vox):
        from corereg.geometry.kernels import sample as kernels_sample

        return kernels_sample.invert(
            disp_vox, start, INVERSION_STEP, iterations=iterations, tolerance_vox=tolerance_vox
        )
    identity = identity_coords(shape, like=disp_vox)
    inverse = start
    for _ in range(iterations):
        correction = inverse + sample(disp_vox, identity + inverse)
        if float(correction.abs().amax()) < tolerance_vox:
            break
        inverse = inverse - INVERSION_STEP * correction
    return inverse, (inverse + sample(disp_vox, identity + inverse)).square().sum(1).sqrt()


def unfold(disp_vox: Disp) -> Disp:
    """Smooth the neighbourhood of every folded voxel until nothing folds, for at most `UNFOLDING_ROUNDS` rounds.

    Meant for the few folded voxels that an optimisation leaves behind.
    """
    for _ in range(UNFOLDING_ROUNDS):
        folded = jacobian_determinant(disp_vox) <= LEAST_JACOBIAN
        if not bool(folded.any()):
            break
        around = (window_mean(functional.pad(folded[:, None].to(disp_vox), [2] * 6), 5) > 0).to(disp_vox)
        disp_vox = torch.lerp(disp_vox, box_mean(disp_vox, times=2), box_mean(around))
    return disp_vox


def upsample_displacement(
    disp_vox: Disp, factor: int, shape: Sequence[int], *, smoothing: int = 0
) -> Float[Tensor, "B 3 X Y Z"]:
    """Bring a displacement from a strided grid to the finer grid of `shape`, in voxels of the finer grid.

    Args:
        factor: stride of the coarse grid in voxels of the fine one; a power of two if `smoothing` is used.
        smoothing: number of 3x3x3 means after each doubling.
    """
    plan, rest = [], factor
    while rest > 1:
        step = 2 if smoothing and rest % 2 == 0 else rest
        rest //= step
        plan.append((step, strided_shape(shape, rest)))
    if plan and use_kernels(disp_vox):
        from corereg.geometry.kernels import filter as kernels_filter

        return kernels_filter.upsample(disp_vox, tuple(plan), smoothing=smoothing, scale=float(factor))
    for step, middle in plan:
        disp_vox = box_mean(upsample(disp_vox * step, step, middle), times=smoothing)
    return disp_vox


def subsample_displacement(disp_vox: Disp, factor: int) -> Float[Tensor, "B 3 X Y Z"]:
    """The displacement at every `factor`-th voxel, in voxels of that coarser grid."""
    return subsample(disp_vox, factor) / factor


def transport_by_affines(disp_vox: Disp, fixed_affine: Tensor, moving_affine: Tensor) -> Disp:
    """The exact displacement u' between two images that were resampled by affine maps.

    For F' = F o A1 and M' = M o A2 the true field satisfies x + u'(x) = A2^-1(A1 x + u(A1 x)).

    Args:
        fixed_affine: A1, (4, 4), voxel coordinates to voxel coordinates.
        moving_affine: A2, of the same form.
    """
    identity = identity_coords(disp_vox.shape[2:], like=disp_vox)
    moved = linear_map(fixed_affine, identity)
    return linear_map(torch.linalg.inv(moving_affine), moved + sample(disp_vox, moved)) - identity


def jacobian_determinant(disp_vox: Disp) -> Float[Tensor, "B I J K"]:
    """Determinant of the Jacobian of x + u(x): central differences inside, one-sided at the faces."""
    if use_kernels(disp_vox) and min(disp_vox.shape[2:]) > 1:
        from corereg.geometry.kernels import sample as kernels_sample

        return kernels_sample.jacobian(disp_vox)
    rows = [[_slope(disp_vox[:, a], axis) for axis in (1, 2, 3)] for a in range(3)]
    for axis in range(3):
        rows[axis][axis] = rows[axis][axis] + 1
    (a, b, c), (d, e, f), (g, h, i) = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def _slope(component: Float[Tensor, "B I J K"], axis: int) -> Float[Tensor, "B I J K"]:
    """The derivative along an axis; 0 along an axis of a single voxel, where the displacement is held constant."""
    if component.shape[axis] == 1:
        return torch.zeros_like(component)
    return torch.gradient(component, dim=axis)[0]


def sdlogj(disp_vox: Disp) -> float:
    """Learn2Reg's regularity measure: std(log(clip(det J + 3, 1e-9, 1e9))) without the two outermost voxels."""
    margin = slice(LOG_JACOBIAN_MARGIN, -LOG_JACOBIAN_MARGIN)
    shifted = jacobian_determinant(disp_vox)[:, margin, margin, margin].double() + LOG_JACOBIAN_SHIFT
    return float(shifted.clamp_(*LOG_JACOBIAN_RANGE).log_().std(correction=0))


@dataclass(frozen=True, eq=False)
class Displacement:
    """A displacement together with the grid it lives on.

    Args:
        disp_vox: (3, I, J, K), voxels of `grid`, channel a along array axis a.
        grid: the fixed grid.
    """

    disp_vox: Float[Tensor, "3 I J K"]
    grid: Grid

    def __post_init__(self) -> None:
        if tuple(self.disp_vox.shape[1:]) != self.grid.shape:
            raise ValueError(
                f"got a displacement of shape {tuple(self.disp_vox.shape)}, expected (3, *{self.grid.shape})"
            )

    def then(self, other: "Displacement") -> "Displacement":
        """This displacement followed by `other`, as one displacement on the grid of `other`."""
        first = self.at(other.grid)
        return Displacement(compose(first.disp_vox[None], other.disp_vox[None])[0], other.grid)

    def inverse(self) -> tuple["Displacement", Float[Tensor, "I J K"]]:
        """The inverse on the same grid, and its residual at each voxel, in voxels (see `invert`)."""
        inverse, residual = invert(self.disp_vox[None])
        return Displacement(inverse[0], self.grid), residual[0]

    def at(self, grid: Grid) -> "Displacement":
        """The same displacement of the patient resampled onto another grid; held constant beyond this grid's edge."""
        if grid == self.grid:
            return self
        to_here = torch.as_tensor(grid.to_voxels_of(self.grid))
        coords = linear_map(to_here, identity_coords(grid.shape, like=self.disp_vox))
        values = sample(self.disp_vox[None], coords)
        linear = torch.eye(4, dtype=torch.float64)
        linear[:3, :3] = torch.linalg.inv(to_here[:3, :3])
        return Displacement(linear_map(linear, values)[0], grid)

    def covering(self, grid: Grid, *, at_most: float) -> "Displacement":
        """The same with the edge values it holds beyond its grid written out as far as another grid reaches.

        Args:
            at_most: multiple of the voxels that this may take; otherwise nothing is changed.
        """
        corners = self.grid.to_voxel(grid.to_world(list(product(*((0, n - 1) for n in grid.shape)))))
        # A grid reaches to the faces of its voxels, for ITK as well.
        low = np.minimum(np.floor(corners.min(0) + 0.5), 0)
        high = np.maximum(np.ceil(corners.max(0) - 0.5), np.array(self.grid.shape) - 1)
        i, j, k = (int(n) for n in high - low + 1)
        if (i, j, k) == self.grid.shape or i * j * k > at_most * math.prod(self.grid.shape):
            return self
        affine = self.grid.affine.copy()
        affine[:3, 3] = self.grid.to_world(low)
        before, after = -low, high - np.array(self.grid.shape) + 1
        widths = [int(n) for axis in (2, 1, 0) for n in (before[axis], after[axis])]
        return Displacement(functional.pad(self.disp_vox[None], widths, mode="replicate")[0], Grid((i, j, k), affine))

    def disp_mm(self) -> Float[Tensor, "3 I J K"]:
        """The offsets in RAS+ millimetres."""
        return _linear(self.grid.linear, self.disp_vox)

    @staticmethod
    def from_mm(disp_mm: Float[Tensor, "3 I J K"], grid: Grid) -> "Displacement":
        """Make a displacement from offsets in RAS+ millimetres at the voxels of `grid`."""
        return Displacement(_linear(grid.inverse_affine[:3, :3], disp_mm), grid)

    def jacobian_determinant(self) -> Float[Tensor, "I J K"]:
        """The local volume ratio; it is the same in voxels and in millimetres."""
        return jacobian_determinant(self.disp_vox[None])[0]


def _linear(matrix: Matrix, vectors: Float[Tensor, "3 I J K"]) -> Float[Tensor, "3 I J K"]:
    return torch.einsum("ac,cxyz->axyz", torch.tensor(np.array(matrix)).to(vectors), vectors)


def inverse_consistent(forward: Disp, backward: Disp, *, steps: int) -> tuple[Disp, Disp]:
    """Move two displacements of opposite directions towards being each other's inverse.

    u_fm <- (u_fm - u_mf o (id + u_fm)) / 2 and vice versa, both from the values of the previous step.
    """
    if use_kernels(forward, backward):
        from corereg.geometry.kernels.sample import HALF_DIFFERENCE, pull_displacement

        for _ in range(steps):
            ahead = pull_displacement(backward, forward, HALF_DIFFERENCE)[0]
            backward = pull_displacement(forward, backward, HALF_DIFFERENCE)[0]
            forward = ahead
        return forward, backward
    if use_triton(forward, backward):
        from corereg.geometry.kernels.cuda import pull

        for _ in range(steps):
            ahead = pull(backward, forward, from_identity=True, own=0.5, sampled=-0.5)
            backward = pull(forward, backward, from_identity=True, own=0.5, sampled=-0.5)
            forward = ahead
        return forward, backward
    for _ in range(steps):
        # compose(a, b) = b + a o (id + b), so b - a o (id + b) = 2 b - compose(a, b).
        forward, backward = forward - compose(backward, forward) / 2, backward - compose(forward, backward) / 2
    return forward, backward
