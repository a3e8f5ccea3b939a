"""Pairs from every kind of list."""

import json
from pathlib import Path

import pytest

from corereg.data.phantom import write_cohort
from corereg.errors import InputError
from corereg.workflows.batch.pairs import Pair, known_label_names, pair_source
from helpers.batches import as_csv, scans


def names(source) -> list[str]:
    return [pair.name for pair in source()]


def test_csv_gives_files_relative_to_it_and_settings_of_each_pair(tmp_path: Path) -> None:
    path = as_csv(tmp_path / "pairs.csv", ["a"], fixed_mask="../mask.nii", regularisation="5", symmetric="False")
    [pair] = pair_source(path)()
    assert pair.files() == {
        "fixed": tmp_path / "fixed.nii.gz",
        "moving": tmp_path / "moving.nii.gz",
        "fixed_mask": tmp_path.parent / "mask.nii",
    }
    assert pair.settings == {"regularisation": "5", "symmetric": False}


def test_json_lines_give_the_same_pairs_as_a_csv(tmp_path: Path) -> None:
    table = as_csv(tmp_path / "pairs.csv", ["a", "b"], moving_labels="labels.nii", seed="3")
    lines = tmp_path / "pairs.jsonl"
    rows = [
        {"fixed": "fixed.nii.gz", "moving": "moving.nii.gz", "name": n, "moving_labels": "labels.nii", "seed": "3"}
        for n in "ab"
    ]
    lines.write_text("\n\n".join(map(json.dumps, rows)))
    assert list(pair_source(lines)()) == list(pair_source(table)())
    (tmp_path / "pairs.json").write_text("\n" + json.dumps(rows, indent=1))
    assert list(pair_source(tmp_path / "pairs.json")()) == list(pair_source(table)())
    assert known_label_names(tmp_path / "pairs.json") == {}


def test_a_pair_without_a_name_is_named_after_its_scans() -> None:
    assert Pair(fixed=Path("a/f.nii.gz"), moving=Path("b/m.nrrd")).name == "f_m"


