"""The phantom: known truth must be true, and a torso must look like one."""

import hashlib
import json
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from corereg.data.phantom import LABELS, BreathingPair, make_breathing_pair, make_subject, write_cohort
from corereg.errors import InputError
from corereg.geometry.grid import Grid

KINDS = ["abdomen", "chest"]
COARSE_MM = 5.0
DEFAULT_MM = 3.0
BODY_HU = -300.0
TOUCHING = np.ones((3, 3, 3))

Subject = tuple[np.ndarray, np.ndarray, Grid]


@cache
def subject_of(seed: int, kind: str) -> Subject:
    return make_subject(seed, kind, COARSE_MM)


@cache
def pair_of(kind: str) -> BreathingPair:
    return make_breathing_pair(0, kind, COARSE_MM, noise_hu=0.0)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def subjects(kind: str) -> list[Subject]:
    return [subject_of(seed, kind) for seed in range(3)]


@pytest.fixture
def pair(kind: str) -> BreathingPair:
    return pair_of(kind)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("phantom") / "cohort", subjects=3, spacing_mm=8.0, seed=4)


@pytest.fixture(scope="module")
def second_cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, int]]]:
    """The same again, into a folder that is there and empty; and what it reported on the way."""
    seen: list[tuple[int, int]] = []
    folder = tmp_path_factory.mktemp("again")
    path = write_cohort(
        folder, subjects=3, spacing_mm=8.0, seed=4, progress=lambda done, total: seen.append((done, total))
    )
    return path, seen


def centroid_mm(subject: Subject, name: str, kind: str) -> np.ndarray:
    _, labels, grid = subject
    return grid.to_world(np.argwhere(labels == LABELS[kind][name]).mean(0))


def body(image: np.ndarray) -> np.ndarray:
    """Largest soft tissue part, lungs and gas filled."""
    parts, _ = ndimage.label(image > BODY_HU)
    trunk = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return np.stack([ndimage.binary_fill_holes(trunk[:, :, k]) for k in range(trunk.shape[2])], -1)


def coords_of(pair: BreathingPair) -> np.ndarray:
    return np.indices(pair.grid.shape) + pair.disp_vox


def inside_moving(pair: BreathingPair) -> np.ndarray:
    """Fixed voxels of the body whose counterpart lies in the moving image."""
    last = np.array(pair.grid.shape)[:, None, None, None] - 1
    coords = coords_of(pair)
    return body(pair.fixed) & (coords >= 0).all(0) & (coords <= last).all(0)


def test_same_seed_gives_the_same_subject() -> None:
    first, again = subject_of(1, "chest"), make_subject(1, "chest", COARSE_MM)
    assert_array_equal(first[0], again[0])
    assert_array_equal(first[1], again[1])
    assert first[2] == again[2]


def test_different_seeds_give_different_bodies(subjects: list[Subject]) -> None:
    for first, second in ((0, 1), (0, 2), (1, 2)):
        a, b = subjects[first][1] > 0, subjects[second][1] > 0
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) < 0.95


def test_every_label_is_present(subjects: list[Subject], kind: str) -> None:
    for _, labels, _ in subjects:
        assert_array_equal(np.unique(labels), [0, *sorted(LABELS[kind].values())])


def test_abdomen_has_the_organs_of_learn2reg() -> None:
    expected = {1: "spleen", 2: "right kidney", 3: "left kidney", 4: "gall bladder", 5: "oesophagus", 6: "liver"}
    expected |= {7: "stomach", 8: "aorta", 9: "inferior vena cava", 10: "portal and splenic vein", 11: "pancreas"}
    numbers = {number: name for name, number in LABELS["abdomen"].items()}
    assert len(numbers) == 13
    assert expected.items() <= numbers.items()


def test_every_organ_is_one_piece(subjects: list[Subject], kind: str) -> None:
    for _, labels, _ in subjects:
        for name in LABELS[kind].keys() - {"ribs"}:
            _, pieces = ndimage.label(labels == LABELS[kind][name], TOUCHING)
            assert pieces == 1, name


def test_image_holds_whole_hu_in_float32(subjects: list[Subject]) -> None:
    image, labels, _ = subjects[0]
    assert image.dtype == np.float32
    assert labels.dtype == np.uint8
    assert_array_equal(image, np.round(image))
    assert image.min() >= -1024
    assert image.max() <= 3071


@pytest.mark.parametrize(
    ("name", "where", "hu"),
    [
        ("liver", "abdomen", 110),
        ("spleen", "abdomen", 120),
        ("right kidney", "abdomen", 180),
        ("aorta", "abdomen", 165),
        ("gall bladder", "abdomen", 15),
        ("left lung", "chest", -840),
        ("heart", "chest", 130),
    ],
)
def test_organs_have_their_contrast(name: str, where: str, hu: float) -> None:
    image, labels, _ = subject_of(0, where)
    core = ndimage.binary_erosion(labels == LABELS[where][name])
    assert abs(np.median(image[core]) - hu) < 25


