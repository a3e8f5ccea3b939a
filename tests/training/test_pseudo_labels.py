"""Pseudo-labels: which pairs are drawn, and that sharing the sweep changes nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from corereg.settings import with_settings
from corereg.training.config import TrainConfig
from corereg.training.objective.objective import new_model
from corereg.training.pseudo_labels import Sweep, create_files, draw_pairs, open_labels, sampling_weights, sweep
from corereg.training.scans.volumes import Volumes
from helpers.training import SMALL


def test_reliable_pairs_are_drawn_more_often():
    difficulty = np.array([3.0, 0.5, 9.0, 1.0, 2.0], dtype=np.float32)
    chances = sampling_weights(difficulty).numpy()
    expected = 1 / (1 + np.exp(-np.linspace(5, -5, 5)))
    np.testing.assert_allclose(chances[np.argsort(difficulty)], expected)


def test_pairs_of_a_cycle_are_drawn_without_repetition_and_both_ways():
    pairs = [(i, j) for i in range(12) for j in range(i + 1, 12)]
    drawn = draw_pairs(pairs, 40, either_way=True, seed=3)
    assert len({tuple(sorted(p)) for p in drawn.tolist()}) == 40
    assert 5 < sum(f > m for f, m in drawn.tolist()) < 35
    assert draw_pairs(pairs, None, either_way=False, seed=3).tolist() == sorted(map(list, pairs))


def test_the_sweep_gives_the_same_labels_however_many_processes_share_it(volumes: Volumes, tmp_path: Path):
    config = with_settings(TrainConfig(), SMALL | {"pseudo_labels.batch": 2})
    model = new_model(config, seed=0).eval()
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    half = [n // 2 for n in volumes.grid.shape]
    labels = []
    for ranks in (1, 2):
        create_files(tmp_path / str(ranks), pairs, half, config)
        for rank in range(ranks):
            sweep(model, volumes, config, tmp_path / str(ranks), Sweep(torch.device("cpu"), rank=rank, ranks=ranks))
        labels.append(open_labels(tmp_path / str(ranks)))
    np.testing.assert_allclose(labels[0].disp_vox, labels[1].disp_vox, atol=2e-3)
    np.testing.assert_allclose(labels[0].difficulty_mm, labels[1].difficulty_mm, rtol=1e-3)
    assert labels[0].disp_vox.dtype == np.float16
    assert np.abs(labels[0].disp_vox).max() > 0.1


def test_labels_are_trusted_where_both_directions_agree(volumes: Volumes, tmp_path: Path):
    config = with_settings(TrainConfig(), SMALL | {"contrast.positives": "patients", "contrast.agreement": 0.5})
    model = new_model(config, seed=0).eval()
    pairs = np.array([[0, 0], [0, 1], [1, 0]])
    create_files(tmp_path, pairs, [n // 2 for n in volumes.grid.shape], config)
    sweep(model, volumes, config, tmp_path, Sweep(torch.device("cpu")))
    labels = open_labels(tmp_path)
    assert labels.trusted is not None
    assert labels.trusted[0].all()
    there, back = (labels.disp_vox[row].astype(np.float64) for row in (1, 2))
    coords = np.indices(there.shape[1:]) + there
    returned = there + [ndimage.map_coordinates(c, coords, order=1, mode="nearest") for c in back]
    missed = np.linalg.norm(returned, axis=0)
    sure = np.abs(missed - 0.5) > 0.02  # the file holds half precision
    np.testing.assert_array_equal(labels.trusted[1][sure], (missed <= 0.5)[sure])
    assert 0 < labels.trusted[1].mean() < 1
    assert labels.figures()["trusted_share"] == pytest.approx(labels.trusted.mean())
