"""Exported networks give the features of the model, without corereg."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from corereg.integrations.model_export import export_model
from corereg.method.features.model_file import save_model
from helpers.networks import made_up_model, noise
from helpers.refusals import refusal

SHAPE = (32, 48, 16)
"""Other sizes than those with which the export is traced."""


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    save_model(tmp_path / "small.safetensors", made_up_model(), {"scans": 3})
    return tmp_path / "small.safetensors"


def expected() -> list[np.ndarray]:
    """The 1/2 grid, then strides 8 and 4, as the method computes them without gradients."""
    with torch.no_grad():
        encoded = made_up_model().encode(noise(SHAPE), (8, 4))
    assert encoded.shallow is not None
    return [tensor.contiguous().numpy() for tensor in (encoded.shallow, encoded.cost[8], encoded.cost[4])]


def assert_equal_features(found: list[np.ndarray]) -> None:
    for ours, theirs in zip(expected(), found, strict=True):
        assert_allclose(theirs, ours, atol=1e-4 * np.ptp(ours))


def run_elsewhere(file: Path, image: Path) -> list[np.ndarray]:
    """In a process that cannot import corereg."""
    code = (
        "import sys, numpy as np, torch; sys.modules['corereg'] = None; "
        f"found = torch.jit.load({str(file)!r})(torch.as_tensor(np.load({str(image)!r}))); "
        f"np.savez({str(image.with_suffix('.npz'))!r}, *[tensor.numpy() for tensor in found])"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    with np.load(image.with_suffix(".npz")) as content:
        return list(content.values())


def test_bundle_holds_the_network_as_torchscript_and_says_what_it_takes(tmp_path: Path, model_file: Path) -> None:
    export_model(model_file, tmp_path / "bundle", to="monai-bundle")
    np.save(tmp_path / "image.npy", noise(SHAPE).numpy())
    assert_equal_features(run_elsewhere(tmp_path / "bundle" / "models" / "model.ts", tmp_path / "image.npy"))
    metadata = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text("utf-8"))
    outputs = metadata["network_data_format"]["outputs"]
    assert {name: output["num_channels"] for name, output in outputs.items()} == {
        "features_2": 12,
        "head_8": 6,
        "head_4": 6,
    }
    assert metadata["training"] == {"scans": 3}
    for name in ("LICENSE", "docs/README.md", "configs/inference.json"):
        assert (tmp_path / "bundle" / name).read_text("utf-8").strip()


@pytest.mark.filterwarnings("ignore")  # of MONAI about its readers, and of torch about TorchScript
def test_bundle_runs_in_monai(tmp_path: Path, model_file: Path) -> None:
    bundle = pytest.importorskip("monai.bundle", reason="MONAI is not installed: make test-interop")
    import nibabel

    hounsfield = (500 * noise(SHAPE)[0, 0]).numpy()
    nibabel.save(nibabel.Nifti1Image(hounsfield, np.diag([2.0, 1.5, 3.0, 1.0])), tmp_path / "image.nii.gz")
    export_model(model_file, tmp_path / "bundle", to="monai-bundle")
    parser = bundle.ConfigParser()
    parser.read_config(str(tmp_path / "bundle" / "configs" / "inference.json"))
    parser["bundle_root"], parser["image"] = str(tmp_path / "bundle"), str(tmp_path / "image.nii.gz")
    parser["device"] = "$torch.device('cpu')"
    assert_equal_features([tensor.numpy() for tensor in parser.get_parsed_content("features")])


def test_onnx_gives_the_same_features_at_any_size(tmp_path: Path, model_file: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="pip install 'corereg[onnx]'")
    pytest.importorskip("onnxscript", reason="pip install 'corereg[onnx]'")
    export_model(model_file, tmp_path / "small.onnx", to="onnx")
    session = runtime.InferenceSession(tmp_path / "small.onnx")
    assert [output.name for output in session.get_outputs()] == ["features_2", "head_8", "head_4"]
    assert_equal_features(session.run(None, {"image": noise(SHAPE).numpy()}))


def test_what_cannot_be_exported_is_refused(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no trained weights" in refusal(export_model, "mind", tmp_path / "m.ts", to="torchscript")
    assert "expected one of mind" in refusal(export_model, "nothing", tmp_path / "m.ts", to="torchscript")
    assert "ending in .onnx" in refusal(export_model, model_file, tmp_path / "m.pt", to="onnx")
    assert "expected one of onnx" in refusal(export_model, model_file, tmp_path / "m.pt", to="pickle")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'corereg[onnx]'" in refusal(export_model, model_file, tmp_path / "m.onnx", to="onnx")
