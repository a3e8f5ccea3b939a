"""Heaps of texts in HDF5 files: a damaged one is refused, where HDF5 itself would never end."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from corereg.errors import InputError
from corereg.io.transforms.transform import Transform
from helpers.transforms import FIXED


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "a.h5"
    Transform((np.eye(4),), fixed=FIXED).save(path)
    return path


@pytest.mark.parametrize("size", [0, 2053, 2**63])
def test_damaged_text_is_refused(saved: Path, size: int) -> None:
    content = bytearray(saved.read_bytes())
    first = content.index(b"GCOL") + 16
    content[first + 8 : first + 16] = size.to_bytes(8, "little")
    saved.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.h5"):
        Transform.load(saved)


def test_file_that_ends_within_a_heap_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: content.index(b"GCOL") + 10])
    with pytest.raises(InputError, match=r"a\.h5"):
        Transform.load(saved)


def test_file_of_itk_is_sound(tmp_path: Path) -> None:
    composite = SimpleITK.CompositeTransform([SimpleITK.Euler3DTransform(), SimpleITK.AffineTransform(3)])
    SimpleITK.WriteTransform(composite, str(tmp_path / "itk.h5"))
    assert np.allclose(Transform.load(tmp_path / "itk.h5").apply_points([[1.0, 2.0, 3.0]]), [[1.0, 2.0, 3.0]])
