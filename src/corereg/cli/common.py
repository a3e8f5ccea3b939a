"""What the commands share: the application, its output option, and how it speaks."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

__all__ = ["Out", "app", "command_line", "progress_line", "say"]

INTERRUPTED = 130


class _Commands(typer.core.TyperGroup):
    """Says so when it is interrupted, which typer itself would not."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("corereg: interrupted; nothing was written")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    name="corereg",
    help="Deformable 3D registration of CT and MR scans.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Out = Annotated[Path, typer.Option("-o", "--out", help="Output folder or file.", show_default=False)]


def say(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr)


@contextmanager
def progress_line() -> Iterator[Any]:
    """A spinner with the name of the stage on a terminal, nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda stage: None
        return
    with console.status("starting") as status:
        yield lambda stage: status.update(stage)


def command_line() -> str:
    return shlex.join(["corereg", *sys.argv[1:]])
