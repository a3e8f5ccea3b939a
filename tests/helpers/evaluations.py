"""The command `corereg evaluate`."""

from typer.testing import CliRunner

from corereg.cli import app
from corereg.errors import InputError


def run(*words: object) -> tuple[int, str]:
    """Exit status and everything said."""
    result = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    error = result.exception
    status = 2 if isinstance(error, InputError) else result.exit_code
    return status, result.output + (str(error) if error else "")
