"""Transforms in half precision."""

from pathlib import Path

import numpy as np
import pytest

from corereg.errors import InputError
from corereg.io.transforms.formats.npz import write_compact, write_plain
from corereg.io.transforms.transform import Transform
from helpers.transforms import FIXED, wavy

HALF_ULP = 2.0**-11


def test_half_precision_rounds_by_a_2000th_and_is_smaller(tmp_path: Path) -> None:
    transform = wavy(FIXED)
    write_plain(tmp_path / "whole.npz", transform.stored())
    write_compact(tmp_path / "half.npz", transform.stored())
    whole, half = (Transform.load(tmp_path / f"{name}.npz").total_mm() for name in ("whole", "half"))
    assert np.abs(whole).max() > 1
    np.testing.assert_allclose(half, whole, rtol=1.01 * HALF_ULP, atol=1e-4)
    assert (half != whole).any()
    assert (tmp_path / "half.npz").stat().st_size < 0.6 * (tmp_path / "whole.npz").stat().st_size


def test_archive_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    write_plain(tmp_path / "a.npz", wavy(FIXED).stored())
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[content.rindex(b"PK\x01\x02") + 6] = 109  # the version needed to read the last member
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match="npz"):
        Transform.load(tmp_path / "a.npz")