def test_air_surrounds_the_body(subjects: list[Subject]) -> None:
    image, _, _ = subjects[0]
    assert abs(image[0].mean() + 1000) < 5
    assert 0.25 < body(image).mean() < 0.75


def test_grid_is_no_cube_and_keeps_its_field_of_view(kind: str) -> None:
    grids = [subject_of(0, kind)[2], make_subject(0, kind, 8.0)[2]]
    for grid in grids:
        assert grid.orientation == "RAS"
        assert len(set(grid.shape)) == 3
    assert_allclose(grids[0].corners_mm(), grids[1].corners_mm(), atol=8.0)


def test_abdominal_organs_lie_on_their_sides() -> None:
    subject = subject_of(1, "abdomen")
    at = {name: centroid_mm(subject, name, "abdomen") for name in LABELS["abdomen"]}
    assert at["liver"][0] > 40
    assert at["spleen"][0] < -40
    assert at["right kidney"][0] > 40
    assert at["left kidney"][0] < -40
    assert at["right adrenal gland"][0] > 0 > at["left adrenal gland"][0]
    assert at["inferior vena cava"][0] > at["aorta"][0]
    assert at["stomach"][1] > at["right kidney"][1] + 40
    assert at["liver"][2] > at["right kidney"][2] + 20


def test_chest_organs_lie_on_their_sides() -> None:
    subject = subject_of(1, "chest")
    at = {name: centroid_mm(subject, name, "chest") for name in LABELS["chest"]}
    assert at["right lung"][0] > 40 > -40 > at["left lung"][0]
    assert at["heart"][0] < at["spine"][0] - 5
    assert at["liver"][0] > 20
    assert at["spine"][1] < at["heart"][1] - 50 < at["sternum"][1] - 50
    assert at["trachea"][2] > at["heart"][2] > at["liver"][2]


def test_moving_at_x_plus_u_is_fixed(pair: BreathingPair) -> None:
    """Within interpolation error: the pair itself is not interpolated, the check is."""
    where = inside_moving(pair)
    errors = {}
    for name, coords in (("none", np.indices(pair.grid.shape)), ("u", coords_of(pair))):
        resampled = ndimage.map_coordinates(pair.moving, coords, order=3, mode="nearest")
        errors[name] = np.abs(resampled - pair.fixed)[where]
    assert errors["u"].mean() < 0.15 * errors["none"].mean()
    assert np.median(errors["u"]) < 8
    assert errors["none"].mean() > 80


def test_moving_labels_at_x_plus_u_are_the_fixed_labels(pair: BreathingPair, kind: str) -> None:
    resampled = ndimage.map_coordinates(pair.moving_labels, coords_of(pair), order=0)
    where = inside_moving(pair)
    for name in ("liver", "aorta"):
        a, b = (labels[where] == LABELS[kind][name] for labels in (resampled, pair.fixed_labels))
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9


def test_known_field_does_not_fold(pair: BreathingPair) -> None:
    jacobian = np.stack([np.stack(np.gradient(axis)) for axis in coords_of(pair)])
    assert np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1))).min() > 0.2


def test_breathing_moves_the_body_by_three_voxels_on_average(pair: BreathingPair) -> None:
    length_mm = COARSE_MM * np.linalg.norm(pair.disp_vox, axis=0)[body(pair.fixed)]
    assert 3 * DEFAULT_MM <= length_mm.mean() < 6 * DEFAULT_MM
    assert 20 < length_mm.max() < 35


def test_breathing_in_lowers_the_liver_and_raises_the_front(pair: BreathingPair, kind: str) -> None:
    liver = pair.fixed_labels == LABELS[kind]["liver"]
    assert COARSE_MM * pair.disp_vox[2][liver].mean() < -10
    trunk = np.argwhere(body(pair.fixed))
    front = trunk[trunk[:, 1] > np.percentile(trunk[:, 1], 95)]
    assert COARSE_MM * pair.disp_vox[1][tuple(front.T)].mean() > 4


def test_breathing_leaves_the_spine_at_rest() -> None:
    pair = pair_of("chest")
    spine = pair.fixed_labels == LABELS["chest"]["spine"]
    assert COARSE_MM * np.linalg.norm(pair.disp_vox, axis=0)[spine].mean() < 1.5


def test_moving_is_the_subject_of_the_same_seed(pair: BreathingPair, kind: str) -> None:
    image, labels, grid = make_subject(0, kind, COARSE_MM, noise_hu=0.0)
    assert_array_equal(pair.moving, image)
    assert_array_equal(pair.moving_labels, labels)
    assert pair.grid == grid


def test_noise_is_as_strong_as_asked_and_differs_between_the_two() -> None:
    clean, noisy = (make_breathing_pair(0, "chest", 8.0, noise_hu=noise) for noise in (0.0, 20.0))
    inside = body(clean.fixed) & body(clean.moving)
    fixed, moving = (noisy.fixed - clean.fixed)[inside], (noisy.moving - clean.moving)[inside]
    assert_allclose([fixed.std(), moving.std()], 20.0, rtol=0.05)
    assert abs(np.corrcoef(fixed, moving)[0, 1]) < 0.03


