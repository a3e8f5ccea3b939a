"""Slices of a volume the right way up."""

import itertools

import numpy as np
import pytest

from corereg.report.sections.planes import PLANES, View, make_view, reorient

AXIAL, CORONAL, SAGITTAL = PLANES


class TestOrientation:
    """On grids stored as RAS, LPS, PIR and rotated off all axes."""

    @pytest.mark.parametrize("corner", list(itertools.product((0, 1), repeat=3)), ids=str)
    def test_bright_corner_lies_where_a_radiologist_expects_it(self, grid, corner):
        canonical = grid.canonical()
        shape = np.array(canonical.shape)
        spot = np.where(corner, shape - 3, 2)
        volume = np.zeros(grid.shape)
        stored = np.rint(grid.to_voxel(canonical.to_world(spot))).astype(int)
        volume[tuple(stored)] = 1
        # The three planes through the spot; right, front and head are the high ends of the canonical axes.
        centre = (int(spot[0]), int(spot[1]), int(spot[2]))
        view = View(canonical.shape, canonical.spacing, centre)
        to_right, to_front, to_head = corner
        expected = {"Axial": (to_front, to_right), "Coronal": (to_head, to_right), "Sagittal": (to_head, to_front)}
        for plane in PLANES:
            picture = view.magnify(view.cut(reorient(volume, grid), plane), plane)
            row, column = np.unravel_index(int(picture.argmax()), picture.shape)
            upper, left = row < picture.shape[0] / 2, column < picture.shape[1] / 2
            assert (upper, left) == tuple(map(bool, expected[plane.name])), plane.name

    def test_letters_at_the_edges(self):
        assert AXIAL.edges == {"left": "R", "right": "L", "top": "A", "bottom": "P"}
        assert CORONAL.edges == {"left": "R", "right": "L", "top": "S", "bottom": "I"}
        assert SAGITTAL.edges == {"left": "A", "right": "P", "top": "S", "bottom": "I"}

    def test_world_order_is_that_of_the_canonical_grid(self, grid):
        stored = np.arange(np.prod(grid.shape)).reshape(grid.shape)
        upright, canonical = reorient(stored, grid), grid.canonical()
        assert upright.shape == canonical.shape
        for voxel in [(0, 0, 0), (1, 2, 3), (5, 0, 7)]:
            there = np.rint(grid.to_voxel(canonical.to_world(np.array(voxel)))).astype(int)
            assert upright[voxel] == stored[tuple(there)]

    def test_pixels_are_square_in_millimetres_and_equal_in_all_planes(self, grid):
        view = make_view(np.ones(grid.canonical().shape, bool), grid)
        for plane in PLANES:
            rows_mm, columns_mm = view.extent_mm[plane.rows], view.extent_mm[plane.columns]
            height, width = view.size_px(plane)
            assert height == pytest.approx(rows_mm / view.pixel_mm, abs=0.5)
            assert width == pytest.approx(columns_mm / view.pixel_mm, abs=0.5)
            assert height / width == pytest.approx(rows_mm / columns_mm, rel=0.01)

    def test_long_scan_is_drawn_with_fewer_pixels(self):
        view = View((512, 512, 1500), (0.9, 0.9, 1.0), (0, 0, 0))
        assert sum(np.prod(view.size_px(plane)) for plane in PLANES) < 610_000

    def test_planes_pass_through_the_centre_of_the_body(self, grid):
        canonical = grid.canonical()
        body = np.zeros(canonical.shape, bool)
        body[4:7, 8:11, 10:13] = True
        assert make_view(body, grid).centre_vox == (5, 9, 11)
