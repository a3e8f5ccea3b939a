"""Settings onto dataclasses: from nested and dotted keys, files and texts; what is refused, in one line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from annotated_types import Ge, Gt, Interval

from corereg.errors import UnknownSettingError
from corereg.settings import (
    Option,
    allowed,
    as_settings,
    changed_keys,
    check,
    read_settings,
    settings_of,
    with_options,
    with_settings,
)
from helpers.refusals import refusal


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    points: Annotated[int, Ge(1), Option("inner_points")] = 1000
    """Points
    drawn."""
    rate: Annotated[float | None, Gt(0)] = None

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    """Not the text of a field."""

    kind: Annotated[Literal["joint", "alone"], Option()] = "joint"
    """Kind of it."""
    both: Annotated[bool, Option(off="one")] = True
    share: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    strides: tuple[Literal[4, 8], ...] = (8, 4)
    name: str = ""
    first: Inner = field(default_factory=Inner)
    second: Inner = field(default_factory=lambda: Inner(points=5))

    def __post_init__(self) -> None:
        check(self)


def test_nested_and_dotted_keys_reach_the_same_setting() -> None:
    expected = Outer(first=Inner(points=7), second=Inner(points=5, rate=0.25))
    assert with_settings(Outer(), {"first": {"points": 7}, "second.rate": 0.25}) == expected
    assert with_settings(Outer(), {"first.points": 7, "second": {"rate": 0.25}}) == expected


def test_keys_of_one_group_add_up_however_they_are_written() -> None:
    found = with_settings(Outer(), {"first": {"points": 7}, "first.rate": 2})
    assert found.first == Inner(points=7, rate=2.0)
    assert found.second == Outer().second


def test_a_group_may_be_given_as_a_whole() -> None:
    assert with_settings(Outer(), {"second": Inner(rate=3.0)}).second == Inner(rate=3.0)


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("first.points", 500.0, 500),
        ("first.points", "12", 12),
        ("first.points", np.int64(3), 3),
        ("first.rate", "1e-4", 1e-4),  # text to YAML 1.1
        ("first.rate", 2, 2.0),
        ("first.rate", np.float32(0.5), 0.5),
        ("first.rate", None, None),
        ("strides", [8], (8,)),
        ("strides", "8,4", (8, 4)),
        ("strides", 4, (4,)),
        ("both", False, False),
        ("name", Path("a") / "b", str(Path("a") / "b")),
        ("name", 2024, "2024"),
    ],
)
def test_values_take_the_type_of_their_field(key: str, given: Any, expected: Any) -> None:
    found: Any = with_settings(Outer(), {key: given})
    for name in key.split("."):
        found = getattr(found, name)
    assert found == expected
    assert type(found) is type(expected)


REFUSED: dict[str, tuple[dict[Any, Any], str]] = {
    "below its bound": ({"first.points": 0}, "first.points = 0, expected a whole number of at least 1"),
    "on an open bound": ({"share": 1}, "above 0 and below 1"),
    "NaN": ({"share": float("nan")}, "share = nan"),
    "infinity": ({"first.rate": float("inf")}, "a number above 0, or null"),
    "too large for a float": ({"first.rate": 10**400}, "first.rate"),
    "too large to be written": ({"first.points": -(10**5000)}, "<int>"),
    "a word for a number": ({"first.points": "ten"}, "'ten'"),
    "a part of a number": ({"first.points": 2.5}, "2.5"),
    "true for a number": ({"first.points": True}, "True"),
    "true among numbers": ({"strides": [8, True]}, "strides"),
    "a number for true": ({"both": 1}, "true or false"),
    "a word for true": ({"both": "yes"}, "true or false"),
    "a list for a number": ({"share": [0.5]}, "[0.5]"),
    "a list for a word": ({"kind": ["joint"]}, "joint or alone"),
    "a mapping for a number": ({"share": {"a": 1}}, "a number above 0"),
    "a mapping for a list": ({"strides": {"a": 1}}, "a list of 4 or 8"),
    "a number for a group": ({"first": 3}, "like first.points"),
    "null for a group": ({"first": None}, "like first.points"),
    "null": ({"share": None}, "share = None"),
    "one of a list": ({"strides": [8, 5]}, "4 or 8"),
    "another choice": ({"kind": "joit"}, "did you mean joint?"),
    "an array": ({"share": np.zeros((3, 2))}, "share"),
    "an unknown key": ({"knid": "joint"}, "did you mean kind?"),
    "a key without its group": ({"rate": 1}, "did you mean first.rate?"),
    "a key of no group": ({"kind.points": 1}, "first.points"),
    "a key too deep": ({"first.points.more": 1}, "did you mean first.points?"),
    "a key unlike any": ({"qqq": 1}, "expected one of kind, both"),
    "a key that is no text": ({None: 1}, "'None'"),
    "an empty key": ({"": 1}, "''"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(name: str) -> None:
    settings, words = REFUSED[name]
    message = refusal(with_settings, Outer(), settings)
    assert words in message
    assert len(message) < 400


def test_a_configuration_made_in_python_is_checked_and_converted_too() -> None:
    assert "points = 0" in refusal(Inner, points=0)
    assert "joint or alone" in refusal(Outer, kind="both")
    assert Outer(strides=[4]).strides == (4,)  # type: ignore[arg-type]


def test_options_have_their_own_names_and_none_leaves_a_setting() -> None:
    config = Outer(first=Inner(points=7))
    assert with_options(config, {"kind": "alone", "both": None}) == Outer(kind="alone", first=Inner(points=7))
    assert "inner_points = 0" in refusal(with_options, Inner(), {"inner_points": 0})


def test_an_unknown_option_is_both_what_users_and_what_python_expect() -> None:
    message = refusal(with_options, Outer(), {"knd": 1})
    assert "did you mean kind?" in message
    with pytest.raises(TypeError):
        with_options(Outer(), {"knd": 1})
    with pytest.raises(UnknownSettingError):
        with_options(Outer(), {"share": 0.1})  # a setting, but not an option


def test_every_setting_is_described_from_its_one_definition() -> None:
    found = {setting.path: setting for setting in settings_of(Outer())}
    assert list(found)[-4:] == ["first.points", "first.rate", "second.points", "second.rate"]
    assert (found["second.points"].default, found["second.points"].meaning) == (5, "Points drawn.")
    assert (found["first.points"].name, found["first.points"].flag) == ("inner_points", "--inner-points")
    assert (found["both"].flag, found["kind"].flag, found["share"].flag) == ("--both/--one", "--kind", "")
    assert (found["kind"].meaning, found["share"].meaning) == ("Kind of it.", "")
    words = {path: allowed(setting.hint) for path, setting in found.items() if not path.startswith("second")}
    assert words == {
        "kind": "joint or alone",
        "both": "true or false",
        "share": "a number above 0 and below 1",
        "strides": "a list of 4 or 8",
        "name": "a text",
        "first.points": "a whole number of at least 1",
        "first.rate": "a number above 0, or null",
    }


def test_settings_survive_their_own_file(tmp_path: Path) -> None:
    import yaml

    config = Outer(kind="alone", strides=(4,), second=Inner(rate=0.5))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(as_settings(config)))
    assert with_settings(Outer(), read_settings(tmp_path / "config.yaml")) == config


def test_changed_settings_are_named_by_their_keys() -> None:
    new = with_settings(Outer(), {"first.points": 10, "strides": [4]})
    assert changed_keys(Outer(), new) == ["strides: [8, 4] -> [4]", "first.points: 1000 -> 10"]


def test_assignments_override_a_file(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("kind: alone\nfirst: {points: 3, rate: 1.5}\n")
    settings = read_settings(tmp_path / "my.yaml", ["first={points: 4}", "strides=[8]", "name=a=b", "share=1e-1"])
    assert with_settings(Outer(), settings) == Outer(
        kind="alone", strides=(8,), name="a=b", share=0.1, first=Inner(points=4, rate=1.5)
    )


@pytest.mark.parametrize("text", ["first.points", "name=[", "name=!!int ''"])
def test_a_text_that_is_no_assignment_is_refused(text: str) -> None:
    assert f"--set {text!r}" in refusal(read_settings, None, [text])


NO_SETTINGS: dict[str, bytes | None] = {
    "missing": None,
    "empty": b"",
    "a comment": b"# nothing yet\n",
    "a list": b"- 1\n- 2\n",
    "a word": b"joint",
    "not YAML": b"a: [",
    "a tab": b"a:\n\t- 1",
    "not UTF-8": b"kind: \xff\xfe",
    "a zero byte": b"kind: jo\0int",
    "brackets nested 100,000 deep": b"[" * 100_000,
    "keys nested 100,000 deep": b"{a: " * 100_000,
    "blocks nested 2,000 deep": b"".join(b" " * n + b"a:\n" for n in range(2000)),
    "an integer of 5,000 digits": b"first: {points: " + b"9" * 5000 + b"}",
    "an impossible date": b"name: 2024-99-99",
    "a number that is none": b"name: !!float ''",
    "a Python object": b"name: !!python/object/apply:os.system ['true']",
    "an unhashable key": b"? [1, 2]\n: 3",
    "two documents": b"kind: joint\n---\nkind: alone\n",
}


@pytest.mark.parametrize("name", NO_SETTINGS)
def test_a_file_without_settings_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    content = NO_SETTINGS[name]
    if content is not None:
        (tmp_path / "my.yaml").write_bytes(content)
    message = refusal(read_settings, tmp_path / "my.yaml")
    assert "my.yaml" in message
    assert len(message) < 500


def test_aliases_that_multiply_do_not_fill_the_memory(tmp_path: Path) -> None:
    levels = "".join(f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    for key in ("strides", "share", "kind", "first", "name"):
        (tmp_path / "my.yaml").write_text(f"{key}:\n- &a0 [x]\n{levels}")
        assert f"got {key} = [" in refusal(with_settings, Outer(), read_settings(tmp_path / "my.yaml"))
