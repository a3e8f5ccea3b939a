"""RAD-ChestCT: a folder of .npz volumes, and the table that tells whose they are. Pairs are of one patient.

`read_image` knows the volumes: HU under the key `ct`, axes to I, P, L, 0.8 mm; their origin is not
published, and 0 is put at the centre.
"""

from pathlib import Path

from corereg.data.layouts.listing import Listing, Scan, apart_from, read_table
from corereg.errors import InputError

__all__ = ["has_patients", "list_rad_chestct"]

FILE, PATIENT = "VolumeAcc_DEID", "MRN_DEID"
"""Columns of `CT_Scan_Metadata_Complete_35747.csv`."""
TRAINING, VALIDATION = "trn", "tst"
"""Prefixes of file names, as CoRe splits the scans: what is named val* is its test set."""


def has_patients(table: Path) -> bool:
    """Whether a CSV has the columns by which scans are paired."""
    with open(table, encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    return FILE in header and PATIENT in header


def list_rad_chestct(folder: Path, metadata: Path) -> Listing:
    """Read a folder by its metadata; a part of the scans is enough.

    Raises:
        InputError: a table without the columns.
    """
    rows = read_table(metadata)
    if not rows or not {FILE, PATIENT} <= set(rows[0]):
        found = ", ".join(rows[0]) if rows else "no rows"
        raise InputError(
            f"got the metadata {metadata} with {found}, expected the columns {FILE} and {PATIENT}; "
            "give CT_Scan_Metadata_Complete_35747.csv"
        )
    patients = {row[FILE]: row[PATIENT] or None for row in rows}
    there = {file.name for file in folder.glob("*.npz")}
    names = sorted(there & set(patients))
    scans = tuple(Scan(name.removesuffix(".npz"), folder / name, patient=patients[name]) for name in names)
    training, validation = (
        tuple(i for i, scan in enumerate(scans) if scan.name.startswith(prefix)) for prefix in (TRAINING, VALIDATION)
    )
    counts = {
        "scans of the metadata have no file here": len(set(patients) - there),
        "files are not in the metadata and left out": len(there - set(patients)),
        f"scans are named neither {TRAINING}* nor {VALIDATION}* and in no pair": len(scans)
        - len(training)
        - len(validation),
    }
    return Listing(
        name=folder.resolve().name,
        layout="rad-chestct",
        scans=scans,
        training=apart_from((scan for i, scan in enumerate(scans) if i not in set(training)), scans, training),
        validation=validation,
        pairing="intra",
        label_names={},
        notes=tuple(f"{count} {what}" for what, count in counts.items() if count),
    )
