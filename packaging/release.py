"""`make release`: build the sdist and the wheel, check what is in them, and print the release's part of the changelog.

Nothing is uploaded. hatchling is installed into a temporary environment, so that the build depends on nothing else.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

IN_THE_WHEEL = (
    "corereg/__init__.py",
    "corereg/py.typed",
    "corereg/models/head-neck-ct.safetensors",
    "corereg/models/head-neck-ct-labels.safetensors",
    "corereg/report/pages/assets/niivue.umd.js",
    "corereg/report/pages/assets/LICENCES.txt",
    "corereg/report/pages/pair.html.j2",
    "licenses/LICENSE",
    "licenses/src/corereg/report/pages/assets/LICENCES.txt",
)
"""Ends of names that the wheel must hold."""

IN_THE_SDIST = ("/README.md", "/LICENSE", "/CHANGELOG.md", "/pyproject.toml", "/tests/conftest.py", "/hatch_build.py")


def build(folder: Path) -> tuple[Path, Path]:
    """Build into `folder`; returns the sdist and the wheel."""
    with tempfile.TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        python = Path(place) / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "hatchling>=1.26")
        _run(python, "-m", "hatchling", "build", "-d", folder)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def check(sdist: Path, wheel: Path) -> list[str]:
    """What is wrong with the two, in words."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode("utf-8") for name in names if name.endswith(".dist-info/METADATA"))
    with tarfile.open(sdist) as archive:
        packed = archive.getnames()
    wrong = [f"{wheel.name} lacks {end}" for end in IN_THE_WHEEL if not any(name.endswith(end) for name in names)]
    wrong += [f"{sdist.name} lacks {end}" for end in IN_THE_SDIST if not any(name.endswith(end) for name in packed)]
    wrong += [
        f"the metadata lacks {line}" for line in ("License-Expression: ", "Project-URL: ") if line not in metadata
    ]
    links = re.findall(r"\]\((?!https?://|#)([^)\s]+)\)", metadata)
    return wrong + [f"the description links to {link}, which leads nowhere on an index" for link in links]


def section(version: str) -> str:
    """The changes of a version, or else the unreleased ones."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    for title in (version, "Unreleased"):
        found = re.search(rf"^## \[{re.escape(title)}\].*?\n(.*?)(?=^## \[|\Z)", text, flags=re.S | re.M)
        if found and found[1].strip():
            return found[1].strip()
    raise SystemExit(f"CHANGELOG.md has no changes under [{version}] or [Unreleased]; write them first")


def _run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, cwd=ROOT)


def main() -> None:
    """Build, check and print."""
    (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), flags=re.M)
    changes, folder = section(version), ROOT / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    wrong = check(*build(folder))
    if wrong:
        raise SystemExit("\n".join(wrong))
    print(f"{changes}\n")
    for path in sorted(folder.iterdir()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 2**20:.1f} MiB, checked, sha256 {digest}")
    print(f"tag it v{version}, then: twine upload dist/*")


if __name__ == "__main__":
    main()
