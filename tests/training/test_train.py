"""The training cycle on a small cohort: that it learns, that nothing is lost, and what a user is told."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from corereg.data.pairs import read_dataset
from corereg.geometry.displacement import subsample_displacement
from corereg.geometry.warp import warp
from corereg.method.features.model_file import load_model
from corereg.training.checkpoint import CHECKPOINT, load_checkpoint
from corereg.training.config import TrainConfig, from_settings, with_settings
from corereg.training.loop import Interrupted, Run
from corereg.training.objective.objective import Losses, Objective, Phase, new_model, phase_of
from corereg.training.pseudo_labels import Sweep, create_files, draw_pairs, open_labels, sampling_weights, sweep
from corereg.training.scans.volumes import Volumes
from corereg.training.train import CONFIG, MODEL, train
from helpers.training import SMALL, rows_of, run, weights_of


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def comparable(folder: Path) -> list[dict[str, Any]]:
    timings = ("images_per_second", "seconds")
    return [{k: v for k, v in row.items() if k not in timings} for row in rows_of(folder)]


def test_a_run_leaves_what_a_user_needs(finished: Path):
    rows = rows_of(finished)
    steps = [row for row in rows if "loss" in row]
    assert [(row["cycle"], row["step"]) for row in steps] == [(c, s) for c in range(2) for s in range(3)]
    assert all(row["loss"] == pytest.approx(row["registration"] + row["lambda"] * row["contrast"], rel=1e-4)
               for row in steps)  # fmt: skip
    assert [row["lambda"] for row in steps] == pytest.approx([10 * (1 - n / 6) for n in range(6)], rel=1e-4)
    assert steps[0]["learning_rate"] == steps[3]["learning_rate"] == 1e-3
    measured = [row for row in rows if "dice" in row]
    assert len(measured) == 2
    assert all(0 < row["dice_before"] < 1 and 0 < row["dice"] <= 1 for row in measured)
    assert from_settings(yaml.safe_load((finished / CONFIG).read_text())) == with_settings(TrainConfig(), SMALL)
    assert (finished / "progress.png").read_bytes()[:4] == b"\x89PNG"
    model = load_model(finished / MODEL)
    assert same(model.state_dict(), weights_of(finished))
    assert model.passes == (8, 4)


def test_the_model_file_carries_its_card(finished: Path):
    from safetensors import safe_open

    with safe_open(finished / MODEL, "pt") as file:
        card = json.loads(file.metadata()["corereg"])["card"]
    assert card["data"]["name"] == "Blobs"
    assert card["data"]["scans"] == 3
    assert card["data"]["pairs"] == 3
    assert len(card["data"]["fingerprint"]) == 64
    assert card["training"]["cycles"] == 2
    assert card["metrics"]["dice"] > 0
    assert "licence" in card


def test_a_validated_patient_is_in_no_training_pair(cohort_json: Path):
    dataset = read_dataset(cohort_json)
    assert {scan for pair in dataset.training for scan in pair} == {0, 1, 2}


def test_same_seed_same_run_other_seed_another(finished: Path, cohort_json: Path, cache: Path, tmp_path: Path):
    run(cohort_json, tmp_path / "again", cache)
    assert same(weights_of(tmp_path / "again"), weights_of(finished))
    run(cohort_json, tmp_path / "other", cache, seed=1)
    assert not same(weights_of(tmp_path / "other"), weights_of(finished))


@pytest.mark.parametrize(
    ("asked_for_the", "saved"), [(1, (0, 1)), (2, (0, 2)), (3, None), (4, (1, 0)), (5, (1, 1))]
)  # fmt: skip
def test_a_run_stopped_at_any_step_and_resumed_is_the_run_that_was_not(
    asked_for_the: int,
    saved: tuple[int, int] | None,
    finished: Path,
    cohort_json: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """The run asks after each step, and after each cycle; at a cycle's last step it finishes the cycle first."""
    asked = []

    def stop_once(self: Run) -> bool:
        asked.append(True)
        return len(asked) == asked_for_the

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_anyone_stops", stop_once)
        if saved is None:
            run(cohort_json, tmp_path / "run", cache)
        else:
            with pytest.raises(Interrupted):
                run(cohort_json, tmp_path / "run", cache)
    if saved is not None:
        state = load_checkpoint(tmp_path / "run" / CHECKPOINT)
        assert (state.cycle, state.step) == saved
        run(cohort_json, tmp_path / "run", cache, resume=True)
    assert comparable(tmp_path / "run") == comparable(finished)
    assert same(weights_of(tmp_path / "run"), weights_of(finished))


