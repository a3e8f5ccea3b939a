"""The working point: regularisation matched to a target on validation pairs."""

import json
from pathlib import Path

import numpy as np
import pytest

from corereg.evaluation.benchmark import run as benchmark_module
from corereg.evaluation.benchmark import working_point as match
from corereg.evaluation.benchmark.plan import Plan
from corereg.evaluation.benchmark.run import benchmark
from corereg.evaluation.benchmark.working_point import find_working_point
from corereg.evaluation.cases import read_cases
from corereg.evaluation.metrics import sdlogj
from corereg.io.images.image import write_image
from corereg.method.register import register
from helpers.scenes import centred_grid, scan, wave


@pytest.fixture(scope="module")
def breathing(tmp_path_factory) -> Path:
    """Two validation pairs and a test pair of scans that differ by a wave."""
    folder = tmp_path_factory.mktemp("breathing")
    grid = centred_grid((40, 36, 32), (3.0, 3.2, 3.5))
    names = [f"Made_{number:04d}_0000.nii.gz" for number in range(1, 7)]
    for kind in ("images", "labels"):
        (folder / f"{kind}Tr").mkdir()
    for number, name in enumerate(names):
        volume = scan(grid) if number % 2 else scan(grid, wave)
        write_image(folder / "imagesTr" / name, volume.array, grid)
        write_image(folder / "labelsTr" / name, (volume.array > 0).astype(np.uint8), grid)
    images = [f"./imagesTr/{name}" for name in names]
    pairs = [{"fixed": images[n], "moving": images[n + 1]} for n in (0, 2, 4)]
    content = {"name": "Made", "registration_val": pairs[:2], "registration_test": pairs[2:]}
    (folder / "Made_dataset.json").write_text(json.dumps(content))
    return folder / "Made_dataset.json"


class TestMatch:
    def test_reaches_the_target_on_validation_pairs(self, breathing):
        cases = read_cases(breathing, "validation")
        settings = {"model": "mind", "refine_steps": 10}
        found = find_working_point(cases, 0.02, settings=settings, affine="none", seed=1, progress=lambda stage: None)
        assert found.split == "validation"
        assert found.pairs == 2
        assert abs(found.sdlogj - 0.02) <= 0.005
        case = cases.cases[0]
        result = register(
            case.fixed.image, case.moving.image, affine="none", seed=1, regularisation=found.regularisation, **settings
        )
        alone = sdlogj(result.refined.at(result.fixed.grid).disp_vox.numpy())
        assert abs(alone - 0.02) < 0.03

    def test_never_sees_a_test_pair_and_says_so(self, breathing, tmp_path, monkeypatch):
        seen = []

        def spy(fixed, moving, **settings):
            seen.extend([Path(fixed).name, Path(moving).name])
            return register(fixed, moving, **{**settings, "refine_steps": 1, "spacing": 8.0})

        def run_one(method, loaded, directory, plan):
            own = dict(method.own)
            return {"method": method.name, "status": "ok", "fixed": "f", "moving": "m", "settings_hash": "", **own}

        monkeypatch.setattr(match, "register", spy)
        monkeypatch.setattr(benchmark_module, "_run", run_one)
        plan = Plan(methods=("corereg",), match_sdlogj=0.02)
        found = benchmark(breathing, tmp_path, plan)
        assert found.cases.split == "test"
        assert set(seen) == {f"Made_{n:04d}_0000.nii.gz" for n in (1, 2, 3, 4)}
        assert found.rows[0]["regularisation"] == found.provenance["matched"]["corereg"]["regularisation"]
        assert "tuned to SDlogJ 0.02 on validation pairs" in found.methods[0].settings
