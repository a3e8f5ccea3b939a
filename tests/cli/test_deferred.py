"""A deferred module costs nothing until it is used, and is then the module that an ordinary import gives."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from corereg.cli.endings import USER_MISTAKE
from corereg.io.images.image import write_image
from corereg.method.config import MODELS, register_options
from corereg.settings import kinds_in
from helpers.pairs import pair

USED_LATE = """
import sys
from corereg.cli.deferred import defer
defer(frozenset({"late", "pack.inner"}))
import inspect, late
import pack, pack.inner
assert not pack.ran and "value" not in vars(late)
inspect.getmodule(inspect.currentframe())  # looks for the file of every module
assert not pack.ran and "value" not in vars(late) and late.__file__.endswith("late.py")
assert late.value == 3 and late.of_itself() is late and type(late.Thing()).__module__ == "late"
from pack.inner import value
assert value == 5 and pack.ran
try:
    late.nothing
except AttributeError as error:
    print(error)
"""

META_TENSORS = """
from corereg.cli.deferred import UNUSED, defer
defer()
import sys, torch
late = [name for name in UNUSED if name in sys.modules]
assert late and not any("Tensor" in vars(sys.modules[name]) for name in late)
print(torch.nn.functional.avg_pool3d(torch.rand(1, 1, 4, 4, 4), 2).shape, torch.export.export.__name__)
"""


def _run(code: str, folder: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=folder)
    assert not done.returncode, done.stderr
    return done.stdout


def test_deferred_module_runs_at_its_first_use(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import sys\nvalue = 3\nclass Thing: pass\ndef of_itself(): return sys.modules[__name__]\n", "utf-8"
    )
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/__init__.py").write_text("ran = False\n", "utf-8")
    (tmp_path / "pack/inner.py").write_text("import pack\npack.ran = True\nvalue = 5\n", "utf-8")
    assert _run(USED_LATE, tmp_path) == "module 'late' has no attribute 'nothing'\n"


def test_torch_works_without_its_deferred_modules_and_loads_them_on_demand(tmp_path: Path) -> None:
    assert _run(META_TENSORS, tmp_path) == "torch.Size([1, 1, 2, 2, 2]) export\n"


PARTS = """
import sys
from corereg.cli.deferred import defer
defer(frozenset({"pack"}))
import pack
from pack.part import Thing
from pack.other import Thing as same
assert pack.whole is Thing and same is Thing and sys.modules["pack.part"].__spec__.name == "pack.part"
print(pack.ran)
"""

WITHOUT = """
from corereg.cli.deferred import defer
defer()
import sys
assert "pydicom" not in sys.modules and "scipy.linalg" not in sys.modules
import nibabel, pydicom
from scipy.linalg import solve
from pydicom.dataset import Dataset
print(nibabel.Nifti1Image.__name__, Dataset.__name__, solve([[2.0]], [4.0])[0])
"""


REGISTERING = """
from corereg.cli.deferred import light_imports
import sys
with light_imports():
    import corereg.workflows.register
heavy = {"h5py", "pandas", "pydicom", "scipy.linalg", "scipy.ndimage", "scipy.stats", "SimpleITK", "torch.export"}
print(sorted(heavy & {name for name, module in sys.modules.items() if "_loader" not in vars(module)}))
"""


def test_a_registration_imports_no_library_that_few_of_them_use(tmp_path: Path) -> None:
    assert _run(REGISTERING, tmp_path) == "[]\n"


def test_part_of_a_deferred_package_runs_the_package_first_and_once(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/__init__.py").write_text("ran = 1\nfrom pack.part import Thing as whole\nran += 1\n", "utf-8")
    (tmp_path / "pack/part.py").write_text("import pack\nassert pack.ran == 1\nclass Thing: pass\n", "utf-8")
    (tmp_path / "pack/other.py").write_text("from pack.part import Thing\n", "utf-8")
    assert _run(PARTS, tmp_path) == "2\n"


def test_what_a_registration_does_not_use_can_be_imported_later(tmp_path: Path) -> None:
    assert _run(WITHOUT, tmp_path) == "Nifti1Image Dataset 2.0\n"


RUNS = """
import os, sys
from corereg.cli import main
from corereg.cli.deferred import light_imports
with light_imports():
    import corereg.workflows.register
for words in sys.argv[1:]:
    child = os.fork()
    if not child:
        sys.argv = ["corereg", "register", "fixed.nii.gz", "moving.nii.gz", "-o", "out", "--force", "--quiet",
                    "--no-report", "--refine-steps", "2", "--threads", "1", *words.split()]
        main()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), words, flush=True)
"""


def endings(folder: Path, options: Sequence[str]) -> dict[str, int]:
    """The exit status of a registration with each of the options, in a process that imports as the command does."""
    for image in pair():
        write_image(folder / f"{image.name}.nii.gz", image.array, image.grid)
    lines = _run(RUNS, folder, *options).splitlines()
    return {words: int(status) for status, words in (line.split(maxsplit=1) for line in lines)}


def test_registrations_that_use_more_of_torch_than_the_default_find_it(tmp_path: Path) -> None:
    options = ["--parametrisation diffeomorphic", "--model head-neck-ct", "--regularisation auto"]
    assert endings(tmp_path, options) == dict.fromkeys(options, 0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_choice_of_the_command_runs_or_is_refused(tmp_path: Path) -> None:
    options = [f"--model {name}" for name in MODELS]
    for setting in register_options():
        flags = setting.flag.split("/") if setting.kind is bool else []
        options += [*flags, *(f"{setting.flag} {kind}" for kind in kinds_in(setting.hint) if isinstance(kind, str))]
    found = endings(tmp_path, options)
    assert set(found.values()) == {0, USER_MISTAKE}
    assert list(found.values()).count(0) > len(found) / 2
