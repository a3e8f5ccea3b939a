"""Settings: frozen dataclasses, filled from YAML files, `key=value` texts and keyword arguments, checked by pydantic.

A setting is written once, as a field of a dataclass: its name, type, bounds (`annotated_types`) and default, and its
meaning in the docstring below it. From there come the checks, the options of the command line, the keyword arguments of
`corereg.register` and the reference page. pydantic and PyYAML are imported when settings are read, not before.
"""

import ast
import difflib
import inspect
import os
import reprlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from corereg.errors import InputError, UnknownSettingError

__all__ = [
    "Option",
    "Setting",
    "allowed",
    "as_settings",
    "changed_keys",
    "check",
    "kinds_in",
    "read_settings",
    "settings_of",
    "with_options",
    "with_settings",
]

Config = TypeVar("Config")

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}
LIMITS = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}

LONGEST_REASON = 200
"""Characters of a parser's message that are quoted."""

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 80
"""Characters of a value that are quoted: aliases in YAML make huge values of short texts."""


@dataclass(frozen=True)
class Option:
    """Marks a field as an option of the command line and a keyword argument."""

    name: str = ""
    """By default the field's own name."""
    off: str = ""
    """Flag that switches a boolean off, by default `no-` and the name."""


@dataclass(frozen=True)
class Setting:
    """One setting, as the command line and the reference page need it."""

    path: str
    """Dotted name within its configuration."""
    hint: Any
    """Type with its bounds."""
    default: Any
    meaning: str
    name: str = ""
    """Keyword of an option."""
    flag: str = ""
    """The option on the command line, with the flag that switches a boolean off after a slash."""

    @property
    def kind(self) -> Any:
        """bool, int, float, str, tuple or Literal."""
        return next(kind for kind in kinds_in(self.hint) if kind not in (Union, UnionType))


def settings_of(config: Any, prefix: str = "") -> list[Setting]:
    """All settings of a configuration, its values as their defaults."""
    found = []
    cls = type(config)
    meanings = _docstrings(cls.__module__)
    for name, hint in _hints(config).items():
        value = getattr(config, name)
        if is_dataclass(value):
            found += settings_of(value, f"{prefix}{name}.")
        else:
            setting = Setting(prefix + name, hint, value, meanings.get((cls.__name__, name), ""))
            marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Option)]
            found.append(_as_option(setting, name, marks[0]) if marks else setting)
    return found


def _as_option(setting: Setting, field: str, option: Option) -> Setting:
    name = option.name or field
    flag = name.replace("_", "-")
    off = f"/--{option.off or f'no-{flag}'}" if setting.kind is bool else ""
    return replace(setting, name=name, flag=f"--{flag}{off}")


def check(config: Any) -> None:
    """Check every field of a dataclass but defaults, and convert it to its type; for `__post_init__`.

    Raises:
        InputError: a value outside its type or bounds.
    """
    hints = _hints(config)
    for field in fields(config):
        value = getattr(config, field.name)
        if value is not field.default and not (is_dataclass(value) and isinstance(value, hints[field.name])):
            object.__setattr__(config, field.name, _checked(hints[field.name], value, field.name))


def with_settings(config: Config, settings: Mapping[Any, Any]) -> Config:
    """A copy of the configuration with settings of dotted or nested keys in their places.

    Raises:
        InputError: an unknown key (the nearest known one is named), or a value outside its type or bounds.
    """
    return cast("Config", _replaced(config, settings, ""))


def with_options(config: Config, options: Mapping[str, Any]) -> Config:
    """A copy of the configuration with settings by the names of their options; None leaves a setting as it is.

    Raises:
        UnknownSettingError: a name that is not an option.
        InputError: a value outside its type or bounds.
    """
    known = {setting.name: setting for setting in settings_of(config) if setting.name}
    if unknown := [name for name in options if name not in known]:
        raise _unknown(unknown[0], known)
    given = {name: value for name, value in options.items() if value is not None}
    return with_settings(config, {known[n].path: _checked(known[n].hint, value, n) for n, value in given.items()})


def as_settings(config: Any) -> dict[str, Any]:
    """Nested plain values, for YAML and JSON."""
    return asdict(config, dict_factory=lambda pairs: {key: _plain(value) for key, value in pairs})


def changed_keys(old: Any, new: Any) -> list[str]:
    """Dotted keys whose values differ, as `key: old -> new`."""
    both = zip(settings_of(old), settings_of(new), strict=True)
    return [f"{b.path}: {_plain(b.default)} -> {_plain(a.default)}" for b, a in both if b.default != a.default]


def read_settings(path: Path | None, assignments: Iterable[str] = ()) -> dict[Any, Any]:
    """Settings from a YAML file, if there is one, with `key=value` texts on top.

    Raises:
        InputError: the file cannot be read or does not hold keys with values, or a text without "=".
    """
    settings: Any = {}
    if path is not None:
        try:
            settings = _yaml(path.read_text(encoding="utf-8"), f"the configuration {path}")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"got the configuration {path}, expected a YAML file in UTF-8 ({error})") from None
        if not isinstance(settings, dict):
            raise InputError(f"got the configuration {path}, expected keys with values, like `objective: registration`")
    for text in assignments:
        key, sign, value = text.partition("=")
        if not sign:
            raise InputError(f"got --set {_short(text)}, expected key=value, like --set objective=registration")
        settings = _merged(settings, {key.strip(): _yaml(value, f"--set {_short(text)}")})
    return dict(settings)


