"""Pictures as another decoder reads them."""

import numpy as np
import pytest

from corereg.report.sections import pictures
from corereg.report.sections.pictures import DIVERGING, FOLD, GREY, MARKS, SEQUENTIAL
from helpers.reports import decode


class TestPictures:
    def test_png_is_what_another_decoder_reads(self, tmp_path):
        rng = np.random.default_rng(4)
        values = rng.random((37, 23))
        where = rng.random(values.shape) < 0.2
        decoded = decode(pictures.draw(values, GREY, [(FOLD, where)]), tmp_path)
        assert decoded.shape == (37, 23, 3)
        np.testing.assert_allclose(decoded[~where, 0] / 255, values[~where], atol=0.004)
        assert {bytes(colour).hex() for colour in decoded[where]} == {MARKS[FOLD].removeprefix("#")}

    def test_dimmed_pixels_are_darker_and_keep_their_order(self, tmp_path):
        values = np.tile(np.linspace(0, 1, 20), (2, 1))
        dimmed = np.array([[False], [True]]) & np.ones(values.shape, bool)
        bright, dark = decode(pictures.draw(values, GREY, dimmed=dimmed), tmp_path)[:, :, 0].astype(int)
        assert (dark <= bright).all()
        assert (np.diff(dark) >= 0).all()
        assert 0 < dark[-1] < bright[-1] == 255

    @pytest.mark.parametrize("ramp", [GREY, SEQUENTIAL], ids=["grey", "sequential"])
    def test_brighter_means_more(self, ramp):
        luminance = ramp.colours(100) @ np.array([0.2126, 0.7152, 0.0722])
        assert (np.diff(luminance) > -0.5).all()

    def test_equal_images_differ_nowhere(self, tmp_path):
        decoded = decode(pictures.draw(np.full((4, 6), 0.5), DIVERGING), tmp_path)
        assert decoded.max() < 8

    def test_checkerboard_takes_turns(self):
        board = pictures.checkerboard(np.zeros((4, 6)), np.ones((4, 6)), 2)
        assert board[:, ::2].tolist() == [[0, 1, 0], [0, 1, 0], [1, 0, 1], [1, 0, 1]]

    def test_edge_runs_inside_the_mask_and_not_along_the_frame(self):
        mask = np.zeros((6, 7), bool)
        mask[:4, 1:5] = True
        expected = mask.copy()
        expected[:3, 2:4] = False
        np.testing.assert_array_equal(pictures.edges(mask), expected)


def test_overlay_takes_brightness_from_the_image_and_colour_from_the_values(tmp_path):
    grey = np.linspace(0, 1, 9)[:, None] * np.ones((1, 7))
    values = np.linspace(0, 1, 7)[None] * np.ones((9, 1))
    shown = decode(pictures.overlay(grey, values, SEQUENTIAL), tmp_path).astype(int)
    assert shown.shape == (9, 7, 3)
    assert (np.diff(shown.sum(2), axis=0) > 0).all(), "every row of the image is brighter than the one before"
    assert len(np.unique(shown[4], axis=0)) == 7
    certain, uncertain = shown[4, 0], shown[4, 4]
    assert np.ptp(certain) <= 4 < 60 < np.ptp(uncertain), "grey where the value is 0, coloured where it is large"