def test_a_run_stopped_while_it_labels_its_first_pairs_can_go_on(
    finished: Path, cohort_json: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(threading.Event, "is_set", lambda self: True)
        with pytest.raises(Interrupted):
            run(cohort_json, tmp_path / "run", cache)
    assert load_checkpoint(tmp_path / "run" / CHECKPOINT).step == 0
    run(cohort_json, tmp_path / "run", cache, resume=True)
    assert same(weights_of(tmp_path / "run"), weights_of(finished))


def command_of(dataset: Path, folder: Path, cache: Path, settings: Path) -> list[str]:
    """The program as a user starts it."""
    code = "from corereg.cli import main; main()"
    options = ["--cache", str(cache), "--config", str(settings), "--device", "cpu"]
    return [sys.executable, "-c", code, "train", str(dataset), "-o", str(folder), *options]


def test_a_run_killed_without_warning_goes_on_from_its_last_checkpoint(cohort_json: Path, cache: Path, tmp_path: Path):
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(SMALL))
    whole, folder = tmp_path / "whole", tmp_path / "run"
    subprocess.run(command_of(cohort_json, whole, cache, settings), check=True, capture_output=True, timeout=300)
    process = subprocess.Popen(command_of(cohort_json, folder, cache, settings), stderr=subprocess.PIPE)
    _wait_for(lambda: sum("loss" in row for row in _readable_rows(folder)) >= 2, process)
    process.kill()
    process.communicate()
    again = [*command_of(cohort_json, folder, cache, settings), "--resume"]
    subprocess.run(again, check=True, capture_output=True, timeout=300)
    assert comparable(folder) == comparable(whole)
    assert same(weights_of(folder), weights_of(whole))


def test_sigterm_saves_first_and_says_how_to_go_on(cohort_json: Path, cache: Path, tmp_path: Path):
    folder, settings = tmp_path / "run", tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(SMALL | {"steps_per_cycle": 1000, "checkpoint_every": 1000}))
    process = subprocess.Popen(command_of(cohort_json, folder, cache, settings), stderr=subprocess.PIPE, text=True)
    _wait_for(lambda: sum("loss" in row for row in _readable_rows(folder)) >= 2, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "--resume" in errors
    state = load_checkpoint(folder / CHECKPOINT)
    assert state.step == sum("loss" in row for row in rows_of(folder)) > 0


def _readable_rows(folder: Path) -> list[dict[str, Any]]:
    try:
        return rows_of(folder)
    except (OSError, ValueError):
        return []


def _wait_for(condition: Any, process: subprocess.Popen[Any]) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)


def test_more_stages_extend_a_finished_run(finished: Path, cohort_json: Path, cache: Path, tmp_path: Path):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    train(cohort_json, folder, device="cpu", cache=cache, more_stages=1)
    assert [row["cycle"] for row in rows_of(folder) if "dice" in row] == [0, 1, 2]
    assert load_checkpoint(folder / CHECKPOINT).config.cycles == 3
    assert not same(weights_of(folder), weights_of(finished))


@pytest.mark.parametrize(
    ("objective", "views"), [("registration", "geometric"), ("contrastive", "geometric"), ("joint", "intensity"),
                             ("joint", "both")]
)  # fmt: skip
def test_each_ablation_is_one_switch(objective: str, views: str, cohort_json: Path, cache: Path, tmp_path: Path):
    run(cohort_json, tmp_path / "run", cache, objective=objective, views=views)
    steps = [row for row in rows_of(tmp_path / "run") if "loss" in row]
    with_labels = ["registration" in row for row in steps]
    with_contrast = ["contrast" in row for row in steps]
    if objective == "registration":
        assert (with_labels, with_contrast) == ([True] * 6, [False] * 6)
    elif objective == "contrastive":
        assert (with_labels, with_contrast) == ([False] * 3 + [True] * 3, [True] * 3 + [False] * 3)
    else:
        assert (with_labels, with_contrast) == ([True] * 6, [True] * 6)


def test_a_frozen_extractor_does_not_change_and_the_head_does(volumes: Volumes):
    config = with_settings(TrainConfig(), SMALL | {"objective": "contrastive"})
    assert phase_of(0, config) == Phase(registration=False, contrast=True)
    phase = phase_of(1, config)
    assert phase == Phase(registration=True, contrast=False, frozen_extractor=True)
    from corereg.training.loop import _prepare

    model = new_model(config, seed=0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    _prepare(model, phase)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = _losses(model, config, volumes, phase)
    losses.total.backward()
    optimiser.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.startswith("head.") for key in changed)


