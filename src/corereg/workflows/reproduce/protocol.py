"""The paper's protocols: data, splits, working grid and working point. Source: CoRe (Kats et al.), experiments.

Deliberate differences from the paper: R is searched, and training is watched, on pairs that are not scored; and all
structures count.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from corereg.data.pairs import Dataset, Pairs, Scan, read_dataset
from corereg.errors import InputError
from corereg.evaluation.cases import Case, Cases
from corereg.workflows.reproduce.totalsegmentator import STRUCTURES

__all__ = ["PROTOCOLS", "Protocol", "ProtocolData", "labelled_scans", "read_protocol_data"]


def _case_numbers(*numbers: int) -> frozenset[str]:
    return frozenset(f"{number:04d}" for number in numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One of the paper's experiments."""

    name: str
    recipe: str
    spacing_mm: float
    """Voxel size of the grid on which the method trains and registers."""
    sdlogj_band: tuple[float, float]
    """Band in which the paper searches its working point."""
    training_cases: frozenset[str]
    """Patients whose pairs train; empty if the data set's own split is the paper's."""
    search_cases: frozenset[str]
    """Training patients on whose pairs R is searched and training is watched; empty for the validation pairs."""
    test_cases: frozenset[str]
    """Patients whose pairs are scored; empty if the data set's own split is the paper's."""
    training_pairs: int
    """Number of training pairs in the paper."""
    test_pairs: int
    """Number of test pairs in the paper."""

    @property
    def sdlogj(self) -> float:
        """Target of the search for R: the middle of the band."""
        return sum(self.sdlogj_band) / 2


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="abdomen-ct",
            recipe="abdomen-ct",
            spacing_mm=2.0,
            sdlogj_band=(0.135, 0.155),
            training_cases=_case_numbers(2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 23, 24, 26, 27, 29, 30),
            search_cases=_case_numbers(2, 8, 14, 20, 26, 30),
            test_cases=_case_numbers(1, 4, 7, 10, 13, 16, 19, 22, 25, 28),
            training_pairs=190,
            test_pairs=45,
        ),
        Protocol(
            name="chest-ct",
            recipe="chest-ct",
            spacing_mm=1.5,
            sdlogj_band=(0.090, 0.110),
            training_cases=frozenset(),
            search_cases=frozenset(),
            test_cases=frozenset(),
            training_pairs=300,
            test_pairs=71,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class ProtocolData:
    """A data set as a protocol uses it."""

    training: Dataset
    """Training pairs, and as validation pairs those of the search. It holds no test scan."""
    search: Cases
    """Pairs on which R is searched."""
    scored: Cases
    """Test pairs."""


def read_protocol_data(
    protocol: Protocol, dataset: Path, *, metadata: Path | None = None, labels: Path | None = None
) -> ProtocolData:
    """Read a data set and split it as the protocol does. No image is opened.

    Args:
        dataset: the paper's data: AbdomenCTCT in Learn2Reg's layout; RAD-ChestCT's own folder; or any data set that
            lists training, validation and test pairs.
        metadata: RAD-ChestCT's table of patients, if it is not in the folder.
        labels: folder of label maps of RAD-ChestCT's scans, as `merge_segmentations` writes them.

    Raises:
        InputError: pairs or labels that the protocol needs are missing, or a test scan is in another split.
    """
    found = read_dataset(dataset, metadata=metadata)
    if labels is not None:
        scans = tuple(_with_labels(scan, labels) for scan in found.scans)
        found = replace(found, scans=scans, label_names={number: name for name, number in STRUCTURES.items()})
    if protocol.test_cases:
        training = _pairs_of(found, protocol.training_cases)
        search = _pairs_of(found, protocol.search_cases)
        test = tuple(pair for pair in (*found.validation, *found.test) if _within(found, pair, protocol.test_cases))
    else:
        test = found.test
        tested = {found.scans[scan].patient for pair in test for scan in pair} - {None}
        training, search = (
            tuple(pair for pair in pairs if not {found.scans[scan].patient for scan in pair} & tested)
            for pairs in (found.training, found.validation)
        )
    for name, pairs in (("training", training), ("search", search), ("test", test)):
        if not pairs:
            raise InputError(
                f"{dataset} has no {name} pairs of the protocol {protocol.name}; give the paper's data set"
            )
    test_scans = {scan for pair in test for scan in pair}
    shared = test_scans & {scan for pair in (*training, *search) for scan in pair}
    if shared:
        raise InputError(
            f"the test scan {found.scans[min(shared)].name} of {dataset} is in a training or validation pair too; list "
            "each scan in one split only"
        )
    scored = _cases(found, test, "test")
    if not all(case.labelled for case in scored.cases):
        raise InputError(f"the test pairs of {dataset} lack label maps, on which they are scored; add them")
    return ProtocolData(
        training=_reduced_to(found, training, search),
        search=_cases(found, search, "training" if protocol.search_cases else "validation"),
        scored=scored,
    )


def labelled_scans(dataset: Path, metadata: Path | None) -> list[str]:
    """Names of the scans whose labels are needed: those of the validation and test pairs."""
    found = read_dataset(dataset, metadata=metadata)
    return [
        found.scans[index].name
        for index in sorted({scan for pair in (*found.validation, *found.test) for scan in pair})
    ]


def _with_labels(scan: Scan, folder: Path) -> Scan:
    path = folder / f"{scan.name}.nii.gz"
    return replace(scan, labels=path) if path.is_file() else scan


def _pairs_of(dataset: Dataset, patients: frozenset[str]) -> Pairs:
    """All pairs of these patients' scans."""
    scans = [index for index, scan in enumerate(dataset.scans) if scan.patient in patients]
    return tuple(pair for pair in combinations(scans, 2) if len({dataset.scans[i].patient for i in pair}) == 2)


def _within(dataset: Dataset, pair: tuple[int, int], patients: frozenset[str]) -> bool:
    return all(dataset.scans[index].patient in patients for index in pair)


def _cases(dataset: Dataset, pairs: Pairs, split: str) -> Cases:
    cases = tuple(Case(dataset.scans[fixed], dataset.scans[moving]) for fixed, moving in pairs)
    return Cases(dataset.name, split, cases, dataset.label_names)


def _reduced_to(dataset: Dataset, training: Pairs, validation: Pairs) -> Dataset:
    """The data set with the scans of these pairs alone, and no test pairs."""
    kept = sorted({scan for pair in (*training, *validation) for scan in pair})
    new = {old: position for position, old in enumerate(kept)}
    return replace(
        dataset,
        scans=tuple(dataset.scans[index] for index in kept),
        training=tuple((new[fixed], new[moving]) for fixed, moving in training),
        validation=tuple((new[fixed], new[moving]) for fixed, moving in validation),
        test=(),
    )
