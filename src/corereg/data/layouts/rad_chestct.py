"""RAD-ChestCT: a folder of .npz volumes, and the table that says which patient each is of. Pairs are of one patient.

`read_image` reads the volumes: HU under the key `ct`, axes towards I, P and L, 0.8 mm; their origin is not published,
and the centre is taken as 0.
"""

from pathlib import Path

from corereg.data.layouts.listing import Listing, Scan, apart_from, read_table, visible
from corereg.errors import InputError

__all__ = ["has_patients", "list_rad_chestct"]

FILE, PATIENT = "VolumeAcc_DEID", "MRN_DEID"
"""Columns of `CT_Scan_Metadata_Complete_35747.csv`: file and patient."""
TRAINING, VALIDATION, TEST = "trn", "tst", "val"
"""Prefixes of file names by CoRe's split, whose test set is named val*."""


def has_patients(table: Path) -> bool:
    """Whether a CSV has the columns that pairing needs."""
    with open(table, encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    return FILE in header and PATIENT in header


def list_rad_chestct(folder: Path, metadata: Path) -> Listing:
    """Read a folder with its metadata; not all scans need to be there.

    Raises:
        InputError: the table lacks the columns.
    """
    rows = read_table(metadata)
    if not rows or not {FILE, PATIENT} <= set(rows[0]):
        found = ", ".join(rows[0]) if rows else "no rows"
        raise InputError(
            f"got the metadata {metadata} with {found}, expected the columns {FILE} and {PATIENT}; "
            "give CT_Scan_Metadata_Complete_35747.csv"
        )
    patients = {row[FILE]: row[PATIENT] or None for row in rows}
    present = {file.name for file in visible(folder, "*.npz")}
    names = sorted(present & set(patients))
    scans = tuple(Scan(name.removesuffix(".npz"), folder / name, patient=patients[name]) for name in names)
    prefixes = (TRAINING, VALIDATION, TEST)
    training, validation, test = (
        tuple(i for i, scan in enumerate(scans) if scan.name.startswith(prefix)) for prefix in prefixes
    )
    unnamed = len(scans) - len(training) - len(validation) - len(test)
    counts = {
        "scans of the metadata have no file here": len(set(patients) - present),
        "files are not in the metadata and were left out": len(present - set(patients)),
        f"scans are named none of {', '.join(f'{prefix}*' for prefix in prefixes)} and are in no pair": unnamed,
    }
    return Listing(
        name=folder.resolve().name,
        layout="rad-chestct",
        scans=scans,
        training=apart_from((scan for i, scan in enumerate(scans) if i not in set(training)), scans, training),
        validation=validation,
        test=test,
        pairing="intra",
        label_names={},
        notes=tuple(f"{count} {what}" for what, count in counts.items() if count),
    )
