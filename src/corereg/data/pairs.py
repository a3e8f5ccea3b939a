"""A data set: scans, and the pairs of them to train on, to validate on and to test on."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from corereg.data.layouts import Listing, Pairs, Scan, read_listing
from corereg.data.layouts.learn2reg import points_of_pair
from corereg.errors import InputError

__all__ = ["Dataset", "Pairs", "Scan", "points_of_pair", "read_dataset"]

PAIRINGS = ("auto", "inter", "intra")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Scans and pairs. No image is opened, and training never needs the labels."""

    name: str
    layout: str
    """"learn2reg", "nnunet", "rad-chestct", "bids", "folder" or "csv"."""
    scans: tuple[Scan, ...]
    training: Pairs
    """(fixed, moving) as indices of `scans`."""
    validation: Pairs
    test: Pairs
    """Pairs that neither training nor validation reads."""
    label_names: Mapping[int, str]
    intra_patient: bool
    """Whether both scans of every training and validation pair are known to be of the same patient."""
    notes: tuple[str, ...] = ()
    """What was left out, one line each."""


def read_dataset(path: str | Path, *, pairing: str = "auto", metadata: Path | None = None) -> Dataset:
    """Read a data set of any layout: Learn2Reg, nnU-Net raw, RAD-ChestCT, BIDS, a folder of images, a CSV.

    Args:
        path: the dataset JSON, the CSV, or a folder.
        pairing: how training pairs are made. "auto": as the layout lists or intends them. "inter": all pairs of
            different patients. "intra": all pairs of the same patient. Scans of unknown patients count as different
            patients. Generated pairs are unordered: (i, j) with i < j, without (j, i). Listed validation and test pairs
            stay.
        metadata: RAD-ChestCT's table of patients, if it is not in the folder.

    Raises:
        InputError: the path does not exist, the layout is unknown, files are missing, labels are listed as images,
            there are fewer than two scans, a scan is paired with itself, or there is no pair at all.
    """
    path = Path(path)
    if pairing not in PAIRINGS:
        raise InputError(f"got the pairing {pairing!r}, expected one of {', '.join(PAIRINGS)}; correct it")
    if not path.exists():
        raise InputError(
            f"the data set {path} does not exist, expected a folder, a dataset JSON or a CSV of pairs; check the path"
        )
    listing = read_listing(path, metadata)
    _check_scans(listing, path)
    training, validation, test = listing.training_pairs, listing.validation_pairs, listing.test_pairs
    if training is None or pairing != "auto":
        training = tuple(_all_pairs(listing, listing.training, pairing))
    if validation is None:
        validation = tuple(_all_pairs(listing, listing.validation, pairing))
    if test is None:
        test = tuple(_all_pairs(listing, listing.test, pairing))
    _check_pairs(listing, path, training + validation + test)
    return Dataset(
        name=listing.name,
        layout=listing.layout,
        scans=listing.scans,
        training=training,
        validation=validation,
        test=test,
        label_names=listing.label_names,
        intra_patient=all(_same_patient(listing, pair) for pair in training + validation),
        notes=listing.notes,
    )


def _same_patient(listing: Listing, pair: tuple[int, int]) -> bool:
    fixed, moving = (listing.scans[i].patient for i in pair)
    return fixed is not None and fixed == moving


def _all_pairs(listing: Listing, members: Collection[int], pairing: str) -> Iterator[tuple[int, int]]:
    intra = (listing.pairing if pairing == "auto" else pairing) == "intra"
    everything = frozenset(members)
    fixed_side, moving_side = listing.sides or (everything, everything)
    for pair in combinations(members, 2):
        if _same_patient(listing, pair) is intra:
            ordered = [(f, m) for f, m in (pair, pair[::-1]) if f in fixed_side and m in moving_side]
            yield from ordered[:1]


def _check_scans(listing: Listing, path: Path) -> None:
    scans = listing.scans
    labels = [scan for scan in scans if scan.image.parent.name.lower().startswith("labels")]
    if labels:
        raise InputError(
            f"{path} lists {labels[0].image} as an image, expected images rather than labels; give the folder of the "
            "images"
        )
    files = [file for scan in scans for file in (scan.image, scan.labels) if file is not None]
    missing = [file for file in files if not file.exists()]
    if missing:
        raise InputError(
            f"{path} lists {missing[0]}, which does not exist ({len(missing)} of {len(files)} files are missing); "
            "download them, or correct the list"
        )
    if len(scans) < 2:
        raise InputError(
            f"got {path} with {len(scans)} {'scan' if len(scans) == 1 else 'scans'} ({listing.layout} layout), "
            "expected at least two; give the folder that holds the images, or a list of pairs"
        )


def _check_pairs(listing: Listing, path: Path, pairs: Pairs) -> None:
    own = [listing.scans[fixed] for fixed, moving in pairs if fixed == moving]
    if own:
        raise InputError(f"{path} pairs {own[0].image} with itself, expected two scans; remove that pair")
    if pairs:
        return
    if any(scan.patient for scan in listing.scans):
        cure = "choose another pairing, or list the pairs in a CSV"
    else:
        cure = "leave the pairing at auto, since the patients are unknown"
    raise InputError(f"no pair can be made from {path}, expected two matching scans; {cure}")
