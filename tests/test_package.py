"""The package from outside: its public names, and nothing heavy imported before it is used."""

import pytest

import corereg
from helpers.commands import process


def test_package_imports_nothing_heavy_before_it_is_used() -> None:
    code = """
import sys, corereg
assert not {"torch", "numpy"} & set(sys.modules)
assert corereg.InputError and not {"torch", "numpy"} & set(sys.modules)
assert set(corereg.__all__) <= set(dir(corereg))
"""
    assert process(code=code).stderr == ""


def test_every_public_name_is_there() -> None:
    assert all(getattr(corereg, name) is not None for name in corereg.__all__)
    with pytest.raises(AttributeError, match="regsiter"):
        _ = corereg.regsiter
