"""Refusals of unusable input."""

from collections.abc import Callable

import pytest

from corereg.errors import InputError


def refusal(function: Callable[..., object], *args: object, **kwargs: object) -> str:
    """The message of the InputError that the call must raise."""
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message.split()) >= 8, "what was got, what was expected and the cure"
    return message
