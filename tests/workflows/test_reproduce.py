"""Reproduction of the paper."""

import json

import numpy as np
import pytest

from corereg.errors import InputError
from corereg.io.images.image import write_image
from helpers.scenes import centred_grid, scan, wave


@pytest.mark.slow
def test_reproduction_trains_searches_scores_and_goes_on(tmp_path):
    """With a training of two steps: the plumbing, and that no scored scan is trained or tuned on."""
    from corereg.workflows.reproduce import PROTOCOLS, reproduce

    grid = centred_grid((40, 36, 32), (3.0, 3.2, 3.5))
    numbers = (1, 2, 4, 8, 14, 20)
    for kind in ("images", "labels"):
        (tmp_path / f"{kind}Tr").mkdir()
    for number in numbers:
        volume = scan(grid, wave) if number % 4 else scan(grid)
        write_image(tmp_path / "imagesTr" / f"Made_{number:04d}_0000.nii.gz", volume.array, grid)
        write_image(tmp_path / "labelsTr" / f"Made_{number:04d}_0000.nii.gz", (volume.array > 0).astype(np.uint8), grid)
    images = {number: f"./imagesTr/Made_{number:04d}_0000.nii.gz" for number in numbers}
    content = {
        "name": "Made",
        "training": [{"image": image} for image in images.values()],
        "registration_val": [{"fixed": images[1], "moving": images[4]}],
    }
    path = tmp_path / "Made_dataset.json"
    path.write_text(json.dumps(content))
    settings = {"cycles": 1, "steps_per_cycle": 2, "batch_size": 1, "checkpoint_every": 1, "pseudo_labels.pairs": 1}
    report = reproduce("abdomen-ct", path, tmp_path / "out", settings=settings, tables=(1, 2))
    text = report.read_text()
    assert "| CoRe | published | 52.1 ± 7.5 | 0.148 | 1.2 |" in text
    assert text.count("**here**") == 1
    provenance = json.loads((tmp_path / "out" / "scores" / "provenance.json").read_text())
    assert set(provenance["matched"]) == {f"corereg:{run}" for run in ("joint", "registration", "contrastive")}
    assert provenance["matched"]["corereg:joint"]["pairs"] == 6
    assert provenance["tuning"] == "training"
    model = (tmp_path / "out" / "joint.safetensors").read_bytes()
    assert reproduce("abdomen-ct", path, tmp_path / "out", settings=settings).read_text().startswith("# abdomen-ct")
    assert (tmp_path / "out" / "joint.safetensors").read_bytes() == model
    with pytest.raises(InputError, match="tables of 1, 2, 3"):
        reproduce("abdomen-ct", path, tmp_path / "out", tables=(4,))
    with pytest.raises(InputError, match="without test pairs"):
        reproduce("chest-ct", path, tmp_path / "out")
    assert set(PROTOCOLS) == {"abdomen-ct", "chest-ct"}
