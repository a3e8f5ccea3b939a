"""The documentation site builds without a warning, needs no network, and its search finds what users look for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.browser import Browser

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_page_of_the_project_is_on_the_site(site):
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    pages += [path.relative_to(ROOT) for path in (ROOT / "benchmarks").rglob("*.md")]
    published = [page.with_name("index") if page.name == "README.md" else page for page in pages]
    assert [page for page in published if not (site / page.with_suffix(".html")).is_file()] == []


def test_pages_need_no_network_and_set_their_equations(site, tmp_path):
    with Browser(tmp_path) as browser:
        browser.open(site / "concepts" / "method.html")
        browser.wait_for("document.querySelectorAll('.katex').length > 30")
        assert browser.run("document.querySelectorAll('.katex-error').length") == 0
        assert [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))] == []
        assert browser.console == []


def test_search_finds_what_users_look_for(site, tmp_path):
    wanted = {"fold": "judge", "DICOM": "register", "memory": "troubleshooting", "SDlogJ": "method"}
    with Browser(tmp_path) as browser:
        browser.open(site / "index.html")
        browser.run("document.querySelector('#__search').click()")
        for word, page in wanted.items():
            browser.run(
                "(() => { const box = document.querySelector('[data-md-component=search-query]');"
                f" box.value = '{word}'; box.dispatchEvent(new KeyboardEvent('keyup', {{ bubbles: true }})); }})()"
            )
            found = "[...document.querySelectorAll('.md-search-result__link')].map(link => link.href.toLowerCase())"
            this = f"link.includes('{page}.html?h={word.lower()}')"
            browser.wait_for(f"{found}.some(link => {this})", seconds=20)
