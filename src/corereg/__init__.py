"""corereg: deformable 3D registration of CT and MR scans. Heavy modules are imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corereg.data.pairs import Dataset, read_dataset
    from corereg.errors import InputError
    from corereg.evaluation.benchmark.run import benchmark
    from corereg.evaluation.evaluate import evaluate
    from corereg.geometry.displacement import Displacement
    from corereg.geometry.grid import Grid
    from corereg.io.images.image import Image, read_image, write_image
    from corereg.io.transforms.convert import convert_transform
    from corereg.io.transforms.transform import Transform
    from corereg.method.config import RegisterConfig
    from corereg.method.register import RegistrationResult, register
    from corereg.training.config import TrainConfig
    from corereg.training.train import TrainingResult, train
    from corereg.workflows.batch.run import batch
    from corereg.workflows.calibrate import calibrate

_HOMES = {
    "Dataset": "corereg.data.pairs",
    "Displacement": "corereg.geometry.displacement",
    "Grid": "corereg.geometry.grid",
    "Image": "corereg.io.images.image",
    "InputError": "corereg.errors",
    "RegisterConfig": "corereg.method.config",
    "RegistrationResult": "corereg.method.register",
    "TrainConfig": "corereg.training.config",
    "TrainingResult": "corereg.training.train",
    "Transform": "corereg.io.transforms.transform",
    "batch": "corereg.workflows.batch.run",
    "benchmark": "corereg.evaluation.benchmark.run",
    "calibrate": "corereg.workflows.calibrate",
    "convert_transform": "corereg.io.transforms.convert",
    "evaluate": "corereg.evaluation.evaluate",
    "read_dataset": "corereg.data.pairs",
    "read_image": "corereg.io.images.image",
    "register": "corereg.method.register",
    "train": "corereg.training.train",
    "write_image": "corereg.io.images.image",
}

__all__ = [
    "Dataset",
    "Displacement",
    "Grid",
    "Image",
    "InputError",
    "RegisterConfig",
    "RegistrationResult",
    "TrainConfig",
    "TrainingResult",
    "Transform",
    "batch",
    "benchmark",
    "calibrate",
    "convert_transform",
    "evaluate",
    "read_dataset",
    "read_image",
    "register",
    "train",
    "write_image",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("corereg.provenance").versions("corereg")["corereg"]
    if name not in _HOMES:
        raise AttributeError(f"module 'corereg' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])
