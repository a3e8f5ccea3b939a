"""`corereg demo`: the main job on data that the package makes itself, from nothing to a report."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from corereg.data.phantom import write_cohort
from corereg.errors import InputError
from corereg.evaluation.metrics import warp_labels
from corereg.evaluation.outputs import register_to_folder
from corereg.geometry.displacement import Displacement
from corereg.method.register import RegistrationResult

__all__ = ["run_demo"]

SUBJECTS = 3
SPACING_MM = 4.0
BODY_ABOVE_HU = -300.0
