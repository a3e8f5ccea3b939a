"""Slices of Figure 3 against volumes whose warp is known."""

from pathlib import Path

import numpy as np
import pytest

from corereg.data.layouts.listing import Scan
from corereg.evaluation.cases import Case, Cases
from corereg.io.images.image import write_image
from corereg.io.transforms.formats.learn2reg import write_disp_vox
from corereg.workflows.reproduce.pictures import _Slice, draw_pair, shown_cases
from helpers.grids import ORIENTATIONS, make_grid

SHAPE = (14, 18, 22)


@pytest.mark.parametrize("orientation", [o for o in ORIENTATIONS if o != "oblique"])
def test_rows_run_to_the_head_and_columns_to_the_patients_left(orientation: str) -> None:
    grid = make_grid(SHAPE, orientation=orientation)
    world = grid.to_world(np.moveaxis(np.indices(SHAPE), 0, -1).reshape(-1, 3)).reshape(*SHAPE, 3)
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:9, 3:12, 8:20] = 1
    shown = _Slice(grid, labels)
    right, anterior, superior = (shown.of(world[..., axis]) for axis in range(3))
    assert np.ptp(anterior) < 1e-9
    assert (np.diff(superior, axis=0) > 0).all()
    assert (np.diff(right, axis=1) < 0).all()
    middle = world[labels > 0][:, 1].mean()
    assert abs(anterior.mean() - middle) <= grid.spacing[shown.across] / 2 + 1e-9


def test_a_warped_slice_is_the_slice_of_the_shifted_volume() -> None:
    grid, rng = make_grid(SHAPE), np.random.default_rng(0)
    image, labels = rng.normal(size=SHAPE).astype(np.float32), rng.integers(0, 3, SHAPE).astype(np.uint8)
    shift = np.float32([2, 0, -3]).reshape(3, 1, 1, 1) * np.ones((3, *SHAPE), np.float32)
    shown = _Slice(grid, np.zeros(SHAPE))
    warped, numbers = shown.warped(image, labels, shift)
    moved = [np.roll(volume, (-2, 0, 3), (0, 1, 2)) for volume in (image, labels)]
    inner = np.zeros(SHAPE, bool)
    inner[:-2, :, 3:] = True
    inside = shown.of(inner)
    np.testing.assert_allclose(warped[inside], shown.of(moved[0])[inside], rtol=1e-5)
    np.testing.assert_array_equal(numbers[inside], shown.of(moved[1])[inside])


def pair(number: int) -> Case:
    return Case(Scan(f"f{number}", Path("f")), Scan(f"m{number}", Path("m")))


@pytest.mark.parametrize(("count", "shown"), [(45, [0, 22, 44]), (3, [0, 1, 2]), (2, [0, 1]), (1, [0])])
def test_the_first_the_middle_and_the_last_pair_are_shown(count: int, shown: list[int]) -> None:
    cases = Cases("Made", "test", tuple(pair(n) for n in range(count)), {})
    assert [case.fixed.name for case in shown_cases(cases)] == [f"f{n}" for n in shown]


def test_a_picture_is_drawn_the_same_every_time(tmp_path: Path) -> None:
    grid, rng = make_grid(SHAPE, orientation="LPS"), np.random.default_rng(1)
    scans = []
    for name in ("fixed", "moving"):
        labels = np.zeros(SHAPE, np.uint8)
        labels[3:9, 4:12, 5:15] = 1 + (name == "moving")
        write_image(tmp_path / f"{name}.nii.gz", rng.normal(0, 80, SHAPE).astype(np.float32), grid)
        write_image(tmp_path / f"{name}_labels.nii.gz", labels, grid)
        scans.append(Scan(name, tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_labels.nii.gz"))
    write_disp_vox(tmp_path / "field.nii.gz", np.ones((3, *SHAPE), np.float32))
    for file in ("a.png", "b.png"):
        draw_pair(tmp_path / file, Case(*scans), {"ours": tmp_path / "field.nii.gz"})
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
