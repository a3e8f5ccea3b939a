"""What can be compared: each method with what it is, what it needs and the settings it runs with.

A method is a driver of this package (`drivers`) in an environment of its own, or a user's command from a YAML file.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from corereg.errors import InputError

__all__ = ["METHODS", "OWN", "UNAVAILABLE", "Method", "find_method", "read_templates"]

OWN = "corereg"

TORCH = "torch==2.13.0"
PLACEHOLDERS = ("fixed", "moving", "out", "folder", "threads", "seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A way to register a pair of files."""

    name: str
    title: str
    """What tables call it."""
    settings: str
    """The settings that it runs with, in words."""
    packages: tuple[str, ...] = ()
    """What its environment is made of, from PyPI; none where it needs no environment of its own."""
    build: Mapping[str, str] | None = None
    """Environment variables for installing it."""
    command: tuple[str, ...] = ()
    """A user's command with {placeholders}; empty for a driver of this package."""
    own: tuple[tuple[str, Any], ...] = ()
    """Settings of ours by name, for this package's own method."""


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name=OWN,
            title="corereg",
            settings="defaults, no training: MIND-SSC, passes 8,4, both ways, R = 3, 50 and 30 steps",
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
            # Its sources ask for a CMake older than those of today accept without being told.
            build={"CMAKE_POLICY_VERSION_MINIMUM": "3.5"},
        ),
        Method(
            name="convexadam",
            title="ConvexAdam (MIND)",
            settings="convex_adam_pt's defaults: MIND-SSC, grid 6, half-width 4, lambda 1.25, 80 steps; no affine step",
            packages=("convexadam==0.2.0", TORCH, "nibabel>=5.2"),
        ),
    )
}
ALIASES = {"ants": "ants-syn"}

UNAVAILABLE = {
    "voxelmorph": "its package has no weights, and weights trained for other scans would say nothing about these",
    "deeds": "not on PyPI; where you have it built, give its command with --peers FILE.yaml",
    "lapirn": "not on PyPI, and needs training; give your command with --peers FILE.yaml",
}
"""Known methods without an honest runner, and why."""


def find_method(name: str, templates: Sequence[Method] = ()) -> Method:
    """The method of a name: a user's template before one of the package's.

    Raises:
        InputError: none of that name.
    """
    known = METHODS | {method.name: method for method in templates}
    method = known.get(ALIASES.get(name, name))
    if method is None:
        reason = f" ({UNAVAILABLE[name]})" if name in UNAVAILABLE else ""
        raise InputError(f"got the method {name!r}{reason}, expected one of {', '.join(known)}; choose one of them")
    return method


def read_templates(path: Path) -> tuple[Method, ...]:
    """Read a user's commands: a YAML list of {name, command[, title, settings]}.

    A command is what would be typed, with {fixed}, {moving} and {out} in it (and, if wanted, {folder} for scratch,
    {threads}, {seed}). It writes the displacement field {out}, a .nii.gz in any form that `evaluate` reads.

    Raises:
        InputError: not readable, or an entry of another form.
    """
    try:
        entries = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"got {path}, which cannot be read ({_first_line(error)}), expected a YAML list") from None
    if not isinstance(entries, list):
        raise InputError(f"got {path}, expected a YAML list of methods with `name` and `command`; see the how-to")
    return tuple(_template(entry, path) for entry in entries)


def _template(entry: Any, path: Path) -> Method:
    wrong = not isinstance(entry, dict) or not {"name", "command"} <= set(entry)
    if wrong or set(entry) - {"name", "command", "title", "settings"}:
        raise InputError(
            f"got the entry {entry!r} in {path}, expected `name`, `command` and perhaps `title`, `settings`; correct it"
        )
    words = tuple(shlex.split(str(entry["command"])))
    try:
        tried = " ".join(words).format(**dict.fromkeys(PLACEHOLDERS, "\0"))
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"got the command of {entry['name']} in {path} with an unknown placeholder ({_first_line(error)}), "
            f"expected some of {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}; correct it"
        ) from None
    if tried.count("\0") < 3:
        raise InputError(
            f"got the command of {entry['name']} in {path}, expected {{fixed}}, {{moving}} and {{out}} in it"
        )
    name = str(entry["name"])
    return Method(
        name=name,
        title=str(entry.get("title", name)),
        settings=str(entry.get("settings", "as its command says")),
        command=words,
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
