"""Makes text from users' files safe to write: names that are not UTF-8, and cells that a spreadsheet would run.

Upstream: names of files, scans and labels. Downstream: `pages`, `tables`, `figures`.
"""

import re

__all__ = ["csv_cell", "printable"]

SURROGATE = re.compile("[\ud800-\udfff]")
"""Characters that no encoding accepts. Python uses them for bytes of file names that are not UTF-8."""
FIRST_BYTE, LAST_BYTE, OFFSET = 0xDC80, 0xDCFF, 0xDC00
"""Surrogates that stand for the bytes 0x80 to 0xFF, and what is added to a byte (PEP 383)."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Beginnings of a cell that spreadsheets take for a formula (OWASP, CSV injection)."""


def printable(text: str) -> str:
    r"""The text with bytes that are not UTF-8 spelled out, such as \xe9, so that it can be encoded."""
    return SURROGATE.sub(lambda match: _spelled_out(ord(match[0])), text)


def csv_cell(value: object) -> object:
    """A value as a CSV cell: text that a spreadsheet would run as a formula gets a leading apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _spelled_out(code: int) -> str:
    return f"\\x{code - OFFSET:02x}" if FIRST_BYTE <= code <= LAST_BYTE else f"\\u{code:04x}"
