"""The notebooks in examples/: clean files that run from the first cell to the last."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

RUN = """
import json, sys
from pathlib import Path

names = {"__name__": "__main__"}
for cell in json.loads(Path(sys.argv[1]).read_text("utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
"""


def test_notebook_is_valid_without_outputs_and_its_code_compiles(path):
    notebook = json.loads(path.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells) >= 5
    assert {cell["cell_type"] for cell in cells} == {"code", "markdown"}
    for cell in cells:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
            ast.parse("".join(cell["source"]))


@pytest.mark.slow
def test_notebook_runs_in_order(path, tmp_path):
    (tmp_path / "run.py").write_text(RUN, encoding="utf-8")
    found = subprocess.run(
        [sys.executable, "run.py", str(path)],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout
