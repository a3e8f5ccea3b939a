"""The page on the other methods of Table 1: its example works, with a stub in place of the tool."""

import hashlib
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from corereg.evaluation.benchmark.peers.catalogue import METHODS as RUNNERS
from corereg.evaluation.benchmark.peers.catalogue import UNAVAILABLE, read_templates
from corereg.evaluation.benchmark.plan import Plan
from corereg.evaluation.benchmark.run import benchmark
from corereg.io.images.image import read_image
from corereg.workflows.reproduce.published import INITIAL, METHODS, OURS
from helpers.cohorts import make_cohort

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "reproduce.md"
PLACE = "/home/me/peers"
STUB = """
import hashlib
import numpy as np

def register(fixed, moving):
    \"\"\"The field that was prepared for these two scans in this order.\"\"\"
    key = hashlib.sha256(fixed.tobytes() + moving.tobytes()).hexdigest()
    with np.load({prepared!r}) as fields:
        return fields[key]
"""


def block(title: str) -> str:
    """The code block of the page with this title."""
    found = re.search(rf'```\w+ title="{re.escape(title)}"\n(.*?)```', PAGE.read_text("utf-8"), re.DOTALL)
    assert found, title
    return found[1]


def test_every_method_of_table_1_has_a_way_to_run_it() -> None:
    for published in METHODS.values():
        for title in set(published) - {INITIAL, OURS, "RegCyc"}:
            assert any(method.title == title for method in RUNNERS.values()) or title.lower() in UNAVAILABLE
    for name, reason in UNAVAILABLE.items():
        assert "--peers" in reason, name
        assert "docs/how-to/reproduce.md" in reason, name


@pytest.mark.skipif(sys.platform == "win32", reason="a link named python")
def test_the_example_registers_with_a_stub_in_place_of_the_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort, peers = make_cohort(tmp_path / "data", pairs=1), tmp_path / "peers"
    peers.mkdir()
    prepared = {}
    for name, disp_vox in cohort.fields.items():
        numbers = re.fullmatch(r"disp_(\d+)_\d+_(\d+)_\d+", name)
        assert numbers
        scans = [next((tmp_path / "data" / "imagesTr").glob(f"*_{n}_*.nii.gz")) for n in numbers.groups()]
        fixed, moving = (read_image(scan).array for scan in scans)
        prepared[hashlib.sha256(fixed.tobytes() + moving.tobytes()).hexdigest()] = disp_vox
    np.savez(peers / "fields.npz", **prepared)
    (peers / "tool.py").write_text(STUB.format(prepared=str(peers / "fields.npz")))
    for name in ("deeds", "lapirn", "samconvex"):
        (peers / f"{name}.py").write_text(block("samconvex.py"))
    (tmp_path / "table1.yaml").write_text(block("table1.yaml").replace(PLACE, str(peers)))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    methods = read_templates(tmp_path / "table1.yaml")
    assert {method.title for method in methods} < set(METHODS["abdomen-ct"])
    plan = Plan(methods=tuple(method.name for method in methods), templates=tmp_path / "table1.yaml")
    found = benchmark(cohort.path, tmp_path / "out", plan)
    assert [(row["status"], row["tail"], row.get("dice")) for row in found.rows] == [("ok", "", 1.0)] * 3
