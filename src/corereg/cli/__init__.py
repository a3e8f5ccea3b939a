"""The command `corereg`: parse, call one public function, print. A user's mistake gives one line and exit status 2."""

import os
import sys
import warnings
from typing import Any

from corereg.cli import batch, demo, evaluate, register, reproduce, train, transforms
from corereg.cli.common import app, log
from corereg.cli.endings import check_current_folder, describe, write_any_character

__all__ = ["app", "batch", "demo", "evaluate", "main", "register", "reproduce", "train", "transforms"]


DEBUG, DEBUG_VARIABLE = "--debug", "COREREG_DEBUG"


def main() -> None:
    """Entry point. Errors are one line without a traceback."""
    warnings.showwarning = _print_warning
    write_any_character()
    try:
        check_current_folder()
        app([word for word in sys.argv[1:] if word != DEBUG])
    except Exception as error:
        line, status = describe(error, debug=DEBUG in sys.argv or os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"))
        log(f"corereg: {line}")
        sys.exit(status)


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    log(f"corereg: warning: {message}")
