"""An environment for each tool, apart from this package's and from each other's, in the user's cache folder."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from corereg.errors import InputError
from corereg.evaluation.benchmark.peers.catalogue import Method

__all__ = ["install", "is_installed", "peers_folder", "python_of"]

CACHE_VARIABLE = "COREREG_CACHE"
MARKER = "installed.json"
"""Written last: a folder without it was left half-made."""
TAIL_LINES = 3


def peers_folder() -> Path:
    """Where the environments are: $COREREG_CACHE/peers, or in the cache folder that the system gives its users."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]) / "peers"
    if sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "corereg" / "peers"


def python_of(method: Method) -> Path:
    """The Python that runs a method's driver."""
    if not method.packages:
        return Path(sys.executable)
    folder = peers_folder() / method.name
    return folder / "Scripts" / "python.exe" if sys.platform == "win32" else folder / "bin" / "python"


def is_installed(method: Method) -> bool:
    """Whether its environment is there, with the versions that this package asks for; or its command is found."""
    if method.command:
        return shutil.which(method.command[0]) is not None
    if not method.packages:
        return True
    try:
        made_of = json.loads((peers_folder() / method.name / MARKER).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(made_of == list(method.packages)) and python_of(method).exists()


def install(method: Method, progress: Callable[[str], None] | None = None) -> None:
    """Make the environment of a method from PyPI, or leave it if it is there.

    Raises:
        InputError: it cannot be made; nothing of it is left.
    """
    if not method.packages or is_installed(method):
        return
    folder = peers_folder() / method.name
    shutil.rmtree(folder, ignore_errors=True)
    say = progress or (lambda stage: None)
    say(f"installing {', '.join(method.packages)}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        pip = [str(python_of(method)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in ([sys.executable, "-m", "venv", str(folder)], [*pip, *method.packages]):
            subprocess.run(
                command, env=os.environ | dict(method.build or {}), check=True, capture_output=True, text=True
            )
        (folder / MARKER).write_text(json.dumps(method.packages), encoding="utf-8")
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, (OSError, subprocess.CalledProcessError)):
            raise
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        tail = " / ".join(line.strip() for line in said.strip().splitlines()[-TAIL_LINES:])
        raise InputError(
            f"got an installation of {method.name} that failed ({tail}), expected {', '.join(method.packages)} from "
            f"PyPI for Python {sys.version_info.major}.{sys.version_info.minor}; leave it out, or mend the cause"
        ) from None
