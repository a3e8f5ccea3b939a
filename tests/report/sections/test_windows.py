"""Display windows."""

import numpy as np
import pytest

from corereg.report.sections.planes import body_mask
from corereg.report.sections.windows import LUNG, SOFT_TISSUE, Window, display_window, window_for_body
from helpers.phantoms import subject_of


@pytest.mark.parametrize(("kind", "name"), [("chest", LUNG), ("abdomen", SOFT_TISSUE)])
def test_a_chest_is_shown_in_the_lung_window_and_an_abdomen_is_not(kind: str, name: str) -> None:
    image, _, _ = subject_of(0, kind)
    window = display_window(image)
    assert window_for_body(window, image, body_mask(image, window)).name == name


def test_air_around_the_body_does_not_count() -> None:
    image = np.full((30, 34, 12), -1000.0)
    image[11:19, 12:22] = 40.0
    window = display_window(image)
    assert window_for_body(window, image, body_mask(image, window)).name == SOFT_TISSUE


def test_an_mr_keeps_its_window() -> None:
    window = Window(0.0, 500.0, is_ct=False)
    image = np.full((5, 6, 7), -900.0)
    assert window_for_body(window, image, np.ones(image.shape, bool)) is window
    assert window.name == ""
