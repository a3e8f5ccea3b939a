"""Write what is made from the definitions of the settings: their reference page, and the keywords of `register`.

python docs/generate_reference.py        (or `make reference`)
"""

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from corereg.method.config import register_options
from corereg.settings import Setting, allowed, settings_of
from corereg.training.config import TrainConfig

__all__ = ["contents"]

ROOT = Path(__file__).parents[1]

WIDTH, INDENT = 120, " " * 4
"""Longest line in Python files."""

PAGE = """<!-- Made by `make reference` from the definitions in src/corereg: do not edit. -->
# Settings

## `corereg register`

Options of the command line, and keyword arguments of `corereg.register` and of
`corereg.workflows.register.register_to_folder`.

{register}

## `corereg train`

For `--set key=value`, for `--config FILE.yaml` (dotted or nested keys) and for the `settings` of `corereg.train`. The
defaults are those of the recipe `default`; `--show-config` prints those of any recipe.

{train}
"""

KEYWORDS = '''"""Keyword arguments of `register`. Made by `make reference` from `method/config.py`: do not edit."""

from collections.abc import Sequence
from os import PathLike
from typing import Literal

from typing_extensions import TypedDict

__all__ = ["RegisterSettings"]


class RegisterSettings(TypedDict, total=False):
    """Single settings of `register`; None leaves a setting as it is."""

{fields}
'''


def contents() -> dict[Path, str]:
    """The generated files."""
    options, keys = register_options(), settings_of(TrainConfig())
    register = _table(("option", "keyword"), [((f"`{s.flag}`", f"`{s.name}`"), s) for s in options])
    train = _table(("key",), [((f"`{s.path}`",), s) for s in keys])
    fields = [f"    {s.name}: {_annotation(s.hint)} | None\n{_docstring(s.meaning)}" for s in options]
    return {
        ROOT / "docs/reference/settings.md": PAGE.format(register=register, train=train),
        ROOT / "src/corereg/method/register_settings.py": KEYWORDS.format(fields="\n".join(fields)),
    }


def _table(names: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], Setting]]) -> str:
    heads = (*names, "default", "allowed", "meaning")
    lines = [heads, ("---",) * len(heads)]
    lines += [(*first, _text(s.default), allowed(s.hint), s.meaning) for first, s in rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _text(default: Any) -> str:
    if default is None or default == "":
        return ""
    text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"`{text.lower() if isinstance(default, bool) else text}`"


def _docstring(meaning: str) -> str:
    return textwrap.fill(f'"""{meaning}"""', WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)


def _annotation(hint: Any) -> str:
    """The type as a caller may pass it, in Python."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated or type(None) in args:
        return _annotation(args[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, args))}]".replace("'", '"')
    if origin is tuple:
        return f"Sequence[{'int' if get_origin(args[0]) is Literal else _annotation(args[0])}]"
    return {str: "str | PathLike[str]"}.get(hint, hint.__name__)


if __name__ == "__main__":
    for path, text in contents().items():
        path.write_text(text, encoding="utf-8")
        print(path)