def test_key_changes_with_files_name_and_settings() -> None:
    pairs = [
        Pair(fixed=Path("f"), moving=Path("m")),
        Pair(fixed=Path("f"), moving=Path("m"), name="n"),
        Pair(fixed=Path("f"), moving=Path("n"), name="f_m"),
        Pair(fixed=Path("f"), moving=Path("m"), moving_mask=Path("n")),
        Pair(fixed=Path("f"), moving=Path("m"), settings={"seed": 1}),
    ]
    assert len({pair.key() for pair in pairs}) == len(pairs)
    assert pairs[0].key() == Pair(fixed=Path("f").absolute(), moving=Path("m").absolute(), name="f_m").key()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients to train on, a validation pair, two test pairs without labels."""
    path = write_cohort(tmp_path_factory.mktemp("data") / "cohort", subjects=4, spacing_mm=8.0)
    for file in (path.parent / "labelsTs").iterdir():
        file.unlink()
    return path


def test_learn2reg_data_set_gives_validation_and_test_pairs_or_one_of_the_splits(cohort: Path) -> None:
    training, validation, test = (names(pair_source(cohort, split=s)) for s in ("training", "validation", "test"))
    assert training == ["Phantom_0001_0000_Phantom_0002_0000"]
    assert validation == ["Phantom_0003_0000_Phantom_0004_0000"]
    assert test == ["Phantom_0003_0000_Phantom_0003_0001", "Phantom_0004_0000_Phantom_0004_0001"]
    assert names(pair_source(cohort)) == validation + test
    with pytest.raises(InputError, match="training, validation, test"):
        pair_source(cohort, split="val")


def test_pairs_of_a_data_set_have_the_labels_that_there_are(cohort: Path) -> None:
    labelled, *unlabelled = pair_source(cohort)()
    assert (labelled.fixed_labels or labelled.fixed).parent.name == "labelsTr"
    assert all(set(pair.files()) == {"fixed", "moving"} for pair in unlabelled)


def test_nnunet_data_set_gives_all_pairs(tmp_path: Path) -> None:
    scans(tmp_path / "imagesTr", [f"case{n}_0000" for n in range(4)])
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}))
    assert len(names(pair_source(tmp_path))) == 6


@pytest.mark.parametrize("kind", ["folder", "list"])
def test_every_scan_goes_onto_the_template_but_itself(tmp_path: Path, kind: str) -> None:
    files = scans(tmp_path / "scans", ["a", "b", "c"])
    given = tmp_path / "scans"
    if kind == "list":
        given = tmp_path / "scans.txt"
        given.write_text("".join(f"scans/{file.name}\n" for file in files))
    assert names(pair_source(given, all_to=files[1])) == ["b_a", "b_c"]
    assert names(pair_source(given, every_pair=True)) == ["a_b", "a_c", "b_c"]
    with pytest.raises(InputError, match="--all-to or --every-pair"):
        pair_source(given)


def test_a_stream_of_many_rows_is_read_one_by_one(tmp_path: Path) -> None:
    """A pair comes out before a mistake further down is seen."""
    path = as_csv(tmp_path / "pairs.csv", [f"p{n}" for n in range(50)])
    with path.open("a") as file:
        file.write("only_fixed.nii,,bad\n")
    stream = pair_source(path)()
    assert next(stream).name == "p0"
    with pytest.raises(InputError, match=r"pair 51 .* no moving"):
        list(stream)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fix,moving\na,b\n", "unknown column 'fix'"),
        ("fixed,moving,regularization\na,b,1\n", "regularization"),
        ("fixed\na\n", "no moving"),
    ],
)
def test_a_table_with_other_columns_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        list(pair_source(path)())


@pytest.mark.parametrize("line", ["[1]", "{", "3", "NaN"])
def test_a_line_that_is_no_object_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"fixed": "a", "moving": "b"}\n' + line)
    with pytest.raises(InputError, match="line 2"):
        list(pair_source(path)())


@pytest.mark.parametrize(("text", "words"), [("[1]", "entry 1"), ("[{", "no JSON")])
def test_a_list_of_other_things_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "pairs.json").write_text(text)
    with pytest.raises(InputError, match=words):
        list(pair_source(tmp_path / "pairs.json")())


def bids(folder: Path, *, sessions: int) -> Path:
    """Two subjects with T1w, T2w and a mask in each session."""
    for subject in ("01", "02"):
        for session in range(1, sessions + 1) if sessions else [0]:
            name = f"sub-{subject}" + (f"_ses-{session}" if sessions else "")
            where = folder / f"sub-{subject}" / (f"ses-{session}" if sessions else "") / "anat"
            scans(where, [f"{name}_T1w", f"{name}_run-1_T2w", f"{name}_desc-brain_mask"])
            (where / f"{name}_T1w.json").touch()
    return folder


def test_bids_sessions_of_a_subject_are_paired_scan_by_scan_the_earlier_one_fixed(tmp_path: Path) -> None:
    pairs = list(pair_source(bids(tmp_path / "study", sessions=3))())
    found = [(pair.fixed.name.removesuffix(".nii.gz"), pair.moving.name.removesuffix(".nii.gz")) for pair in pairs]
    assert set(found) == {
        (f"sub-{subject}_ses-{first}{kind}", f"sub-{subject}_ses-{second}{kind}")
        for subject in ("01", "02")
        for first, second in ((1, 2), (1, 3), (2, 3))
        for kind in ("_T1w", "_run-1_T2w")
    }
    assert len(found) == len(set(found))


def test_bids_subjects_are_registered_to_a_template(tmp_path: Path) -> None:
    study = bids(tmp_path / "study", sessions=0)
    with pytest.raises(InputError, match="--all-to or --every-pair"):
        pair_source(study)
    [template] = scans(tmp_path, ["mni"])
    assert set(names(pair_source(study, all_to=template))) == {
        f"mni_sub-{subject}{kind}" for subject in ("01", "02") for kind in ("_T1w", "_run-1_T2w")
    }


def test_a_bids_folder_without_scans_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study" / "sub-01" / "func").mkdir(parents=True)
    with pytest.raises(InputError, match=r"without scans.*sub-01/ses-1/anat"):
        pair_source(tmp_path / "study")


def test_test_images_of_nnunet_are_paired_without_labels(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "CT"}, "labels": {}, "file_ending": ".nii.gz"}')
    scans(tmp_path / "imagesTr", ["a_0000", "b_0000"])
    scans(tmp_path / "imagesTs", ["c_0000", "d_0000", "e_0000", "e_0001"])
    scans(tmp_path / "labelsTr", ["a", "b"])
    pairs = list(pair_source(tmp_path)())
    assert [pair.name for pair in pairs] == ["c_d", "c_e", "d_e"]
    assert not any(pair.moving_labels or pair.fixed_labels for pair in pairs)
    assert names(pair_source(tmp_path, split="training")) == ["a_b"]
