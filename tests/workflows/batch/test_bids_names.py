"""Outputs under the names of a BIDS derivative data set."""

import json
import os
from pathlib import Path

import pytest

from corereg.data.layouts.bids import entities_of
from corereg.errors import InputError
from corereg.workflows.batch.bids_names import bids_names
from corereg.workflows.batch.run import batch
from helpers.batches import STUB, as_csv, scans


def test_sessions_and_templates_are_named_in_letters_and_digits() -> None:
    moving = Path("sub-01/ses-02/anat/sub-01_ses-02_run-1_T1w.nii.gz")
    longitudinal = bids_names(Path("sub-01/ses-01/anat/sub-01_ses-01_T1w.nii.gz"), moving)
    folder = Path("sub-01/ses-02/anat")
    assert longitudinal["warped.nii.gz"] == folder / "sub-01_ses-02_run-1_space-ses01T1w_desc-registered_T1w.nii.gz"
    assert longitudinal["transform.h5"] == folder / "sub-01_ses-02_run-1_from-ses02T1w_to-ses01T1w_mode-image_xfm.h5"
    to_template = bids_names(Path("MNI152 (sym).nii.gz"), moving)
    assert to_template["transform.nii.gz"].name == "sub-01_ses-02_run-1_from-T1w_to-MNI152sym_mode-image_xfm.nii.gz"
    assert (
        to_template["inverse_transform.nii.gz"].name
        == "sub-01_ses-02_run-1_from-MNI152sym_to-T1w_mode-image_xfm.nii.gz"
    )
    for found in (longitudinal, to_template):
        assert len(set(found.values())) == len(found)
        assert all(entities_of(place.name.split(".")[0]) is not None for place in found.values())


def test_a_batch_links_its_outputs_and_describes_them(tmp_path: Path) -> None:
    scans(tmp_path / "sub-7" / "anat", ["sub-7_T1w", "sub-7_T2w"])
    scans(tmp_path, ["mni"])
    out = tmp_path / "out"
    for _ in range(2):  # a second run finds everything there
        batch(tmp_path, out, all_to=tmp_path / "mni.nii.gz", bids_names=True, method=STUB, page=False)
        made = out / "bids" / "sub-7" / "anat" / "sub-7_space-mni_desc-registered_T1w.json"
        assert os.path.samefile(made, out / "mni_sub-7_T1w" / "result.json")
        assert len(list((out / "bids").rglob("*.json"))) == 3
        description = json.loads((out / "bids" / "dataset_description.json").read_text("utf-8"))
        assert (description["DatasetType"], description["GeneratedBy"][0]["Name"]) == ("derivative", "corereg")


def test_scans_of_other_names_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    pairs = as_csv(tmp_path / "pairs.csv", ["a"])
    with pytest.raises(InputError, match=r"moving\.nii\.gz, expected a name such as sub-01"):
        batch(pairs, tmp_path / "out", bids_names=True, method=STUB, page=False)
    assert not (tmp_path / "out").exists()
