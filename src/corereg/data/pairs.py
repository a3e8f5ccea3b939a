"""A data set: scans, and the pairs of them to train and to validate on."""

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
    """Scans and pairs. Images are not opened; training never needs the labels."""

    name: str
    layout: str
    """"learn2reg", "nnunet", "rad-chestct", "folder" or "csv"."""
    scans: tuple[Scan, ...]
    training: Pairs
    """(fixed, moving), indices of `scans`."""
    validation: Pairs
    label_names: Mapping[int, str]
    intra_patient: bool
    """Whether every pair is known to be of one patient."""
    notes: tuple[str, ...] = ()
    """What was left out, a line each."""


def read_dataset(path: str | Path, *, pairing: str = "auto", metadata: Path | None = None) -> Dataset:
    """Read a data set of any layout: Learn2Reg, nnU-Net raw, RAD-ChestCT, a folder of images, a CSV of pairs.

    Args:
        path: the dataset JSON, the CSV, or a folder.
        pairing: training pairs: "auto", those that the layout lists or is for; "inter", all pairs of different
            patients; "intra", all pairs of the same one. Scans whose patient is unknown count as different. Pairs that
            are made are unordered: (i, j) with i < j and not (j, i). Validation pairs that are listed stay.
        metadata: RAD-ChestCT's table of patients, where it is not in the folder.

    Raises:
        InputError: nothing there, an unknown layout, missing files, labels in place of images, fewer than two scans, a
            pair of a scan with itself, or no pair at all.
    """
    path = Path(path)
    if pairing not in PAIRINGS:
        raise InputError(f"got the pairing {pairing!r}, expected one of {', '.join(PAIRINGS)}; correct it")
    if not path.exists():
        raise InputError(
            f"got the data set {path}, which does not exist, expected a folder, a dataset JSON or a CSV of pairs; "
            "check the path"
        )
    listing = read_listing(path, metadata)
    _check_scans(listing, path)
    training, validation = listing.training_pairs, listing.validation_pairs
    if training is None or pairing != "auto":
        training = tuple(_made_pairs(listing, listing.training, pairing))
    if validation is None:
        validation = tuple(_made_pairs(listing, listing.validation, pairing))
    _check_pairs(listing, path, training + validation)
    return Dataset(
        name=listing.name,
        layout=listing.layout,
        scans=listing.scans,
        training=training,
        validation=validation,
        label_names=listing.label_names,
        intra_patient=all(_same_patient(listing, pair) for pair in training + validation),
        notes=listing.notes,
    )


def _same_patient(listing: Listing, pair: tuple[int, int]) -> bool:
    fixed, moving = (listing.scans[i].patient for i in pair)
    return fixed is not None and fixed == moving


def _made_pairs(listing: Listing, members: Collection[int], pairing: str) -> Iterator[tuple[int, int]]:
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
            f"got {path}, in which {labels[0].image} is listed as an image, expected images and not labels; "
            "give the folder of the images"
        )
    files = [file for scan in scans for file in (scan.image, scan.labels) if file is not None]
    missing = [file for file in files if not file.exists()]
    if missing:
        raise InputError(
            f"got {path}, which lists {missing[0]}, expected that it exists ({len(missing)} of {len(files)} files do "
            "not); download them, or correct the list"
        )
    if len(scans) < 2:
        raise InputError(
            f"got {path} with {len(scans)} {'scan' if len(scans) == 1 else 'scans'} ({listing.layout} layout), "
            "expected at least two; give the folder in which the images lie, or a list of pairs"
        )


def _check_pairs(listing: Listing, path: Path, pairs: Pairs) -> None:
    own = [listing.scans[fixed] for fixed, moving in pairs if fixed == moving]
    if own:
        raise InputError(f"got {path}, which pairs {own[0].image} with itself, expected two scans; remove that pair")
    if pairs:
        return
    if any(scan.patient for scan in listing.scans):
        cure = "choose another pairing, or list the pairs in a CSV"
    else:
        cure = "leave the pairing at auto: the patients are not known"
    raise InputError(f"got {path}, of which no pair can be made, expected two scans that fit; {cure}")
