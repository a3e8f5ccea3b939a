"""The network of a model for other programs: ONNX, TorchScript or a MONAI bundle, which run without corereg.

The exported network takes a normalised image (1, 1, I, J, K), its sizes multiples of 16, and returns the features on
the 1/2 grid, then those of each head from the coarsest grid to the finest.
"""

import json
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corereg.errors import InputError
from corereg.io.atomic import atomic_path
from corereg.io.places import check_output, ensure_output_folder, refuse_to_replace
from corereg.method.features.model_file import load_model, read_card
from corereg.method.features.network import ConvNetModel
from corereg.method.models import model_file
from corereg.preprocessing.intensity import CT_RANGE_HU, HU_SCALE
from corereg.provenance import versions

__all__ = ["EXPORTS", "export_model"]

MULTIPLE = 16
"""Sizes of images that the network takes."""

EXAMPLE_SHAPE = (1, 1, 3 * MULTIPLE, 2 * MULTIPLE, 4 * MULTIPLE)

BUNDLE = ("models/model.ts", "configs/metadata.json", "configs/inference.json", "docs/README.md", "LICENSE")
"""The files of a MONAI bundle, in the order in which they are written."""

ONNX_CURE = "ONNX is not installed, expected it for the export; pip install 'corereg[onnx]'"


class Features(nn.Module):
    """The network as one function of an image."""

    def __init__(self, network: ConvNetModel) -> None:
        super().__init__()
        self.extractor, self.head = network.extractor, network.head
        self.strides = sorted(network.config.strides, reverse=True)

    @property
    def names(self) -> list[str]:
        """Names of the outputs, in order."""
        return ["features_2", *(f"head_{stride}" for stride in self.strides)]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs = self.extractor(image)
        return outputs.shallow, *(self.head(outputs.deep, stride) for stride in self.strides)


def export_model(model: str | Path, out: Path, *, to: str, force: bool = True) -> None:
    """Write the network of a model for other programs.

    Args:
        model: a model on board with a network, or a .safetensors file.
        out: the file, or for a MONAI bundle the folder.
        to: onnx, torchscript or monai-bundle.
        force: whether existing files may be replaced.

    Raises:
        InputError: no such model or format, a model without a trained network, ONNX is not installed, or a file exists
            that must not be replaced.
    """
    if to not in EXPORTS:
        raise InputError(f"got the export {to}, expected one of {', '.join(EXPORTS)}; correct --to")
    suffix, write = EXPORTS[to]
    if suffix and out.suffix.lower() != suffix:
        raise InputError(f"got the output {out} for {to}, expected a name ending in {suffix}; rename it")
    if suffix:
        check_output(out, force=force)
    elif not force:
        refuse_to_replace(out, BUNDLE)
    path = model_file(model)
    network = load_model(path)
    if not isinstance(network, ConvNetModel):
        raise InputError(
            f"got the model {path.stem}, which was trained on labels, expected one of CoRe; choose another"
        )
    features = Features(network).eval().requires_grad_(False)
    write(features, path, out)


def _write_onnx(features: Features, path: Path, out: Path) -> None:
    for package in ("onnx", "onnxscript"):
        try:
            import_module(package)
        except ImportError:
            raise InputError(f"got --to onnx, but {ONNX_CURE}") from None
    axes = {axis: MULTIPLE * torch.export.Dim(f"sixteenths_{axis}", min=1, max=64) for axis in (2, 3, 4)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter about itself
        program: Any = torch.onnx.export(
            features,
            (torch.zeros(EXAMPLE_SHAPE),),
            input_names=["image"],
            output_names=features.names,
            dynamic_shapes={"image": axes},
            dynamo=True,
            verbose=False,
        )
    with atomic_path(out) as staged:
        program.save(staged, external_data=False)


def _write_torchscript(features: Features, path: Path, out: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer torch prefers torch.export to TorchScript
        scripted = torch.jit.trace(features, torch.zeros(EXAMPLE_SHAPE))  # type: ignore[no-untyped-call]
        with atomic_path(out) as staged:
            torch.jit.save(scripted, str(staged))


def _write_bundle(features: Features, path: Path, out: Path) -> None:
    ensure_output_folder(out)
    for folder in ("configs", "models", "docs"):
        ensure_output_folder(out / folder)
    card = read_card(path)
    network, *names = BUNDLE
    _write_torchscript(features, path, out / network)
    texts = (
        json.dumps(_metadata(features, path.stem, card), indent=2),
        json.dumps(INFERENCE, indent=2),
        f"# {path.stem}\n\n{DESCRIPTION}\n\n```json\n{json.dumps(card, indent=2)}\n```",
        "Apache-2.0, as corereg.",
    )
    for name, text in zip(names, texts, strict=True):
        with atomic_path(out / name) as staged:
            staged.write_text(text + "\n", encoding="utf-8")


DESCRIPTION = (
    "Features of a CT for deformable registration, trained without labels by corereg (CoRe). Not a medical device."
)

INFERENCE: dict[str, Any] = {
    "imports": ["$import torch"],
    "bundle_root": ".",
    "image": "image.nii.gz",
    "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
    "network": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device).eval()",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
            {
                "_target_": "ScaleIntensityRanged",
                "keys": "image",
                "a_min": CT_RANGE_HU[0],
                "a_max": CT_RANGE_HU[1],
                "b_min": CT_RANGE_HU[0] / HU_SCALE,
                "b_max": CT_RANGE_HU[1] / HU_SCALE,
                "clip": True,
            },
            {"_target_": "DivisiblePadd", "keys": "image", "k": MULTIPLE, "mode": "edge"},
        ],
    },
    "features": "$@network(@preprocessing({'image': @image})['image'][None].as_tensor().to(@device))",
}
"""A configuration of MONAI: `features` loads the image, normalises it as a CT, and runs the network."""


def _metadata(features: Features, name: str, card: dict[str, Any]) -> dict[str, Any]:
    installed = versions("corereg", "torch", "numpy", "monai")
    spatial = [f"{MULTIPLE}*n"] * 3
    image = {"type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1, "spatial_shape": spatial}
    outputs = {
        output: {"type": "feature", "format": "feature", "num_channels": int(tensor.shape[1]), "dtype": "float32"}
        for output, tensor in zip(features.names, features(torch.zeros(EXAMPLE_SHAPE)), strict=True)
    }
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": installed["corereg"],
        "changelog": {installed["corereg"]: "exported by corereg"},
        "monai_version": installed["monai"] if installed["monai"][0].isdigit() else "1.4.0",
        "pytorch_version": installed["torch"].partition("+")[0],
        "numpy_version": installed["numpy"],
        "required_packages_version": {"nibabel": versions("nibabel")["nibabel"]},
        "name": name,
        "task": "Features for deformable registration",
        "description": DESCRIPTION,
        "authors": "The corereg developers",
        "copyright": "The corereg developers",
        "data_type": "nifti",
        "intended_use": "Research; not a medical device",
        "training": card,
        "network_data_format": {
            "inputs": {
                "image": {
                    **image,
                    "dtype": "float32",
                    "value_range": [CT_RANGE_HU[0] / HU_SCALE, CT_RANGE_HU[1] / HU_SCALE],
                    "is_patch_data": False,
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": outputs,
        },
    }


EXPORTS: dict[str, tuple[str, Callable[[Features, Path, Path], None]]] = {
    "onnx": (".onnx", _write_onnx),
    "torchscript": (".ts", _write_torchscript),
    "monai-bundle": ("", _write_bundle),
}
"""By name: the ending of the file (empty for a folder), and what writes it."""
