"""gzip in memory, by either library."""

import gzip
import sys
import zlib

import pytest

from corereg.io.images.compression import gzipped, inflated
from helpers.grids import make_grid
from helpers.images import ramp


@pytest.mark.parametrize("isal", [True, False])
def test_gzip_in_memory_holds_its_content(monkeypatch: pytest.MonkeyPatch, isal: bool) -> None:
    if not isal:
        monkeypatch.setitem(sys.modules, "isal.igzip", None)
    content = ramp(make_grid()).tobytes()
    packed = gzipped(content)
    assert gzip.decompress(packed) == content
    assert len(packed) < len(content)
    assert packed[3:8] == bytes(5)


@pytest.mark.parametrize("isal", [True, False])
@pytest.mark.parametrize("damage", [lambda packed: packed[:-1], lambda packed: packed[:50], lambda packed: packed[:-9]])
def test_gzip_that_ends_early_is_an_error(monkeypatch: pytest.MonkeyPatch, isal: bool, damage: object) -> None:
    if not isal:
        monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    content = ramp(make_grid()).tobytes()
    with pytest.raises(EOFError, match="missing"):
        inflated(damage(gzipped(content)), len(content))  # type: ignore[operator]


@pytest.mark.parametrize("isal", [True, False])
def test_wrong_checksum_is_an_error(monkeypatch: pytest.MonkeyPatch, isal: bool) -> None:
    if not isal:
        monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    content = ramp(make_grid()).tobytes()
    packed = bytearray(gzipped(content))
    packed[-5] ^= 1
    with pytest.raises(zlib.error, match="incorrect data check"):
        inflated(bytes(packed), len(content))


@pytest.mark.parametrize("size", [1, 348, 7000])
def test_first_bytes_are_inflated_alone(size: int) -> None:
    content = ramp(make_grid()).tobytes()
    assert inflated(gzipped(content), size) == content[:size]
