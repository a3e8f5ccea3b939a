"""The command `corereg`."""

import os
import subprocess
import sys

import pytest

from helpers.commands import Command, process


@pytest.mark.parametrize("arguments", [["--help"], ["register", "--help"], ["apply", "-h"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = """
import sys
from corereg.cli import main
try:
    main()
except SystemExit as stopped:
    assert not stopped.code, stopped
heavy = {"torch", "numpy", "scipy", "SimpleITK", "nibabel", "numba", "jinja2"} & set(sys.modules)
assert not heavy, heavy
"""
    done = process(*arguments, code=code)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["regsiter"], ["register"], ["register", "a.nii", "b.nii"], ["register", "a", "b", "-o", "c", "--seed", "x"]],
)
def test_wrong_usage_has_status_2(command: Command, arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.status == 2
    assert "Traceback" not in done.err


def test_info_names_versions_devices_and_models(command: Command) -> None:
    done = command("info")
    assert (done.status, done.err) == (0, "")
    for word in ("corereg", "torch", "SimpleITK", "cpu", "cuda", "mind", "random"):
        assert word in done.out


WAITING_OF_TORCH = """
import os, sys
from corereg.cli import main
sys.argv = ["corereg", "--version"]
try:
    main()
except SystemExit:
    assert "torch" not in sys.modules
print(os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize(("given", "used"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_torch_leave_the_cores_while_they_wait(given: str | None, used: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run([sys.executable, "-c", WAITING_OF_TORCH], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines()[-1:] == [used], done.stderr
