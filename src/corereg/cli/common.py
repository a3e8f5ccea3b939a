"""What the commands share: the application, the options that each of them has, and what stops them."""

import inspect
import shlex
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import typer.core

from corereg.cli import messages
from corereg.cli.endings import USER_MISTAKE, signals_raise, stopped_by

__all__ = ["AllTo", "Command", "EveryPair", "Force", "Out", "Split", "Strict", "app", "command", "command_line"]

Function = TypeVar("Function", bound=Callable[..., Any])

UsageError: Any = typer.BadParameter.__base__
"""A call with unknown, missing or wrong words; typer does not export it."""

RESUMABLE = ("train", "benchmark", "batch", "reproduce")
"""Commands that keep what they have done and continue from there."""

ORDER = ("register", "apply", "convert", "train", "evaluate", "benchmark", "batch", "calibrate")
"""Order of the commands in `corereg --help`; others follow."""


class _Flags:
    """Shows flags without a type, which typer would give as <bool>."""

    def get_params(self, ctx: Any) -> Any:
        found = super().get_params(ctx)  # type: ignore[misc]
        for option in found:
            if getattr(option, "is_flag", False):
                option.metavar = ""
        return found


class Command(_Flags, typer.core.TyperCommand):
    """A command whose help shows flags without a value."""


class _Commands(_Flags, typer.core.TyperGroup):
    """Commands in a fixed order, which end with one line if they are called wrongly or a signal stops them."""

    def main(self, *args: Any, **options: Any) -> Any:
        words = options.get("args") or (args[0] if args else None) or sys.argv[1:]
        if "" in words:
            before = ["", *words][list(words).index("")]
            messages.log(
                f"corereg: got an empty word{f' after {before}' if before else ''}, expected a value; is a variable of "
                "the shell not set?",
                always=True,
            )
            sys.exit(USER_MISTAKE)
        try:
            sys.exit(super().main(*args, **options | {"standalone_mode": False}))
        except UsageError as error:
            message = error.format_message().rstrip(".")
            if message:  # none after the help, for a call without a word
                name = f"corereg {error.ctx.info_name}" if error.ctx and error.ctx.parent else "corereg"
                messages.log(f"corereg: {message[:1].lower()}{message[1:]}; see {name} --help", always=True)
            sys.exit(USER_MISTAKE)

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def invoke(self, ctx: Any) -> Any:
        with signals_raise() as received:
            try:
                return super().invoke(ctx)
            except BaseException as error:
                stopped = stopped_by(error, received)
                if stopped is None:
                    raise
                resumable = ctx.invoked_subcommand in RESUMABLE
                outcome = "rerun the same command to resume" if resumable else "nothing was written"
                messages.log(f"corereg: interrupted; {outcome}", always=True)
                raise typer.Exit(stopped.exit_status) from None


app = typer.Typer(
    cls=_Commands,
    name="corereg",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _shared(*flags: str, help: str, hint: Any = bool, metavar: str | None = None) -> inspect.Parameter:  # noqa: A002
    option = typer.Option(*flags, help=help, metavar=metavar, rich_help_panel="Messages", show_default=False)
    name = flags[-1].removeprefix("--").replace("-", "_")
    default = False if hint is bool else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, option])


SHARED = [
    _shared("-q", "--quiet", help="Print warnings and errors only."),
    _shared("-v", "--verbose", help="Print every stage and when it begins."),
    _shared("--log-file", help="Append all messages to this file.", hint=Path | None, metavar="<path>"),
    _shared("--debug", help="Print the traceback of an error."),
]
"""Options before and after the name of every command."""

JSON = _shared("--json", help="Print the result as JSON on stdout, and nothing else there.")


def command(function: Function, *, cls: type[Command] = Command) -> Function:
    """Add a command, with the options that all of them share."""
    app.command(cls=cls)(_with_shared(function))
    return function


def _with_shared(function: Callable[..., Any]) -> Callable[..., Any]:
    own = inspect.signature(function)
    shared = [option for option in (*SHARED, JSON) if option.name not in own.parameters]

    @wraps(function)
    def run(**options: Any) -> Any:
        messages.choose(**{option.name: options.pop(option.name) for option in shared})
        return function(**options)

    run.__signature__ = own.replace(parameters=[*own.parameters.values(), *shared])  # type: ignore[attr-defined]
    return run


def _print_version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        print(f"corereg {version('corereg')}")
        raise typer.Exit
    return wanted


@app.callback()
@_with_shared
def options(
    version: Annotated[
        bool,
        typer.Option("-V", "--version", is_eager=True, callback=_print_version, help="Print the version."),
    ] = False,
) -> None:
    """Deformable 3D registration of CT and MR scans."""


Out = Annotated[Path, typer.Option("-o", "--out", help="Output folder or file.", show_default=False)]

Force = Annotated[bool, typer.Option("--force", help="Replace an existing result.")]

Strict = Annotated[
    bool, typer.Option("--strict", help='End with status 3 if the verdict is "fail"; everything is written.')
]

AllTo = Annotated[Path | None, typer.Option(help="Register every scan of PAIRS onto this one.")]

EveryPair = Annotated[bool, typer.Option("--every-pair", help="Register every pair of the scans of PAIRS.")]

Split = Annotated[
    str | None,
    typer.Option("--pairs", help="Split of a data set: training, validation or test; by default the latter two."),
]


def command_line() -> str:
    """The command as typed, for reports."""
    return shlex.join(["corereg", *sys.argv[1:]])
