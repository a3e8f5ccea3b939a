"""What a type checker and an editor say to users of the package."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import corereg
from corereg.method.config import register_options

ROOT = Path(__file__).parents[1]

SCRIPT = """
import numpy as np
import torch
import corereg

result = corereg.register("fixed.nii.gz", "moving.nii.gz", regularisation=3, similarity="auto")
image = result.transform.apply("moving.nii.gz")
array = np.zeros((2, 3, 4), np.float32)
warped = result.transform.apply(array, labels=True)
tensor = result.transform.apply(torch.zeros(2, 3, 4))
corereg.register(array, torch.zeros(2, 3, 4), fixed_affine=np.eye(4), moving_affine=np.eye(4))
reveal_type(image)
reveal_type(warped)
reveal_type(tensor)
corereg.register("fixed.nii.gz", "moving.nii.gz", regularisaton=3)
corereg.register(3, 4)
corereg.register("fixed.nii.gz", "moving.nii.gz", similarity="corelation")
corereg.register("fixed.nii.gz")
result.transform.apply("moving.nii.gz", label=True)
"""

EXPECTED = {
    11: "corereg.io.images.image.Image",
    12: "ndarray",
    13: "Tensor",
    14: "regularisaton",
    15: '"int"',
    16: '"similarity"',
    17: '"moving"',
    18: "label",
}
"""Line of the script -> what is said about it; nothing is said about the others."""


@pytest.mark.slow
def test_type_checker_finds_mistakes_in_a_users_script_and_nothing_else(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.lstrip("\n"))
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    said = [line.split(":", 2)[1:] for line in done.stdout.splitlines() if line.startswith(str(script))]
    assert {int(number) for number, _ in said} == set(EXPECTED), done.stdout
    for number, words in EXPECTED.items():
        assert any(int(line) == number and words in text for line, text in said), done.stdout


def test_signature_of_register_shows_every_setting_with_its_default() -> None:
    shown = inspect.signature(corereg.register).parameters
    assert list(shown)[:4] == ["fixed", "moving", "fixed_affine", "moving_affine"]
    for option in register_options():
        assert shown[option.name].default == option.default
        assert option.meaning in (inspect.getdoc(corereg.register) or "")
