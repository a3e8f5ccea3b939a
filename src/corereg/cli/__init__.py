"""The command `corereg`: parse, call one public function, print. Exit status 2 with one line for a user's mistake."""

import logging
import sys
import warnings
from typing import Any

from corereg.cli import demo as tour
from corereg.cli import evaluate, register, train, transforms
from corereg.cli.common import app, say
from corereg.errors import InputError

__all__ = ["app", "evaluate", "main", "register", "tour", "train", "transforms"]

USER_MISTAKE, FAILURE = 2, 1


def main() -> None:
    """Entry point: no traceback for a mistake that the user can mend."""
    warnings.showwarning = _print_warning
    try:
        app(standalone_mode=True)
    except InputError as error:
        say(f"corereg: {error}")
        sys.exit(USER_MISTAKE)
    except Exception as error:
        logging.getLogger("corereg").debug("failed", exc_info=True)
        say(f"corereg: {type(error).__name__}: {error} (a fault of corereg: please report it)")
        sys.exit(FAILURE)


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"corereg: warning: {message}")
