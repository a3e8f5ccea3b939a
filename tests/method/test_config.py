"""Settings of a registration."""

import pytest

from corereg.errors import InputError
from corereg.method.config import PAPER_PASSES, PAPER_REFINE, RegisterConfig, with_settings


def test_refinement_of_the_paper_is_one_setting_under_the_others():
    config = with_settings(RegisterConfig(), {"refine": "paper", "regularisation": 3.0})
    assert config.stages.passes == PAPER_PASSES
    assert config.stages.refine.learning_rate == PAPER_REFINE.learning_rate == 1.0
    assert config.stages.refine.regularisation == 3.0
    assert with_settings(RegisterConfig(), {"refine": "default"}) == RegisterConfig()


@pytest.mark.parametrize("settings", [{"precision": "fp8"}, {"memory": 0.0}, {"memory": -1.0}, {"refine": "best"}])
def test_settings_that_cannot_be_are_refused_in_one_line(settings):
    with pytest.raises(InputError) as caught:
        with_settings(RegisterConfig(), settings)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("got ")
