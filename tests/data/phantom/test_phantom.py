"""Phantom subjects: a torso must look like one."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from corereg.data.phantom import LABELS, make_breathing_pair, make_subject
from corereg.errors import InputError
from helpers.phantoms import COARSE_MM, Subject, body, subject_of

TOUCHING = np.ones((3, 3, 3))


def centroid_mm(subject: Subject, name: str, kind: str) -> np.ndarray:
    _, labels, grid = subject
    return grid.to_world(np.argwhere(labels == LABELS[kind][name]).mean(0))


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


def test_noise_is_as_strong_as_asked_and_differs_between_the_two() -> None:
    clean, noisy = (make_breathing_pair(0, "chest", 8.0, noise_hu=noise) for noise in (0.0, 20.0))
    inside = body(clean.fixed) & body(clean.moving)
    fixed, moving = (noisy.fixed - clean.fixed)[inside], (noisy.moving - clean.moving)[inside]
    assert_allclose([fixed.std(), moving.std()], 20.0, rtol=0.05)
    assert abs(np.corrcoef(fixed, moving)[0, 1]) < 0.03


@pytest.mark.parametrize("make", [make_subject, make_breathing_pair])
def test_subjects_and_pairs_refuse_bad_arguments_too(make: object) -> None:
    assert callable(make)
    for wrong in ({"kind": "knee"}, {"spacing_mm": 0.9}, {"noise_hu": -1.0}, {"noise_hu": float("nan")}):
        with pytest.raises(InputError, match="expected"):
            make(0, **wrong)
    with pytest.raises(InputError, match="seed -3"):
        make(-3)
