"""Every link of the pages leads to a file, and CONTRIBUTING and the architecture name files and names that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "corereg"
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "benchmarks").rglob("*.md"))]
MAPS = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "concepts" / "architecture.md"]
NAME = r"_[a-z]\w+|_*[A-Z]\w+(\.\w+)?|[a-z]\w+_\w+|title=|<h1>"
PATTERNS = "<"
"""Marks a path as a pattern: tests/<room>/test_<file>.py."""


def quoted(text: str) -> list[str]:
    """What stands in back-ticks, outside code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))


def is_path(word: str) -> bool:
    return bool(re.fullmatch(r"[\w./-]+(\.(py|md|j2|css)|/)|[\w-]+(/[\w-]+)+", word))


def found(word: str) -> Path | None:
    return next((root / word for root in (PACKAGE, ROOT) if (root / word).exists()), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_and_scripts_that_a_page_names_exist(page):
    words = [word for word in quoted(page.read_text("utf-8")) if re.match(r"(tests|examples|src)/", word)]
    assert [word for word in words if PATTERNS not in word and not (ROOT / word).exists()] == []


@pytest.mark.parametrize("page", MAPS, ids=lambda page: page.stem)
def test_paths_of_the_maps_exist(page):
    paths = [word for word in quoted(page.read_text("utf-8")) if is_path(word) and PATTERNS not in word]
    assert len(paths) > 10
    assert [path for path in paths if found(path) is None] == []


def test_names_of_the_table_of_changes_stand_in_the_files_of_their_row():
    table = MAPS[0].read_text("utf-8").partition("## Where to change what")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    for row in rows:
        words = quoted(row)
        files = [found(word) for word in words if is_path(word)]
        content = "".join(file.read_text("utf-8") for file in files if file is not None and file.is_file())
        for name in (word for word in words if re.fullmatch(NAME, word) and not is_path(word)):
            owner, _, field = name.partition(".")
            defined = rf"^(class |def )?{owner}\b" if owner[0].isupper() else re.escape(owner)
            assert re.search(defined, content, flags=re.M), f"{owner} in {row}"
            assert re.search(rf"^    {field}: " if field else "", content, flags=re.M), f"{name} in {row}"
