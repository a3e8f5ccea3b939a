"""Write what is made from the code: the pages of settings, commands and models, and the keywords of `register`.

python docs/generate_reference.py        (or `make reference`)
"""

import inspect
import textwrap
from collections.abc import Iterable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from corereg.cli import app
from corereg.method.config import MODELS, register_options
from corereg.method.features.model_file import read_card
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

COMMANDS = """<!-- Made by `make reference` from src/corereg/cli: do not edit. -->
# Commands

`corereg COMMAND --help` shows the same in the terminal. A mistake in the input gives one line and exit status 2,
before anything is computed. Add `--debug` to see the traceback of an error.

{commands}"""

COMMAND = """## `corereg {name}`

{help}

```text
corereg {name} {usage}
```

{table}
"""

MODEL_CARDS = """<!-- Made by `make reference` from src/corereg/method/config.py and the weights: do not edit. -->
# Models

`--model` takes one of these names, or a `.safetensors` file that `corereg train` wrote. The weights' licences permit
use and change; no model is approved for clinical use.

{models}

A model applies to what it was trained on. On other body parts or modalities start with `mind`, which was never trained,
and compare both on your own pairs ([benchmark](../how-to/benchmark.md)).

{cards}"""

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
        ROOT / "docs/reference/cli.md": COMMANDS.format(commands=_commands()),
        ROOT / "docs/reference/models.md": _models(),
        ROOT / "docs/reference/settings.md": PAGE.format(register=register, train=train),
        ROOT / "src/corereg/method/register_settings.py": KEYWORDS.format(fields="\n".join(fields)),
    }


def _table(names: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], Setting]]) -> str:
    cells = [(*first, _text(s.default), allowed(s.hint), s.meaning) for first, s in rows]
    return _markdown((*names, "default", "allowed", "meaning"), cells)


def _markdown(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _commands() -> str:
    parts = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        arguments = [one.name.upper() for one in command.params if one.param_type_name == "argument"]
        shown = [one for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
        rows = [(_names(one), _default(one), one.help or "") for one in shown]
        help_text = inspect.cleandoc(command.help or "")
        usage = " ".join([*arguments, "[OPTIONS]"])
        table = _markdown(("argument or option", "default", "meaning"), rows)
        parts.append(COMMAND.format(name=name, help=help_text, usage=usage, table=table))
    return "\n".join(parts)


def _models() -> str:
    table = _markdown(("name", "what it is"), [(f"`{name}`", text) for name, text in MODELS.items()])
    cards = [_card(name, read_card(get_path(name))) for name in MODELS if get_path(name).is_file()]
    return MODEL_CARDS.format(models=table, cards="\n".join(cards))


def get_path(name: str) -> Path:
    """Where the weights of a model on board lie, if it has any."""
    return ROOT / "src/corereg/models" / f"{name}.safetensors"


def _card(name: str, card: dict[str, Any]) -> str:
    data, figures = card["data"], card["metrics"]
    labelled = data.get("labelled_scans", 0)
    grid = " x ".join(map(str, data["grid"]))
    rows = [
        ("trained on", f"{data['name']}: {data['scans']} scans, {data['pairs']} pairs, {data['modality'].upper()}"),
        ("working grid", f"{grid} at {data['spacing_mm'][0]:g} mm"),
        ("labels used in training", f"maps of {labelled} scans" if labelled else "none"),
        ("licence", card["licence"]),
        ("trained", f"{card['date']}. {card['notes']}"),
    ]
    known = {"dice_before": "Dice before", "dice_coarse": "Dice, coarse", "dice": "Dice, refined", "sdlogj": "SDlogJ"}
    rows += [(f"validation: {text}", f"{figures[key]:.3f}") for key, text in known.items() if key in figures]
    return f"## `{name}`\n\n{_markdown(('', ''), rows)}\n"


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _default(parameter: Any) -> str:
    """The default as the command line's help shows it."""
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        shown = parameter.show_default
        return f"`{shown.lower() if shown in ('True', 'False') else shown}`"
    return "" if callable(parameter.default) or parameter.default in ((), []) else _text(parameter.default)


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
    if origin in (Union, UnionType):
        return " | ".join(arg.__name__ if isinstance(arg, type) else _annotation(arg) for arg in args)
    return {str: "str | PathLike[str]"}.get(hint, hint.__name__)


if __name__ == "__main__":
    for path, text in contents().items():
        path.write_text(text, encoding="utf-8")
        print(path)
