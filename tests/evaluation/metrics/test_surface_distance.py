"""Surface distances against a slow loop."""

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import cdist

from corereg.evaluation import metrics
from corereg.evaluation.metrics.surface_distance import CORNERS, neighbour_code_areas, robust_hausdorff


def random_blob(rng: np.random.Generator, shape: tuple[int, int, int], smoothness: float) -> NDArray[np.bool_]:
    return ndimage.gaussian_filter(rng.normal(size=shape), smoothness) > 0


# The area of each marching-cubes patch in closed form, by the number of corners inside (or outside, whichever is
# rarer), of those how many pairs share an edge, and how many lie across a face. Written independently of the module.
TRIANGLE = math.sqrt(3) / 8

PATCH_AREAS = {
    (0, 0, 0): 0.0,
    (1, 0, 0): TRIANGLE,
    (2, 1, 0): math.sqrt(2) / 2,
    (2, 0, 1): 2 * TRIANGLE,
    (2, 0, 0): 2 * TRIANGLE,
    (3, 2, 1): 0.5 + 3 * TRIANGLE,
    (3, 1, 1): math.sqrt(2) / 2 + TRIANGLE,
    (3, 0, 3): 3 * TRIANGLE,
    (4, 4, 2): 1.0,
    (4, 3, 3): 6 * TRIANGLE,
    (4, 3, 2): math.sqrt(2) / 2 + 4 * TRIANGLE,
    (4, 2, 3): 0.5 + 4 * TRIANGLE,
    (4, 2, 2): math.sqrt(2),
    (4, 0, 6): 4 * TRIANGLE,
}


def patch_area(inside: list[tuple[int, int, int]]) -> float:
    rarer = inside if len(inside) <= 4 else [corner for corner in CORNERS if corner not in inside]
    pairs = [np.abs(np.subtract(a, b)).sum() for a, b in itertools.combinations(rarer, 2)]
    return PATCH_AREAS[len(rarer), pairs.count(1), pairs.count(2)]


def brute_force_hd95(mask_a: NDArray[np.bool_], mask_b: NDArray[np.bool_]) -> float:
    def surface(mask: NDArray[np.bool_]) -> list[tuple[tuple[int, int, int], float]]:
        padded = np.pad(mask, 1)
        cells = itertools.product(*(range(size - 1) for size in padded.shape))
        elements = []
        for cell in cells:
            inside = [corner for corner in CORNERS if padded[tuple(np.add(cell, corner))]]
            if 0 < len(inside) < 8:
                elements.append((cell, patch_area(inside)))
        return elements

    def directed(elements: list, others: list) -> float:
        nearest = cdist([cell for cell, _ in elements], [cell for cell, _ in others]).min(1)
        rows = sorted(zip(nearest.tolist(), (area for _, area in elements), strict=True))
        total, reached = sum(area for _, area in rows), 0.0
        for distance, area in rows:
            reached += area
            if reached / total >= 0.95:
                return distance
        return rows[-1][0]

    a, b = surface(mask_a), surface(mask_b)
    return max(directed(a, b), directed(b, a))


class TestSurfaceDistance:
    def test_area_of_every_neighbour_code(self):
        for code, area in enumerate(neighbour_code_areas()):
            inside = [corner for bit, corner in enumerate(CORNERS) if code >> bit & 1]
            assert area == pytest.approx(patch_area(inside), abs=1e-12), f"code {code}"

    def test_area_scales_with_the_face_it_lies_on(self):
        half_space = [bit for bit, (_, j, _) in enumerate(CORNERS) if j == 0]
        area = neighbour_code_areas((1.6, 0.9, 5.0))[sum(1 << bit for bit in half_space)]
        assert area == pytest.approx(1.6 * 5.0)

    @pytest.mark.parametrize("seed", range(6))
    def test_equals_brute_force_on_random_shapes(self, seed):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(5, 13, 3).tolist())
        mask_a, mask_b = (random_blob(rng, shape, smoothness) for smoothness in (0.7, 1.5))
        assert robust_hausdorff(mask_a, mask_b) == pytest.approx(brute_force_hd95(mask_a, mask_b), abs=1e-9)

    def test_shifted_box_in_voxels_and_in_mm(self):
        box, shifted = np.zeros((2, 20, 22, 24), np.uint8)
        box[4:12, 5:15, 6:16] = 1
        shifted[4:12, 5:15, 9:19] = 1
        assert metrics.hd95(box, shifted) == {1: 3.0}
        assert metrics.hd95(box, shifted, spacing_mm=(1.0, 1.5, 2.5)) == {1: 7.5}

    def test_is_symmetric_and_zero_for_equal_masks(self):
        rng = np.random.default_rng(5)
        mask_a, mask_b = (random_blob(rng, (9, 11, 13), 1.0) for _ in range(2))
        assert robust_hausdorff(mask_a, mask_b) == robust_hausdorff(mask_b, mask_a)
        assert robust_hausdorff(mask_a, mask_a) == 0

    def test_mask_that_touches_the_border_has_a_surface_there(self):
        full, half = np.ones((2, 6, 7, 8), bool)
        half[:, :, 4:] = False
        assert robust_hausdorff(full, half, percent=100.0) == 4
