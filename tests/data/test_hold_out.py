"""Holding out validation pairs: by patient, by seed, and never a scan on both sides."""

from itertools import combinations
from pathlib import Path

import pytest

from corereg.data.hold_out import hold_out
from corereg.data.layouts.listing import Scan
from corereg.data.pairs import Dataset, Pairs
from corereg.errors import InputError

SCANS = tuple(Scan(f"s{n}", Path(f"s{n}.nii.gz")) for n in range(12))
ALL_WITH_ALL = tuple(combinations(range(12), 2))
GROUPS_OF_THREE = tuple((g + a, g + b) for g in (0, 3, 6, 9) for a, b in ((0, 1), (0, 2), (1, 2)))


def dataset(training: Pairs, validation: Pairs = ()) -> Dataset:
    return Dataset("Made", "csv", SCANS, training, validation, (), {}, intra_patient=False)


def scans_of(pairs: Pairs) -> set[int]:
    return {scan for pair in pairs for scan in pair}


@pytest.mark.parametrize("pairs", [ALL_WITH_ALL, GROUPS_OF_THREE], ids=["all with all", "groups"])
@pytest.mark.parametrize("seed", range(5))
def test_no_scan_is_trained_and_validated_on(pairs: Pairs, seed: int) -> None:
    found = hold_out(dataset(pairs), 0.25, seed=seed)
    assert scans_of(found.training).isdisjoint(scans_of(found.validation))
    assert set(found.training) | set(found.validation) <= set(pairs)


def test_a_quarter_of_twelve_scans_makes_three_pairs_and_leaves_those_of_nine_scans() -> None:
    found = hold_out(dataset(ALL_WITH_ALL), 0.25, seed=0)
    assert (len(found.validation), len(found.training)) == (3, 36)


def test_scans_that_pairs_connect_stay_together() -> None:
    found = hold_out(dataset(GROUPS_OF_THREE), 0.25, seed=3)
    assert (len(found.validation), len(found.training)) == (3, 9)
    assert len({scan // 3 for scan in scans_of(found.validation)}) == 1


def test_the_seed_decides() -> None:
    drawn = [hold_out(dataset(ALL_WITH_ALL), 0.25, seed=seed).validation for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_a_data_set_with_validation_pairs_keeps_them() -> None:
    with pytest.raises(InputError, match="1 validation pairs already"):
        hold_out(dataset(ALL_WITH_ALL[1:], ALL_WITH_ALL[:1]), 0.25, seed=0)


@pytest.mark.parametrize(("pairs", "fraction"), [(ALL_WITH_ALL, 0.99), (((0, 1),), 0.5)])
def test_a_share_that_leaves_one_side_empty_is_refused(pairs: Pairs, fraction: float) -> None:
    with pytest.raises(InputError, match="expected some of both"):
        hold_out(dataset(pairs), fraction, seed=0)
