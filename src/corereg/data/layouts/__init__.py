"""From files on disk to scans, and which of them train and validate. One module per layout; no image is opened."""

import json
from pathlib import Path

from corereg.data.layouts.bids import is_bids, list_bids
from corereg.data.layouts.folder import list_folder
from corereg.data.layouts.learn2reg import list_learn2reg
from corereg.data.layouts.listing import Listing, Pairs, Scan, visible
from corereg.data.layouts.nnunet import list_nnunet
from corereg.data.layouts.pair_table import list_pair_table
from corereg.data.layouts.rad_chestct import has_patients, list_rad_chestct
from corereg.errors import InputError

__all__ = ["Listing", "Pairs", "Scan", "read_listing"]


def read_listing(path: Path, metadata: Path | None = None) -> Listing:
    """Detect the layout and read it.

    Args:
        path: a JSON, a CSV, or a folder.
        metadata: RAD-ChestCT's table of patients, if it is not in the folder.

    Raises:
        InputError: the layout is unknown, or a file does not follow its layout.
    """
    if path.is_file():
        if path.suffix.lower() == ".csv":
            return list_pair_table(path)
        if path.suffix.lower() == ".json":
            return _described_by_json(path)
        raise InputError(f"got the data set {path}, expected a folder, a dataset JSON or a CSV of pairs; give one")
    described = visible(path, "*_dataset.json") or visible(path, "dataset.json")
    if len(described) > 1:
        names = ", ".join(file.name for file in described)
        raise InputError(
            f"got {path} with several data sets ({names}), expected one; give the path of the JSON you want"
        )
    if described:
        return _described_by_json(described[0])
    if metadata is None:
        metadata = next(filter(has_patients, visible(path, "*.csv")), None)
    if metadata is not None:
        return list_rad_chestct(path, metadata)
    return list_bids(path) if is_bids(path) else list_folder(path)


def _described_by_json(path: Path) -> Listing:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(
            f"got {path}, expected a dataset JSON, but it is not valid JSON ({error}); repair it"
        ) from None
    keys = set(content) if isinstance(content, dict) else set()
    if keys & {"channel_names", "file_ending"}:
        return list_nnunet(path.parent, content)
    if keys & {"training", "registration_val"}:
        return list_learn2reg(path, content)
    raise InputError(
        f"got {path} without `training` or `registration_val` (Learn2Reg) and without `channel_names` or `file_ending` "
        "(nnU-Net), expected one of these layouts; correct it, or list the pairs in a CSV"
    )
