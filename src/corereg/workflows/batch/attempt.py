"""What every worker does, whoever started it: it prepares once, then makes a row of one pair after another."""

import os
import pkgutil
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.evaluation.benchmark.peers.running import THREAD_VARIABLES
from corereg.workflows.batch.pairs import Pair
from corereg.workflows.batch.rows import OK, Row
from corereg.workflows.batch.tasks import FAILED

__all__ = ["Attempt", "prepared"]

Attempt = Callable[[Pair, Path], tuple[Row, bool]]
"""Registers a pair into a folder. Returns its row, and whether another attempt may succeed."""


def prepared(method: str, options: Mapping[str, Any]) -> Attempt:
    """Import "module:function" and everything that it needs.

    Args:
        options: what the function is called with, in addition to pair and folder; among them `threads`.
    """
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(options["threads"])))  # before torch is imported
    function = pkgutil.resolve_name(method)
    return lambda pair, folder: _attempt(partial(function, pair, folder, **options))


def _attempt(register: Callable[[], Mapping[str, Any]]) -> tuple[Row, bool]:
    """Failures are reported in the row."""
    started = time.monotonic()
    row: Row = {"status": OK, "seconds": 0.0}
    again = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            row |= register()
        except InputError as error:
            row |= {"status": FAILED, "error": str(error)}
        except Exception as error:
            row |= {"status": FAILED, "error": " ".join(f"{type(error).__name__}: {error}".split())}
            again = True
    row["seconds"] = time.monotonic() - started
    if caught:
        row["warnings"] = list(dict.fromkeys(str(warning.message) for warning in caught))
    return row, again
