"""A cohort with fields that are exactly right."""

from pathlib import Path

import pytest

from helpers.cohorts import Cohort, make_cohort


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def fields(cohort, tmp_path_factory) -> Path:
    return cohort.write_fields(tmp_path_factory.mktemp("fields"))
