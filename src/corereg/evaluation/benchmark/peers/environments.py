"""An isolated Python environment for each tool, in the user's cache folder.

Upstream: `catalogue`. Downstream: `running`, `cli.evaluate`.
"""

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
"""Written last: a folder without it is incomplete."""
TAIL_LINES = 3
"""How many last lines of a failed installation an error message quotes."""


def peers_folder() -> Path:
    """Folder of the environments: $COREREG_CACHE/peers, or corereg/peers in the user's cache folder."""
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
    """The Python interpreter that runs a method's driver."""
    if not method.packages:
        return Path(sys.executable)
    folder = peers_folder() / method.name
    return folder / "Scripts" / "python.exe" if sys.platform == "win32" else folder / "bin" / "python"


def is_installed(method: Method) -> bool:
    """Whether a method's environment exists with the pinned versions, or its command is on the path."""
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
    """Install the environment of a method from PyPI, unless it is installed already.

    Raises:
        InputError: the installation failed; nothing of it is left.
    """
    if not method.packages or is_installed(method):
        return
    folder = peers_folder() / method.name
    shutil.rmtree(folder, ignore_errors=True)
    if progress is not None:
        progress(f"installing {', '.join(method.packages)}")
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
        output = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        tail = " / ".join(line.strip() for line in output.strip().splitlines()[-TAIL_LINES:])
        raise InputError(
            f"the installation of {', '.join(method.packages)} for {method.name} failed ({tail}); check that PyPI is "
            f"reachable and has them for Python {sys.version_info.major}.{sys.version_info.minor}, or leave this "
            "method out"
        ) from None
