"""Names of structures, in the forms that people have them in."""

import json
from pathlib import Path

import pytest

from corereg.data.label_names import read_label_names
from corereg.errors import InputError


@pytest.mark.parametrize(
    "content",
    [
        {"0": "background", "1": "liver", "7": "spleen"},
        {"background": 0, "liver": 1, "spleen": 7},
        {"name": "Task", "labels": {"0": {"0": "background", "1": "liver"}, "1": {"7": "spleen"}}},
        {"channel_names": {"0": "CT"}, "labels": {"liver": 1, "spleen": 7, "both": [1, 7]}},
    ],
    ids=["numbers first", "names first", "Learn2Reg", "nnU-Net"],
)
def test_all_forms_give_the_same_names(tmp_path: Path, content: object) -> None:
    (tmp_path / "names.json").write_text(json.dumps(content))
    assert read_label_names(tmp_path / "names.json") == {1: "liver", 7: "spleen"}


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"liver": "one"}', "3"])
def test_other_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(InputError, match=r"names\.json"):
        read_label_names(tmp_path / "names.json")
