"""gzip, by ISA-L where it is installed. Reading never inflates more than the caller has room for."""

import gzip
import zlib
from importlib import import_module
from io import BytesIO
from typing import Any, BinaryIO

__all__ = ["GZIP_MAGIC", "LARGEST_RATIO", "deflating", "gzipped", "inflated", "zlib_compress"]

GZIP_MAGIC = b"\x1f\x8b"

GZIP_WINDOW = 31
"""zlib's wbits for a stream with gzip's header and checksum."""

LARGEST_RATIO = 1032
"""Deflate cannot compress better than this (zlib's technical details)."""

COMPRESSION_LEVEL = 1
"""The fastest: on noisy scans the higher levels take several times longer and save only a few percent."""


def inflated(content: bytes, size: int) -> bytes:
    """At most the first `size` bytes of gzip content. The checksum is verified if the content ends there.

    Raises:
        EOFError: the stream ends early, before `size` bytes or before its checksum.
        zlib.error: the stream is damaged.
    """
    try:
        return _inflated(content, size, import_module("isal.isal_zlib"))
    except Exception:  # zlib's errors are the ones callers know
        return _inflated(content, size, zlib)


def _inflated(content: bytes, size: int, library: Any) -> bytes:
    parts, missing = [], size
    while True:
        stream = library.decompressobj(wbits=GZIP_WINDOW)
        part = stream.decompress(content, missing)
        parts.append(part)
        missing -= len(part)
        if not missing:
            more = b"" if stream.eof else stream.decompress(stream.unconsumed_tail, 1)
            if not more and not stream.eof:
                raise EOFError("the checksum is missing")
            break
        if not stream.eof:
            raise EOFError(f"{missing} of {size} bytes are missing")
        content = stream.unused_data
        if not content.startswith(GZIP_MAGIC):  # members may follow each other
            break
    return parts[0] if len(parts) == 1 else b"".join(parts)


def gzipped(content: bytes) -> bytes:
    """Compress. The same content always gives the same bytes."""
    memory = BytesIO()
    with deflating(memory) as stream:
        stream.write(content)
    return memory.getvalue()


def zlib_compress(content: bytes) -> bytes:
    """A zlib stream of the content, as HDF5 stores it."""
    try:
        library = import_module("isal.isal_zlib")
    except ImportError:
        library = zlib
    return bytes(library.compress(content, COMPRESSION_LEVEL))


def deflating(file: BinaryIO | BytesIO) -> Any:
    """A stream that compresses into a file. ISA-L is ten times as fast as zlib for files of the same size."""
    try:
        igzip = import_module("isal.igzip")
    except ImportError:
        return gzip.GzipFile("", "wb", COMPRESSION_LEVEL, file, mtime=0)
    return igzip.IGzipFile("", "wb", COMPRESSION_LEVEL, file, mtime=0)