def _losses(model: Any, config: TrainConfig, volumes: Volumes, phase: Phase, **changes: Any) -> Losses:
    half = [n // 2 for n in volumes.grid.shape]
    pseudo = torch.zeros(1, 3, *half)
    arguments = {"pseudo_vox": pseudo, "phase": phase, "weight": 1.0, "seed": 3} | changes
    return Objective(model, config)(volumes.image(0), volumes.image(1), **arguments)


def test_both_losses_reach_the_extractor_and_the_registration_loss_every_head(volumes: Volumes):
    config = with_settings(TrainConfig(), SMALL)
    for registration, contrast in ((True, False), (False, True)):
        model = new_model(config, seed=0).train()
        _losses(model, config, volumes, Phase(registration, contrast)).total.backward()
        reached = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
        assert {f"extractor.block{n}.0.weight" for n in (1, 2, 3, 4)} <= reached
        heads = {"head.block.0.weight", "head.out.weight", "head.out4.weight"}
        assert heads & reached == (heads if registration else set())


def test_keeping_fewer_activations_changes_no_gradient(volumes: Volumes):
    grads = []
    for keep in (False, True):
        config = with_settings(TrainConfig(), SMALL | {"checkpoint_activations": keep})
        model = new_model(config, seed=0).train()
        _losses(model, config, volumes, Phase(True, True)).total.backward()
        grads.append([p.grad for p in model.parameters()])
    for first, second in zip(*grads, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_views_and_points_come_from_the_seed_alone(volumes: Volumes):
    config = with_settings(TrainConfig(), SMALL | {"views": "both"})
    model = new_model(config, seed=0).train()
    first, second, other = (_losses(model, config, volumes, Phase(True, True), seed=s).total for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


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
        create_files(tmp_path / str(ranks), pairs, half)
        for rank in range(ranks):
            sweep(model, volumes, config, tmp_path / str(ranks), Sweep(torch.device("cpu"), rank=rank, ranks=ranks))
        labels.append(open_labels(tmp_path / str(ranks)))
    np.testing.assert_allclose(labels[0].disp_vox, labels[1].disp_vox, atol=2e-3)
    np.testing.assert_allclose(labels[0].difficulty_mm, labels[1].difficulty_mm, rtol=1e-3)
    assert labels[0].disp_vox.dtype == np.float16
    assert np.abs(labels[0].disp_vox).max() > 0.1


@pytest.mark.slow
def test_two_scans_are_learned_by_heart(volumes: Volumes):
    """The loss falls to a tenth and the field found is the pseudo-label."""
    config = with_settings(
        TrainConfig(),
        {
            "objective": "registration",
            "augment.fixed": 0.0,
            "augment.moving": 0.0,
            "batch_size": 1,
            "precision": "fp32",
        },
    )
    shape = volumes.grid.shape
    grids = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij")
    truth = torch.stack([3 * torch.sin(grids[(a + 1) % 3] / 9 + a) for a in range(3)])[None]
    moving = volumes.image(0)
    fixed = warp(moving, truth)
    pseudo = subsample_displacement(truth, 2)
    model = new_model(config, seed=0).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    objective, history = Objective(model, config), []
    for step in range(250):
        losses = objective(fixed, moving, pseudo, Phase(True, False), 0.0, step)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        history.append(float(losses.registration.detach()))
    assert np.mean(history[-10:]) < 0.1 * history[0]


def test_two_processes_hold_the_same_weights_and_see_different_pairs(cohort_json: Path, cache: Path, tmp_path: Path):
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from helpers.training import SMALL, note_what_ranks_see

note_what_ranks_see(Path({str(tmp_path)!r}))  # in spawned processes too, which import this file

if __name__ == "__main__":
    from corereg.training.train import train
    train({str(cohort_json)!r}, {str(tmp_path / "run")!r}, settings=SMALL, device="cpu",
          cache={str(cache)!r}, devices=2)
"""
    script = tmp_path / "two.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    states = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert same(*(state["weights"] for state in states))
    drawn = [state["drawn"] for state in states]
    assert len(drawn[0]) == len(drawn[1]) == 6
    assert all(first != second for first, second in zip(*drawn, strict=True))
