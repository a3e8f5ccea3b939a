"""Publishes pages and files that lie outside docs, so that links work on the site as they do in the repository."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/**/*.md")
SEARCH: dict[str, dict[str, Any]] = {
    "CHANGELOG.md": {"exclude": True},
    "benchmarks/history/": {"exclude": True},
    "reference/api.md": {"boost": 0.3},
    "reference/cli.md": {"boost": 0.3},
}
"""How the search treats pages that mention nearly every word."""
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s:]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of `PAGES`, and every other file that a page links to."""
    pages = {path.relative_to(ROOT).as_posix() for pattern in PAGES for path in ROOT.glob(pattern)}
    linked = set()
    for page in [*pages, *(DOCS + file.src_uri for file in files.documentation_pages())]:
        for _, target, _ in LINK.findall((ROOT / page).read_text("utf-8")):
            linked.add(_resolved(page, target))
    for path in pages | {path for path in linked if not path.startswith(DOCS) and (ROOT / path).is_file()}:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Turn links between files of the repository into links between files of the site; those to folders become text."""
    here = page.file.src_uri
    for start, treatment in SEARCH.items():
        if here.startswith(start):
            page.meta["search"] = treatment
    source = Path(str(page.file.abs_src_path)).relative_to(ROOT).as_posix()

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found[1], _resolved(source, found[2]), found[3] or ""
        if (ROOT / target).is_dir():
            return text
        if files.get_file_from_path(_on_site(target)) is None:
            return found[0]
        return f"[{text}]({posixpath.relpath(_on_site(target), posixpath.dirname(here) or '.')}{anchor})"

    return LINK.sub(link, markdown)


def _resolved(page: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def _on_site(path: str) -> str:
    return path.removeprefix(DOCS)
