"""The one exception for a user's mistake: the command line prints it as one line and exits with status 2."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Input that cannot be used. The message is one line: what was got, what was expected, the cure."""