def digests(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_cohort_has_the_same_bytes(cohort: Path, second_cohort: tuple[Path, list[tuple[int, int]]]) -> None:
    assert digests(second_cohort[0].parent) == digests(cohort.parent)


def test_progress_counts_to_the_end(second_cohort: tuple[Path, list[tuple[int, int]]]) -> None:
    assert second_cohort[1] == [(done, 5) for done in range(1, 6)]


def test_no_scan_of_a_cohort_is_there_twice(cohort: Path) -> None:
    scans = [digest for name, digest in digests(cohort.parent).items() if name.startswith("images")]
    assert len(set(scans)) == len(scans) == 7


def test_dataset_json_lists_what_is_there(cohort: Path) -> None:
    content = json.loads(cohort.read_text())
    assert cohort.name == "Phantom_dataset.json"
    assert content["numTraining"] == len(content["training"]) == 3
    assert content["numTest"] == len(content["test"]) == 4
    for name in ("registration_val", "registration_test"):
        assert content["num" + name.capitalize()] == len(content[name])
    assert [Path(pair["moving"]).name for pair in content["registration_val"]] == ["Phantom_0003_0000.nii.gz"]
    listed = {path for key in ("training", "test") for entry in content[key] for path in entry.values()}
    paired = {
        path for key in ("registration_val", "registration_test") for pair in content[key] for path in pair.values()
    }
    assert paired <= listed
    assert all((cohort.parent / path).is_file() and path.startswith("./") for path in listed)
    assert content["labels"]["0"] == {"0": "background"} | {str(n): name for name, n in LABELS["abdomen"].items()}


def test_cohort_files_open_and_agree(cohort: Path) -> None:
    content = json.loads(cohort.read_text())
    for entry in content["training"] + content["test"]:
        image, label = (nibabel.load(cohort.parent / entry[key]) for key in ("image", "label"))
        assert list(image.shape) == list(label.shape) == content["tensorImageShape"]["0"]
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        assert_array_equal(image.affine, label.affine)
        assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")


def test_cohort_fields_are_those_of_its_pairs(cohort: Path) -> None:
    fields = sorted((cohort.parent / "fieldsTs").iterdir())
    assert [path.name for path in fields] == ["disp_0002_0000_0002_0001.nii.gz", "disp_0003_0000_0003_0001.nii.gz"]
    field = nibabel.load(fields[0])
    assert field.get_data_dtype() == np.float32
    assert_array_equal(field.affine, np.eye(4))
    assert int(field.header["sform_code"]) == 2
    assert int(field.header["intent_code"]) == 0
    disp_vox = np.asarray(field.dataobj)
    fixed, moving = (
        np.asarray(nibabel.load(cohort.parent / f"imagesTs/Phantom_0002_{phase}.nii.gz").dataobj, np.float32)
        for phase in ("0000", "0001")
    )
    assert disp_vox.shape == (*fixed.shape, 3)
    coords = np.indices(fixed.shape) + np.moveaxis(disp_vox, -1, 0)
    inside = body(fixed)
    after = np.abs(ndimage.map_coordinates(moving, coords, order=1, mode="nearest") - fixed)[inside].mean()
    assert after < 0.4 * np.abs(moving - fixed)[inside].mean()


def test_interrupted_cohort_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cohort(tmp_path / "out", subjects=2, spacing_mm=8.0, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"subjects": 1}, "1 phantom subjects"),
        ({"subjects": 10_000}, "10000 phantom subjects"),
        ({"kind": "knee"}, "'knee'"),
        ({"spacing_mm": 0.5}, "0.5 mm"),
        ({"spacing_mm": 9.0}, "9.0 mm"),
        ({"spacing_mm": float("nan")}, "nan mm"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(tmp_path: Path, wrong: dict, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        write_cohort(tmp_path / "out", **wrong)
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [make_subject, make_breathing_pair])
def test_subjects_and_pairs_refuse_bad_arguments_too(make: object) -> None:
    assert callable(make)
    for wrong in ({"kind": "knee"}, {"spacing_mm": 0.9}, {"noise_hu": -1.0}, {"noise_hu": float("nan")}):
        with pytest.raises(InputError, match="expected"):
            make(0, **wrong)
    with pytest.raises(InputError, match="seed -3"):
        make(-3)


def test_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(InputError, match="not empty"):
        write_cohort(tmp_path, subjects=2, spacing_mm=8.0)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data")
    with pytest.raises(InputError, match="is a file"):
        write_cohort(tmp_path / "file", subjects=2, spacing_mm=8.0)
    with pytest.raises(InputError, match="cannot be made"):
        write_cohort(tmp_path / "file" / "below", subjects=2, spacing_mm=8.0)
