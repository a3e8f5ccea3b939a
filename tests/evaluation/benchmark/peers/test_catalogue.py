"""The catalogue of other tools."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from corereg.cli import app
from corereg.errors import InputError
from corereg.evaluation.benchmark.peers.catalogue import METHODS, UNAVAILABLE, Method, find_method, read_templates
from corereg.evaluation.benchmark.peers.environments import install, is_installed, peers_folder, python_of
from corereg.evaluation.benchmark.peers.running import command_of, run_method
from corereg.evaluation.field_files import read_field
from corereg.io.images.image import write_image
from helpers.scenes import centred_grid, scan


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("COREREG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "peers"


class TestTemplates:
    def test_command_is_filled_in_word_by_word(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text(
            "- name: deeds\n  title: DEEDs\n  settings: published\n"
            "  command: 'deedsBCV -F {fixed} -M {moving} -O {out} -t {threads}'\n"
        )
        (method,) = read_templates(path)
        assert (method.name, method.title, method.settings) == ("deeds", "DEEDs", "published")
        places = (Path("my scans/a.nii.gz"), Path("b.nii.gz"), Path("o.nii.gz"))
        words = command_of(method, *places, affine="none", threads=2, seed=1)
        assert words == ["deedsBCV", "-F", "my scans/a.nii.gz", "-M", "b.nii.gz", "-O", "o.nii.gz", "-t", "2"]
        assert find_method("deeds", [method]) is method

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("name: x", "YAML list"),
            ("- [", "cannot be read"),
            ("- name: x", "`name`, `command`"),
            ("- {name: x, command: a, more: b}", "`name`, `command`"),
            ("- {name: x, command: 'a {fixed} {moving}'}", "{out}"),
            ("- {name: x, command: 'a {fixed} {fixed} {fixed}'}", "{out}"),
            ("- {name: x, command: 'a {fixed} {moving} {out} {other}'}", "unknown placeholder"),
            ("- {name: x, command: 'a {fixed} {moving} {out} {out.parent}'}", "unknown placeholder"),
            ("- {name: x, command: 'a {fixed} {moving} {out:9999999999}'}", "unknown placeholder"),
            ("- {name: x, command: 'a {fixed} {moving} {out'}", "close every quote and brace"),
            ('- {name: x, command: "a \'{fixed} {moving} {out}"}', "close every quote and brace"),
            ("- name: 'x", "cannot be read"),
            ("[" * 100_000, "cannot be read"),
            ("- " * 100_000, "cannot be read"),
            ("{a: " * 100_000, "cannot be read"),
            ("\0", "cannot be read"),
            ("- {name: [x], command: 'a {fixed} {moving} {out}'}", "`name`, `command`"),
            ("- {name: ../x, command: 'a {fixed} {moving} {out}'}", "letters, digits"),
            ("- {name: /x, command: 'a {fixed} {moving} {out}'}", "letters, digits"),
            ("- {name: '', command: 'a {fixed} {moving} {out}'}", "letters, digits"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_other_files_are_refused_in_one_line(self, text, words, tmp_path):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(InputError, match=words.replace("{", r"\{")) as refused:
            read_templates(tmp_path / "mine.yaml")
        assert "mine.yaml" in str(refused.value)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 500

    def test_entries_that_grow_when_written_out_are_refused(self, tmp_path):
        """References to references: 9 lines that would print as a billion words."""
        lines = ["- &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
        lines.append("- {name: *a8, command: *a8}")
        (tmp_path / "mine.yaml").write_text("\n".join(lines))
        with pytest.raises(InputError, match="entry 1 of"):
            read_templates(tmp_path / "mine.yaml")


class TestCatalogue:
    def test_unknown_methods_are_refused_with_the_reason_where_there_is_one(self):
        with pytest.raises(InputError, match="expected one of corereg, ants-syn"):
            find_method("nonsense")
        for name in UNAVAILABLE:
            with pytest.raises(InputError, match=f"got the method '{name}' \\("):
                find_method(name)
        assert find_method("ants") is METHODS["ants-syn"]

    def test_every_method_pins_what_it_is_made_of(self):
        for method in METHODS.values():
            assert method.settings
            assert method.name == "corereg" or "==" in method.packages[0]

    def test_missing_tools_are_named_and_not_run(self, cache):
        assert peers_folder() == cache
        assert not is_installed(METHODS["greedy"])
        said = CliRunner().invoke(app, ["peers"]).output
        assert "corereg peers install greedy" in said
        assert "voxelmorph" in said

    def test_half_made_environment_is_not_taken_for_one(self, cache):
        folder = python_of(METHODS["greedy"]).parent
        folder.mkdir(parents=True)
        python_of(METHODS["greedy"]).touch()
        assert not is_installed(METHODS["greedy"])
        (cache / "greedy" / "installed.json").write_text(json.dumps(["picsl-greedy==0.1"]))
        assert not is_installed(METHODS["greedy"])
        (cache / "greedy" / "installed.json").write_text(json.dumps(METHODS["greedy"].packages))
        assert is_installed(METHODS["greedy"])

    def test_failed_installation_says_why_and_leaves_nothing(self, cache, monkeypatch):
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        nowhere = Method(name="nowhere", title="", settings="", packages=("no-such-package-at-all==1",))
        with pytest.raises(InputError, match=r"failed \(.*no-such-package-at-all"):
            install(nowhere)
        assert list(cache.iterdir()) == []

    @pytest.mark.parametrize("words", [["install"], ["install", "nonsense"], ["remove"]])
    def test_mistaken_commands_are_refused(self, words, cache):
        assert isinstance(CliRunner().invoke(app, ["peers", *words]).exception, InputError)


SHIFT_MM = np.array([7.0, -5.0, 6.0])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.needs_training])
@pytest.mark.parametrize("affine", ["none", "auto"])
def test_real_tool_finds_a_known_shift(name, affine, tmp_path):
    """In an oblique grid of unequal spacing: a wrong axis, sign, unit or direction would double the error."""
    method = METHODS[name]
    if not is_installed(method):
        pytest.skip(f"not installed: corereg peers install {name}")
    grid = centred_grid((64, 56, 48), (2.5, 2.8, 3.2), "oblique")
    fixed, moving = tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz"
    write_image(fixed, scan(grid).array, grid)
    write_image(moving, scan(grid, shifted).array, grid)
    out = tmp_path / "work" / "field.nii.gz"
    out.parent.mkdir()
    threads = os.cpu_count() or 1
    found = run_method(
        method, fixed, moving, out, affine=affine, threads=threads, budget_seconds=300.0, log=tmp_path / "log"
    )
    assert found.ok, found
    assert found.seconds is not None
    assert 0 < found.seconds < found.process_seconds
    assert found.version is not None
    disp_vox = read_field(out, grid, grid).own_vox
    offsets_mm = np.moveaxis(np.einsum("ac,cijk->aijk", grid.linear, disp_vox), 0, -1)
    body = scan(grid).array > -200
    error_mm = np.linalg.norm(offsets_mm - SHIFT_MM, axis=-1)[body].mean()
    assert error_mm < 0.6 * np.linalg.norm(SHIFT_MM)


def shifted(points_mm):
    """What the moving scan shows at q lies at q - shift in the patient, so that fixed p matches p + shift."""
    return points_mm - SHIFT_MM
