"""Provenance: a run's warnings are kept with its result, and still shown."""

import warnings

import pytest

from corereg.provenance import recorded_warnings


def test_warnings_are_recorded_once_each_and_shown_as_usual() -> None:
    with warnings.catch_warnings(record=True) as shown, recorded_warnings() as outer:
        warnings.simplefilter("always")
        warnings.warn("before", stacklevel=1)
        with recorded_warnings() as inner:
            for text in ("first", "second", "first"):
                warnings.warn(text, stacklevel=1)
    assert inner == ["first", "second"]
    assert outer == ["before", "first", "second"]
    assert {str(one.message) for one in shown} == {"before", "first", "second"}


def test_a_warning_that_is_an_error_stays_one_and_an_ignored_one_is_not_recorded() -> None:
    with recorded_warnings() as texts:
        with pytest.raises(UserWarning, match="strict"):
            warnings.warn("strict", stacklevel=1)
        warnings.simplefilter("ignore")
        warnings.warn("ignored", stacklevel=1)
    assert texts == []
