"""What the command line prints as one line: the exceptions of a user's mistake and a request to stop, and counts."""

import signal

__all__ = ["InputError", "Interrupted", "UnknownSettingError", "number_of"]


class InputError(ValueError):
    """Input that cannot be used. The message says in one line what was got, what was expected, and the cure.

    Args:
        message: what is true in Python and in every command.
        options: the options of `apply` and `convert` that cure it. Only these commands add them to the message.
    """

    def __init__(self, message: str, *, options: str = "") -> None:
        super().__init__(message)
        self.options = options


class UnknownSettingError(InputError, TypeError):
    """A name that is not a setting. Python calls that a TypeError when it is a keyword argument, so it is one too."""


class Interrupted(Exception):  # noqa: N818 - an event, not a fault
    """The work was stopped by a signal, after saving what it needs to resume.

    Args:
        signal_number: the signal, if this process received it.
    """

    def __init__(self, signal_number: int = signal.SIGTERM) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number

    @property
    def exit_status(self) -> int:
        """130 after Ctrl-C, otherwise 143: the shell's convention."""
        return 128 + (signal.SIGINT if self.signal_number == signal.SIGINT else signal.SIGTERM)


def number_of(count: int, noun: str) -> str:
    """`1 pair`, `3 pairs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
