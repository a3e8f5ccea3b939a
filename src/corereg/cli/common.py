"""What the commands share: the application, its output option, messages, progress and what stops a command."""

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from corereg.cli.endings import signals_raise, stopped_by

__all__ = ["Out", "app", "command_line", "log", "progress_line"]

RESUMABLE = ("train", "benchmark", "batch", "reproduce")
"""Commands that keep what they have done and continue from there."""

LOG_EVERY_S = 30.0


ORDER = ("register", "apply", "convert", "train", "evaluate", "benchmark", "batch")
"""Order of the commands in `corereg --help`; others follow."""


class _Commands(typer.core.TyperGroup):
    """Commands in a fixed order, which end with one line if a signal stops them."""

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
                log(f"corereg: interrupted; {outcome}")
                raise typer.Exit(stopped.exit_status) from None


app = typer.Typer(
    cls=_Commands,
    name="corereg",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        print(f"corereg {version('corereg')}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("-V", "--version", is_eager=True, callback=_print_version, help="Print the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks; also after the command.")] = False,
) -> None:
    """Deformable 3D registration of CT and MR scans."""


Out = Annotated[Path, typer.Option("-o", "--out", help="Output folder or file.", show_default=False)]


def log(text: str) -> None:
    """Print one line to stderr."""
    print(" ".join(text.split()), file=sys.stderr, flush=True)


@contextmanager
def progress_line(*, log_elsewhere: bool = False) -> Iterator[Any]:
    """A spinner with the current stage on a terminal.

    Args:
        log_elsewhere: whether stages become log lines, at most every 30 seconds, if there is no terminal.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _occasionally(log) if log_elsewhere else lambda stage: None
        return
    with console.status("starting") as status:
        yield status.update


def command_line() -> str:
    """The command as typed, for reports."""
    return shlex.join(["corereg", *sys.argv[1:]])


def _occasionally(write: Any) -> Any:
    last = float("-inf")

    def progress(stage: str) -> None:
        nonlocal last
        if time.monotonic() - last >= LOG_EVERY_S:
            last = time.monotonic()
            write(f"corereg: {stage}")

    return progress
