"""The catalogue of methods: what each one is, which packages it needs and with which settings it runs.

A method is a driver of this package (`drivers`) in an environment of its own, or a user's command from a YAML file.
Upstream: a YAML file. Downstream: `plan`, `environments`, `running`.
"""

import re
import shlex
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from corereg.errors import InputError

__all__ = ["METHODS", "OWN", "UNAVAILABLE", "VOXELMORPH", "Method", "find_method", "read_templates"]

OWN = "corereg"
VOXELMORPH = "voxelmorph"

TORCH = "torch==2.13.0"
PLACEHOLDERS = ("fixed", "moving", "out", "folder", "threads", "seed")
NAME = re.compile(r"\w[\w.+-]*")
"""Names of a user's methods: they become names of files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A way to register a pair of files."""

    name: str
    title: str
    """Name in tables."""
    settings: str
    """Its settings, in words."""
    packages: tuple[str, ...] = ()
    """PyPI packages of its environment; empty if it runs in this package's own."""
    build: Mapping[str, str] | None = None
    """Environment variables for its installation."""
    command: tuple[str, ...] = ()
    """A user's command with {placeholders}; empty for the drivers of this package."""
    own: tuple[tuple[str, Any], ...] = ()
    """Settings by name: of `corereg.register`, or the `model` of a method that needs training."""
    needs_training: bool = False
    """Whether it runs only with a model, which `corereg reproduce` trains."""


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name=OWN,
            title="corereg",
            settings="defaults, untrained: MIND-SSC, passes 8,4, both directions, R = 3.5, 18 and 18 steps",
        ),
        Method(
            name="ants-syn",
            title="ANTs SyN",
            settings="ANTsPy's defaults: Mattes MI 32 bins, 40 and 20 iterations on 1/4 and 1/2 grid",
            packages=("antspyx==0.6.3",),
        ),
        Method(
            name="elastix",
            title="elastix B-spline",
            settings="default map `bspline`: Mattes MI and bending energy, 10 mm control points, 4 levels of 256 steps",
            packages=("itk-elastix==0.25.4",),
        ),
        Method(
            name="greedy",
            title="greedy",
            settings="the manual's call: NCC 2x2x2, 100x50x10 iterations, default smoothing",
            packages=("picsl-greedy==1.4.0.3",),
        ),
        Method(
            name="niftyreg",
            title="NiftyReg",
            settings="reg_f3d's defaults: NMI, 5-voxel control points, bending energy 0.001, 3 levels",
            packages=("niftyreg==1.5.70rc1", "nibabel>=5.2"),
            # Its sources require a policy version that current CMake releases reject unless this variable is set.
            build={"CMAKE_POLICY_VERSION_MINIMUM": "3.5"},
        ),
        Method(
            name="convexadam",
            title="ConvexAdam (MIND)",
            settings="convex_adam_pt's defaults: MIND-SSC, grid 6, half-width 4, lambda 1.25, 80 steps; no affine step",
            packages=("convexadam==0.2.0", TORCH, "nibabel>=5.2"),
        ),
        Method(
            name=VOXELMORPH,
            title="VoxelMorph",
            settings="VxmPairwise of 16, 32, 32, 32, 32 channels, 7 integration steps, MSE + 0.01 squared gradient, "
            "Adam 1e-4; trained by our loop on the pairs that train our model, for as many steps and pairs a step",
            packages=("voxelmorph==0.3.4", TORCH, "nibabel>=5.2", "scipy"),
            needs_training=True,
        ),
    )
}
ALIASES = {"ants": "ants-syn"}

BY_COMMAND = "give your own installation as a command with --peers FILE.yaml: docs/how-to/reproduce.md"

UNAVAILABLE = {
    "deeds": f"not on PyPI; {BY_COMMAND}",
    "lapirn": f"not on PyPI, and it needs training; {BY_COMMAND}",
    "samconvex": f"not on PyPI, and it needs weights; {BY_COMMAND}",
}
"""Known methods that cannot be run fairly out of the box, and why."""


def find_method(name: str, templates: Sequence[Method] = ()) -> Method:
    """Find a method by name; a user's template takes precedence over one of the package.

    Raises:
        InputError: no method has that name.
    """
    known = METHODS | {method.name: method for method in templates}
    method = known.get(ALIASES.get(name, name))
    if method is None:
        reason = f" ({UNAVAILABLE[name]})" if name in UNAVAILABLE else ""
        raise InputError(f"got the method {name!r}{reason}, expected one of {', '.join(known)}; choose one")
    return method


def read_templates(path: Path) -> tuple[Method, ...]:
    """Read a user's methods from a YAML list of {name, command[, title, settings]}.

    A command is a shell-like command line that contains {fixed}, {moving} and {out}, and optionally {folder} (scratch
    space), {threads} and {seed}. It must write the displacement field {out}, a .nii.gz file that `evaluate` can read.

    Raises:
        InputError: the file cannot be read, or an entry is malformed.
    """
    try:
        entries = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as YAML ({_first_line(error)}); correct the file") from None
    if not isinstance(entries, list):
        raise InputError(f"{path} is not a YAML list; list methods with `name` and `command`")
    return tuple(_template(entry, f"entry {number} of {path}") for number, entry in enumerate(entries, start=1))


def _template(entry: Any, where: str) -> Method:
    known = isinstance(entry, dict) and {"name", "command"} <= set(entry) <= {"name", "command", "title", "settings"}
    if not known or not all(isinstance(value, str | int | float) for value in entry.values()):
        raise InputError(f"{where} is malformed; give it a `name`, `command` and optionally `title` and `settings`")
    name, command = str(entry["name"]), str(entry["command"])
    if not NAME.fullmatch(name):
        raise InputError(
            f"{where} has the name {name[:80]!r}; use only letters, digits and . _ + - in names of methods"
        )
    try:
        words = tuple(shlex.split(command))
        fields = [field for word in words for field in string.Formatter().parse(word) if field[1] is not None]
    except ValueError as error:
        raise InputError(
            f"the command of {name} in {where} cannot be read ({_first_line(error)}); close every quote and brace"
        ) from None
    unknown = [field for field in fields if field[1] not in PLACEHOLDERS or field[2] or field[3]]
    if unknown:
        allowed = ", ".join(f"{{{placeholder}}}" for placeholder in PLACEHOLDERS)
        raise InputError(
            f"the command of {name} in {where} has an unknown placeholder, {str(unknown[0][1])[:40]!r}; use only "
            f"{allowed}"
        )
    if not {"fixed", "moving", "out"} <= {field[1] for field in fields}:
        raise InputError(f"the command of {name} in {where} must contain {{fixed}}, {{moving}} and {{out}}")
    return Method(
        name=name,
        title=str(entry.get("title", name)),
        settings=str(entry.get("settings", "see its command")),
        command=words,
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
