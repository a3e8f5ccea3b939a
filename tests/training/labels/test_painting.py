"""Label maps painted as scans in contrasts of their own."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from corereg.method.features.label_network import LabelNetwork
from corereg.method.features.model_file import load_model, read_card
from corereg.training.labels.painting import in_thick_slices, painted
from corereg.training.train import MODEL
from helpers.refusals import refusal
from helpers.training import rows_of, run

SHAPE = (40, 28, 36)


def layers(first: int) -> torch.Tensor:
    """Oblique layers of five labels, the lowest `first`."""
    i, j, k = torch.meshgrid(*(torch.arange(n) for n in SHAPE), indexing="ij")
    return (first + (i + j // 2 + k // 3) // 13).clamp(max=first + 4).to(torch.int16)


def painting(image: torch.Tensor | None, classes: torch.Tensor, seed: int) -> torch.Tensor:
    return painted(image, classes, generator=torch.Generator().manual_seed(seed), count=6)[0, 0]


def noise(seed: int) -> torch.Tensor:
    return torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(seed))


def test_a_map_without_background_is_painted_alike_whatever_the_scan():
    classes = layers(1)
    first, other, again = (painting(noise(n), classes, seed) for n, seed in ((0, 0), (1, 0), (0, 1)))
    assert torch.equal(first, other)
    assert not torch.equal(first, again)


def test_each_structure_has_a_grey_of_its_own_and_no_grey_belongs_to_a_structure():
    classes = layers(1)
    greys = torch.stack(
        [
            torch.stack([painting(noise(0), classes, seed)[classes == label].mean() for label in range(1, 6)])
            for seed in range(60)
        ]
    )
    # Between contrasts a structure is anything from black to white; its place among the others is any.
    assert (greys.std(0) > 0.15).all()
    brightest = torch.bincount(greys.argmax(1), minlength=5)
    assert (brightest > 3).all()


def test_what_lies_in_no_structure_keeps_the_pattern_of_the_scan():
    smooth = torch.linspace(0, 9, SHAPE[2]).sin().expand(1, 1, *SHAPE).contiguous()
    classes = layers(-2)
    outside = classes <= 0
    agreement = [
        abs(float(torch.corrcoef(torch.stack([painting(smooth, classes, seed)[outside], smooth[0, 0][outside]]))[0, 1]))
        for seed in range(10)
    ]
    assert min(agreement) > 0.5
    assert sum(agreement) / len(agreement) > 0.8


def test_air_around_a_map_without_a_scan_is_even_and_mostly_black():
    classes = layers(-2)
    # Away from borders, which are blurred.
    outside = -torch.nn.functional.max_pool3d((classes > 0).float()[None], 7, 1, 3)[0] >= 0
    air = [painting(None, classes, seed)[outside] for seed in range(40)]
    black = [float(values.mean()) < -0.25 for values in air]
    assert 0.6 < sum(black) / len(black) < 1


def test_some_scans_show_a_few_tissues_only():
    classes = layers(1)
    contrasts = []
    for seed in range(40):
        scan = painting(None, classes, seed)
        greys = torch.stack([scan[classes == label].mean() for label in range(1, 6)])
        contrasts.append(float((greys[:, None] - greys).abs()[~torch.eye(5, dtype=torch.bool)].min()))
    alike = sum(contrast < 0.02 for contrast in contrasts)
    assert 5 < alike < 35


@pytest.mark.parametrize("most", [1.5, 6.0])
def test_thick_slices_lose_detail_along_one_axis_alone(most: float):
    scan = noise(3)
    seen = in_thick_slices(scan, most, generator=torch.Generator().manual_seed(5))
    assert seen.shape == scan.shape
    steps = [float(seen.diff(dim=axis).std() / scan.diff(dim=axis).std()) for axis in (2, 3, 4)]
    assert sorted(steps)[0] < 0.8 * sorted(steps)[1]
    assert float(seen.mean()) == pytest.approx(float(scan.mean()), abs=0.02)


@pytest.fixture
def maps(cohort_json: Path, tmp_path: Path) -> Path:
    """A folder of label maps and nothing else."""
    return Path(shutil.copytree(cohort_json.parent / "labelsTr", tmp_path / "maps"))


def test_label_maps_alone_train_a_network(maps: Path, tmp_path: Path):
    settings: dict[str, Any] = {"labels__painted": 1.0, "cycles": 1, "labels__channels": [8, 16], "labels__crop": 32}
    lines: list[str] = []
    settings |= {"labels": maps, "log": lines.append, "validation_pairs": 3}
    run(maps, tmp_path / "run", tmp_path / "cache", steps_per_cycle=40, learning_rate=0.01, **settings)
    assert any("label maps without scans are not measured" in line for line in lines)
    network, card = load_model(tmp_path / "run" / MODEL), read_card(tmp_path / "run" / MODEL)
    assert isinstance(network, LabelNetwork)
    assert (network.config.labels, card["data"]["labelled_scans"]) == ((1, 2), 5)
    losses = [row["loss"] for row in rows_of(tmp_path / "run") if "loss" in row]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_label_maps_in_place_of_scans_are_refused_unless_all_views_are_painted(maps: Path, tmp_path: Path):
    options = {"labels": maps, "cycles": 1}
    for painted_share in (0.0, 0.5):
        message = refusal(run, maps, tmp_path / "run", tmp_path / "cache", labels__painted=painted_share, **options)
        assert "in place of an image" in message
        assert "labels.painted=1" in message
    message = refusal(run, maps, tmp_path / "run", tmp_path / "cache", labels__painted=1.0, val_fraction=0.4, **options)
    assert "validate on scans" in message
    assert not (tmp_path / "run").exists()


def test_peeled_labels_that_no_map_shows_are_refused(maps: Path, tmp_path: Path):
    options: dict[str, Any] = {"labels": maps, "labels__painted": 1.0, "labels__peeled": [1, 7]}
    message = refusal(run, maps, tmp_path / "run", tmp_path / "cache", **options)
    assert "labels.peeled with [7]" in message
    assert "[1, 2]" in message
    assert not (tmp_path / "run").exists()
