"""Robust Hausdorff distance between two masks, as the Learn2Reg challenge measures it.

The surface of a mask consists of elements, one at every corner shared by 2x2x2 voxels that are neither all inside nor
all outside. Its area is that of the marching-cubes patch of the eight voxels. Distances are measured between corners
and weighted by area.

Upstream: two masks. Downstream: `accuracy`.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from numpy.typing import NDArray
from scipy import ndimage

from corereg.errors import InputError

__all__ = ["Spacing", "neighbour_code_areas", "robust_hausdorff"]

Corner = tuple[int, int, int]
Spacing = Sequence[float] | NDArray[Any]

CORNERS: tuple[Corner, ...] = tuple((i, j, k) for i, j, k in product((0, 1), repeat=3))
"""Voxels of a 2x2x2 neighbourhood. Voxel n contributes 2**n to the neighbourhood's code if it is inside the mask."""
ALL_OUTSIDE, ALL_INSIDE = 0, 255
HAUSDORFF_PERCENT = 95.0
"""Learn2Reg evaluation: the 95th percentile of surface area instead of the maximum."""


def robust_hausdorff(
    mask_a: NDArray[np.bool_],
    mask_b: NDArray[np.bool_],
    *,
    spacing: Spacing = (1.0, 1.0, 1.0),
    percent: float = HAUSDORFF_PERCENT,
) -> float:
    """Distance from the other mask's surface within which `percent` of each mask's surface area lies.

    Args:
        mask_a, mask_b: (I, J, K), true inside.
        spacing: voxel size along i, j, k; the challenge uses 1, so its distances are in voxels.
        percent: 100 gives the plain Hausdorff distance.

    Returns: the larger of the two directed distances; infinite if a mask is empty.
    Raises:
        InputError: the masks differ in shape, or are not 3D.
    Source: Nikolov et al. 2021, "Clinically applicable segmentation of head and neck anatomy for radiotherapy"
        (the `surface-distance` package), called by the Learn2Reg evaluation with unit spacing.
    """
    if mask_a.shape != mask_b.shape or mask_a.ndim != 3:
        raise InputError(f"got masks of shapes {mask_a.shape} and {mask_b.shape}, expected the same 3D shape for both")
    if not (mask_a.any() and mask_b.any()):
        return float("inf")
    box = ndimage.find_objects((mask_a | mask_b).astype(np.uint8))[0]
    codes_a, codes_b = (_neighbour_codes(mask[box]) for mask in (mask_a, mask_b))
    areas = neighbour_code_areas(spacing)
    return max(
        _directed_distance(codes_a, codes_b, areas, spacing, percent),
        _directed_distance(codes_b, codes_a, areas, spacing, percent),
    )


def neighbour_code_areas(spacing: Spacing = (1.0, 1.0, 1.0)) -> NDArray[np.float64]:
    """Area of the surface in a 2x2x2 neighbourhood, for each of its 256 codes.

    Args:
        spacing: voxel size along i, j, k; areas are in its unit squared.

    Returns: (256,), zero if all voxels are outside or all are inside.
    """
    i, j, k = np.asarray(spacing, np.float64)
    face_areas = np.array([j * k, i * k, i * j])
    return np.array([np.linalg.norm(normals * face_areas, axis=1).sum() for normals in _code_normals()])


def _directed_distance(
    codes_from: UInt8[np.ndarray, "I J K"],
    codes_to: UInt8[np.ndarray, "I J K"],
    areas: Float64[np.ndarray, "256"],
    spacing: Spacing,
    percent: float,
) -> float:
    distance_map = ndimage.distance_transform_edt(~_is_surface(codes_to), sampling=np.asarray(spacing, np.float64))
    surface = _is_surface(codes_from)
    distances, weights = distance_map[surface], areas[codes_from[surface]]
    # Sort ties by area: the official sum runs in that order, and rounding can decide the 95 % step.
    order = np.lexsort((weights, distances))
    cumulative = np.cumsum(weights[order]) / np.sum(weights[order])
    step = int(np.searchsorted(cumulative, percent / 100))
    return float(distances[order][min(step, len(distances) - 1)])


