"""Damaged files in bulk: mutations of bytes, lines and fields, and readings of them in child processes."""

import json
import os
import re
import resource
import signal
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from corereg.errors import InputError

MEMORY_BYTES = 4 * 2**30
"""Address space that a child may add: enough for every base file, not for a bomb."""

LONGEST_SECONDS = 60

READ, REFUSED, FAULT = "read", "refused", "fault"

NUMBERS = (
    *("0", "-1", "1", "2", "255", "32767", "32768", "65535", "2147483647", "-2147483648", "4294967295"),
    *("9223372036854775807", "18446744073709551616", "1e38", "-1e38", "1e-38", "1e308", "1e400", "nan", "inf", "-inf"),
    *("0.0", "1e-300", "30000", "0x10", "", "abc"),
)

TEXTS = (
    *(
        "",
        " ",
        "%s%s%s%n",
        "%d",
        "../../../etc/passwd",
        "/etc/passwd",
        "LIST",
        "LIST 2",
        "LOCAL",
        "A" * 300,
        "A" * 70000,
    ),
    *(
        "\0",
        "é",
        "None",
        "[]",
        "{}",
        "raw",
        "gzip",
        "ascii",
        "hex",
        "bzip2",
        "MET_DOUBLE",
        "MET_STRING",
        "double",
        "block",
    ),
    *("True", "False", "4", "30000 30000 30000", "1 1 1 1 1 1 1 1 1 1 1", "(1,0,0) (0,1,0)", "none none none"),
)


def in_children(cases: int, read: Callable[[int], object]) -> list[tuple[str, str]]:
    """What came of `read(0)` to `read(cases - 1)`: read, refused in one line, or a fault with its traceback.

    Many cases share a child, because a fork of so large a process takes longer than a case; a child that ends by a
    signal has reported all cases before.
    """
    found: list[tuple[str, str]] = []
    while len(found) < cases:
        receiving, sending = os.pipe()
        child = os.fork()
        if not child:
            os.close(receiving)
            with os.fdopen(sending, "w") as reports:
                _read_all(range(len(found), cases), read, reports)
            os._exit(0)
        os.close(sending)
        with os.fdopen(receiving) as telling:
            found += [tuple(json.loads(line)) for line in telling]
        _, status = os.waitpid(child, 0)
        if status:
            ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"status {status}"
            found.append((FAULT, f"the process was ended by {ended}"))
    return found


def _read_all(cases: Iterable[int], read: Callable[[int], object], reports: TextIO) -> None:
    used = int(Path("/proc/self/statm").read_text("utf-8").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    for case in cases:
        signal.alarm(LONGEST_SECONDS)
        reports.write(json.dumps(_outcome(case, read)) + "\n")
        reports.flush()


def _outcome(case: int, read: Callable[[int], object]) -> tuple[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", category=UserWarning)
            read(case)
    except InputError as error:
        return (FAULT, f"a message of several lines: {error}") if "\n" in str(error) else (REFUSED, str(error))
    except BaseException:
        return FAULT, traceback.format_exc()
    return READ, ""


def damaged_bytes(content: bytes, rng: np.random.Generator, *, within: int) -> bytes:
    """Flipped, overwritten, removed or repeated bytes among the first `within`, or a file cut short."""
    damaged = bytearray(content)
    within = min(within, len(damaged))
    at, length = int(rng.integers(within)), int(rng.integers(1, 9))
    kind = rng.integers(6)
    if kind == 0:
        for place in rng.integers(within, size=length):
            damaged[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        damaged[at : at + length] = rng.integers(256, size=length, dtype=np.uint8).tobytes()
    elif kind == 2:
        damaged[at : at + length] = bytes([int(rng.choice([0, 255, 127, 128]))]) * length
    elif kind == 3:
        del damaged[at : at + length]
    elif kind == 4:
        damaged[at:at] = damaged[at : at + length * 4]
    else:
        del damaged[int(rng.integers(len(damaged))) :]
    return bytes(damaged)


def damaged_lines(content: bytes, rng: np.random.Generator, *, lines: int, separators: Sequence[bytes]) -> bytes:
    """A text header with one value replaced, or one line removed, repeated or moved; binary data after it stay."""
    parts = content.split(b"\n", lines)
    head, rest = parts[:lines], parts[lines:]
    at = int(rng.integers(len(head)))
    kind = rng.integers(8)
    if kind == 0:
        del head[at]
    elif kind == 1:
        head.insert(int(rng.integers(len(head))), head[at])
    elif kind == 2:
        head[at] = head[at].swapcase()
    else:
        separator = next((separator for separator in separators if separator in head[at]), None)
        key, found, value = head[at].partition(separator) if separator else (b"", b"", head[at])
        head[at] = key + found + _other_value(value, rng)
    return b"\n".join([*head, *rest])


def damaged_json(text: str, rng: np.random.Generator) -> str:
    """JSON with a number or a text replaced, or a bracket removed."""
    tokens = list(re.finditer(r"-?\d+(\.\d+)?|\"[^\"]*\"|[\[\]{}:,]", text))
    token = tokens[int(rng.integers(len(tokens)))]
    choices = [
        *NUMBERS,
        "null",
        "true",
        "[]",
        "{}",
        "[" * 5000,
        '"LPS"',
        '"x"',
        "NaN",
        "-Infinity",
        "1e400",
        '"\\ud800"',
    ]
    return text[: token.start()] + str(rng.choice(choices)) + text[token.end() :]


def extreme(dtype: np.dtype[Any], rng: np.random.Generator) -> Any:
    """A value at an end of what a field can hold."""
    if dtype.kind == "S":
        return bytes(rng.integers(256, size=dtype.itemsize, dtype=np.uint8))
    if dtype.kind == "f":
        return rng.choice([np.nan, np.inf, -np.inf, 0, -1, 1e38, -1e38, 1e-38, 1e-45, 0.5, 3e4]).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.choice(np.array([limits.min, limits.max, 0, 1, 2, 7, 16, 64], dtype=dtype))


def _other_value(value: bytes, rng: np.random.Generator) -> bytes:
    words = value.split(b" ")
    if rng.integers(2) and len(words) > 1:
        words[int(rng.integers(len(words)))] = str(rng.choice(NUMBERS)).encode()
        return b" ".join(words)
    return str(rng.choice([*NUMBERS, *TEXTS])).encode()
