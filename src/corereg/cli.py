"""The command `corereg`: parse, call one public function, print. Exit status 2 with one line for a user's mistake."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from corereg.errors import InputError

__all__ = ["app", "main"]

USER_MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130


class _Commands(typer.core.TyperGroup):
    """Says so when it is interrupted, which typer itself would not."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _say("corereg: interrupted; nothing was written")
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


def main() -> None:
    """Entry point: no traceback for a mistake that the user can mend."""
    warnings.showwarning = _print_warning
    try:
        app(standalone_mode=True)
    except InputError as error:
        _say(f"corereg: {error}")
        sys.exit(USER_MISTAKE)
    except Exception as error:
        logging.getLogger("corereg").debug("failed", exc_info=True)
        _say(f"corereg: {type(error).__name__}: {error} (a fault of corereg: please report it)")
        sys.exit(FAILURE)


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"corereg: warning: {message}")


def _say(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr)


@contextmanager
def _progress() -> Iterator[Any]:
    """A spinner with the name of the stage on a terminal, nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda stage: None
        return
    with console.status("starting") as status:
        yield lambda stage: status.update(stage)


@app.command()
def register(
    fixed: Annotated[Path, typer.Argument(help="Image that defines the output grid: a file or a DICOM folder.")],
    moving: Annotated[Path, typer.Argument(help="Image that is resampled onto it.")],
    out: Out,
    model: Annotated[str | None, typer.Option(help="mind, random, or a .safetensors file.")] = None,
    modality: Annotated[str, typer.Option(help="auto, ct, ct-abdomen or mr.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    affine: Annotated[str, typer.Option(help="auto, or none to trust the headers.")] = "auto",
    spacing: Annotated[float | None, typer.Option(help="Of the working grid, mm; by default from the scans.")] = None,
    passes: Annotated[str | None, typer.Option(help="Strides of the coarse passes, e.g. 8,4 or 8,8.")] = None,
    refine_steps: Annotated[int | None, typer.Option(help="Steps of the instance optimisation; 0 skips it.")] = None,
    regularisation: Annotated[float | None, typer.Option(help="R: larger is smoother.")] = None,
    target_sdlogj: Annotated[float | None, typer.Option(help="Search R for this SDlogJ.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same result.")] = 0,
    fixed_mask: Annotated[Path | None, typer.Option(help="Only what lies inside counts.")] = None,
    moving_mask: Annotated[Path | None, typer.Option(help="The same for the moving image.")] = None,
    moving_labels: Annotated[Path | None, typer.Option(help="Label map to warp as well.")] = None,
    fixed_labels: Annotated[Path | None, typer.Option(help="Label map to compare it with.")] = None,
    report: Annotated[bool, typer.Option(help="Write report.html.")] = True,
) -> None:
    """Register MOVING onto FIXED; writes warped image, transforms, numbers and a report into a folder."""
    if regularisation is not None and target_sdlogj is not None:
        raise InputError("got --regularisation and --target-sdlogj, expected one of them; the target searches R itself")
    from corereg.evaluation.outputs import register_to_folder

    with _progress() as progress:
        result = register_to_folder(
            fixed,
            moving,
            out,
            fixed_labels=fixed_labels,
            moving_labels=moving_labels,
            report=report,
            command=_command(),
            progress=progress,
            model=model,
            modality=modality,
            device=device,
            affine=affine,
            spacing=spacing,
            passes=None if passes is None else _strides(passes),
            refine_steps=refine_steps,
            regularisation=regularisation,
            target_sdlogj=target_sdlogj,
            seed=seed,
            fixed_mask=fixed_mask,
            moving_mask=moving_mask,
        )
    print(
        f"{out}: SDlogJ {result.metrics['sdlogj']:.3f}, folds {result.metrics['fold_percent']:.3f} %, "
        f"inverse error {result.inverse_error.mean:.2f} mm (mean), {sum(result.seconds.values()):.1f} s"
    )


@app.command()
def apply(
    transform: Annotated[Path, typer.Argument(help="transform.nii.gz, inverse_transform.nii.gz or an ITK field.")],
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Image, label map or points (.csv .fcsv .mrk.json).")],
    out: Out,
    labels: Annotated[bool, typer.Option("--labels", help="Nearest neighbour: no new labels.")] = False,
    reference: Annotated[Path | None, typer.Option(help="Image that defines the output grid.")] = None,
) -> None:
    """Warp an image or label map onto the transform's grid, or carry points from that grid's image to the other."""
    from corereg.io.files import apply_to_file

    apply_to_file(transform, source, out, labels=labels, reference=reference)
    print(out)


@app.command()
def phantom(
    directory: Annotated[Path, typer.Argument(help="Folder to make; a Learn2Reg data set.")],
    subjects: Annotated[int, typer.Option(help="Number of patients.")] = 6,
    kind: Annotated[str, typer.Option(help="abdomen or chest.")] = "abdomen",
    spacing: Annotated[float, typer.Option(help="Voxel size, mm.")] = 3.0,
    seed: Annotated[int, typer.Option(help="Same seed, same cohort.")] = 0,
) -> None:
    """Make a labelled synthetic torso cohort with breathing pairs of exactly known motion."""
    from corereg.data.phantom import write_cohort

    with _progress() as progress:
        progress("making patients")
        path = write_cohort(directory, subjects=subjects, kind=kind, spacing_mm=spacing, seed=seed)
    print(path)


@app.command()
def demo(out: Annotated[Path, typer.Option("-o", "--out", help="Output folder.")] = Path("out/demo")) -> None:
    """Phantom cohort -> register -> evaluate -> report, in a few minutes on a laptop."""
    from corereg.demo import run_demo

    with _progress() as progress:
        lines = run_demo(out, command=_command(), progress=progress)
    print("\n".join(lines))


@app.command()
def info() -> None:
    """Versions, devices and models on board."""
    from corereg.method.environment import describe

    print(describe())


def _strides(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"got passes {text!r}, expected strides like 8,4 or 8,8") from None


def _command() -> str:
    import shlex

    return shlex.join(["corereg", *sys.argv[1:]])