def _is_surface(codes: UInt8[np.ndarray, "I J K"]) -> Bool[np.ndarray, "I J K"]:
    return np.asarray((codes != ALL_OUTSIDE) & (codes != ALL_INSIDE))


def _neighbour_codes(mask: NDArray[Any]) -> UInt8[np.ndarray, "_ _ _"]:
    """Codes at the corners of all voxels, one more per axis than voxels; everything beyond the array is outside."""
    padded = np.pad(mask.astype(np.uint8), 1)
    i, j, k = (size - 1 for size in padded.shape)
    codes = np.zeros((i, j, k), np.uint8)
    for bit, (di, dj, dk) in enumerate(CORNERS):
        codes |= padded[di : di + i, dj : dj + j, dk : dk + k] << np.uint8(bit)
    return codes


# Surface patches. Their areas equal the official table for all 256 codes, at unit and at unequal spacing.


@cache
def _code_normals() -> tuple[Float64[np.ndarray, "triangles 3"], ...]:
    """For each code, the normals of its triangles in a unit cube; a normal's length is its triangle's area."""
    normals = []
    for code in range(256):
        inside = {corner for bit, corner in enumerate(CORNERS) if code >> bit & 1}
        # A face with opposite corners inside can be cut in two ways: corners of the rarer kind count as separate.
        rarer = inside if len(inside) <= len(CORNERS) / 2 else set(CORNERS) - inside
        triangles = [_largest_triangulation(_rim(group)) for group in _groups(rarer)]
        normals.append(np.concatenate([np.zeros((0, 3)), *triangles]))
    return tuple(normals)


def _edge_neighbours(corner: Corner) -> list[Corner]:
    i, j, k = corner
    return [(1 - i, j, k), (i, 1 - j, k), (i, j, 1 - k)]


def _groups(corners: set[Corner]) -> Iterator[set[Corner]]:
    """Split corners into groups connected along edges of the cube."""
    remaining = set(corners)
    while remaining:
        group, front = set[Corner](), [min(remaining)]
        while front:
            corner = front.pop()
            remaining.discard(corner)
            group.add(corner)
            front.extend(neighbour for neighbour in _edge_neighbours(corner) if neighbour in remaining)
        yield group


def _rim(group: set[Corner]) -> Float64[np.ndarray, "points 3"]:
    """The closed polygon that cuts off a group: midpoints of the cut edges, consecutive ones on a common face."""
    cut_edges = [(a, b) for a in sorted(group) for b in _edge_neighbours(a) if b not in group]
    midpoints = [np.add(a, b) / 2 for a, b in cut_edges]
    rim = [midpoints.pop(0)]
    while midpoints:
        # Points on a common face share a coordinate of 0 or 1; along its own edge a midpoint has 0.5.
        following = next(n for n, point in enumerate(midpoints) if np.any((point == rim[-1]) & (point != 0.5)))
        rim.append(midpoints.pop(following))
    return np.array(rim)


def _largest_triangulation(polygon: Float64[np.ndarray, "points 3"]) -> Float64[np.ndarray, "triangles 3"]:
    """Normals of the triangulation of largest area, which is what the official table holds for every code."""
    candidates = [np.array(normals) for normals in _triangulations(polygon)]
    return max(candidates, key=lambda normals: float(np.linalg.norm(normals, axis=1).sum()))


def _triangulations(polygon: Float64[np.ndarray, "points 3"]) -> Iterator[list[Float64[np.ndarray, "3"]]]:
    """All triangulations of a polygon by its diagonals; each triangle is given by its normal, of its area's length."""
    if len(polygon) < 3:
        yield []
        return
    first, last = polygon[0], polygon[-1]
    for apex in range(1, len(polygon) - 1):
        normal = np.cross(polygon[apex] - first, last - first) / 2
        for left in _triangulations(polygon[: apex + 1]):
            for right in _triangulations(polygon[apex:]):
                yield [*left, normal, *right]
