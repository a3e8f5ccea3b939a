"""Work on a scan, kept for the next pair that the scan is in. Off unless a batch turns it on, and bounded in memory."""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import numpy as np

from corereg.provenance import recorded_warnings

__all__ = ["bytes_of", "keep_up_to", "kept"]

Value = TypeVar("Value")


class _Entry(NamedTuple):
    value: Any
    sources: tuple[Any, ...]
    """Held, so that no other object gets their identities meanwhile."""
    warned: tuple[str, ...]
    """What was warned of on the way."""
    size: int


_entries: OrderedDict[Hashable, _Entry] = OrderedDict()
_most_bytes = 0


def keep_up_to(most_bytes: int) -> None:
    """Keep results in this process, the latest used ones first; 0 keeps nothing, as at the start."""
    global _most_bytes
    _most_bytes = most_bytes
    _shrink()


def kept(key: Hashable, make: Callable[[], Value], *, of: tuple[Any, ...] = ()) -> Value:
    """What `make` returns, or returned for the same key and sources; its warnings are given again.

    Args:
        of: the objects that the value is made of, which must not change.
    """
    if not _most_bytes:
        return make()
    full_key = key, tuple(map(id, of))
    entry = _entries.pop(full_key, None)
    if entry is None:
        with recorded_warnings() as texts:
            value = make()
        entry = _Entry(value, of, tuple(texts), bytes_of(value))
    else:
        for text in entry.warned:
            warnings.warn(text, stacklevel=2)
    _entries[full_key] = entry
    _shrink()
    found: Value = entry.value
    return found


def bytes_of(value: Any) -> int:
    """Memory of the arrays that a value is, has or consists of."""
    if isinstance(value, tuple):
        return sum(map(bytes_of, value))
    with suppress(AttributeError):
        value = value.array
    return value.nbytes if isinstance(value, np.ndarray) else 0


def _shrink() -> None:
    """Forget the results whose last use is longest ago, until the others fit."""
    total = sum(entry.size for entry in _entries.values())
    while _entries and (total > _most_bytes or not _most_bytes):
        total -= _entries.popitem(last=False)[1].size
