"""The page of a batch."""

import json
from pathlib import Path

from corereg.workflows.batch.page import write_page


def test_dice_without_registration_is_shown_and_not_that_after_the_pre_alignment(tmp_path: Path) -> None:
    row = {"name": "a", "fixed": "f.nii.gz", "moving": "m.nii.gz", "status": "ok", "key": "k"}
    row |= {"dice": 0.9125, "dice_before": 0.7125, "dice_unregistered": 0.3125}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    write_page(tmp_path, tmp_path / "rows.jsonl", "corereg batch")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Dice unregistered" in page
    assert "0.312" in page
    assert "0.713" not in page
    assert "0.712" not in page