def allowed(hint: Any, bounds: Sequence[Any] = (), words: Mapping[type, str] = WORDS) -> str:
    """What a setting of this type may be, in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return allowed(args[0], args[1:], words)
    if type(None) in args:
        return f"{allowed(args[0], bounds, words)}, or null"
    if origin is Literal:
        return " or ".join(", ".join(map(str, args)).rsplit(", ", 1))
    if origin in (Union, UnionType):
        return " or ".join(allowed(arg, bounds, words) for arg in args)
    if origin is tuple:
        return f"{'a list of' if args[1:] == (Ellipsis,) else len(args)} {allowed(args[0], (), PLURALS)}"
    limits = [(word, getattr(bound, key, None)) for bound in bounds for key, word in LIMITS.items()]
    return f"{words[hint]} {' and '.join(f'{word} {limit}' for word, limit in limits if limit is not None)}".rstrip()


def _replaced(config: Any, settings: Mapping[Any, Any], prefix: str) -> Any:
    changes: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        name, _, rest = str(key).partition(".")
        current = getattr(config, name) if name in _hints(config) else None
        if name not in _hints(config) or (rest and not is_dataclass(current)):
            raise _unknown(f"{prefix}{key}", [setting.path for setting in settings_of(config, prefix)])
        if rest or (is_dataclass(current) and isinstance(value, Mapping)):
            below[name] = _merged(below.get(name, {}), {rest: value} if rest else value)
        elif not is_dataclass(current) or isinstance(value, type(current)):
            changes[name] = _checked(_hints(config)[name], value, f"{prefix}{key}")
        else:
            example = settings_of(current, f"{prefix}{key}.")[0].path
            raise InputError(f"got {prefix}{key} = {_short(value)}, expected keys below it, like {example}")
    changes |= {name: _replaced(getattr(config, name), inner, f"{prefix}{name}.") for name, inner in below.items()}
    return replace(config, **changes)


def _checked(hint: Any, value: Any, name: str) -> Any:
    """The value as pydantic converts it to its type; but true is not a number, and a list may be `8,4` or one value."""
    kinds = kinds_in(hint)
    try:
        converted = os.fspath(value) if isinstance(value, os.PathLike) else value
        if tuple in kinds and isinstance(converted, str | int | float):
            parts = converted.split(",") if isinstance(converted, str) else ()
            converted = [_yaml(part, name) for part in parts] or [converted]
        items = converted if isinstance(converted, list | tuple) else [converted]
        if value is not None and any(isinstance(item, bool) for item in items) is not (bool in kinds):
            raise ValueError
        return _adapter(hint).validate_python(converted)
    except ValueError:  # pydantic's own is one of these
        choices = [choice for choice in kinds if isinstance(choice, str)]
        nearest = difflib.get_close_matches(value, choices, 1) if isinstance(value, str) else ()
        cure = f"; did you mean {nearest[0]}?" if nearest else ""
        raise InputError(f"got {name} = {_short(value)}, expected {allowed(hint)}{cure}") from None


def kinds_in(hint: Any) -> list[Any]:
    """The types in a type, and the choices of its literals."""
    if get_origin(hint) is Annotated:
        return kinds_in(get_args(hint)[0])
    return [get_origin(hint) or hint, *(kind for part in get_args(hint) for kind in kinds_in(part))]


@cache
def _adapter(hint: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    numbers = ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True)
    return TypeAdapter(hint, config=None if is_dataclass(hint) else numbers)


def _hints(config: Any) -> dict[str, Any]:
    """The types of a configuration's fields."""
    hints = get_type_hints(type(config), include_extras=True)
    return {field.name: hints[field.name] for field in fields(config)}


@cache
def _docstrings(module: str) -> dict[tuple[str, str], str]:
    """The texts below the fields of a module's classes, by class and field; Python itself does not keep them."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except OSError:  # installed without its source
        return {}
    found = {}
    for node in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for pair in pairwise(node.body):
            match pair:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as meaning)):
                    found[node.name, name] = " ".join(meaning.split())
    return found


def _short(value: Any) -> str:
    try:
        return " ".join(SHORT.repr(value).split())
    except ValueError:  # an integer of thousands of digits
        return f"<{type(value).__name__}>"


def _unknown(name: str, known: Iterable[str]) -> UnknownSettingError:
    names = list(known)
    same_end = [key for key in names if key.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    nearest = [*same_end, *difflib.get_close_matches(name, names, 1)]
    cure = f"did you mean {nearest[0]}?" if nearest else f"expected one of {', '.join(names)}"
    return UnknownSettingError(f"got the setting {_short(name)}, which does not exist; {cure}")


def _merged(below: Mapping[Any, Any], above: Mapping[Any, Any]) -> dict[Any, Any]:
    pairs = [(key, below.get(key), value) for key, value in above.items()]
    both = {key: _merged(b, a) for key, b, a in pairs if isinstance(b, Mapping) and isinstance(a, Mapping)}
    return {**below, **above, **both}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _yaml(text: str, name: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except Exception as error:  # also of numbers and dates that cannot be, and of too deep a nesting
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise InputError(f"got {name}, expected YAML ({reason})") from None
