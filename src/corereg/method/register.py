"""From a pair of scans to the transform between them: working grid, pre-alignment, four stages, world coordinates."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Unpack

from corereg.errors import InputError
from corereg.geometry.displacement import LOG_JACOBIAN_MARGIN, Displacement, jacobian_determinant, sdlogj
from corereg.geometry.grid import Grid
from corereg.geometry.warp import warp
from corereg.io.images.image import Image, as_image, as_mask
from corereg.io.images.kinds import ImageLike, MaskLike
from corereg.io.transforms.transform import InverseError, Transform
from corereg.method.affine.align import Alignment, align
from corereg.method.affine.coarse_copies import coarse_copy
from corereg.method.config import RegisterConfig, documented, with_register_options
from corereg.method.device import find_device
from corereg.method.models import ModelChoice, get_model
from corereg.method.pipeline import Registration, register_volumes
from corereg.method.quality.similarity import similarity_above_chance, warn_if_no_better_than_chance
from corereg.method.register_settings import RegisterSettings
from corereg.method.showing import as_html, as_text
from corereg.method.stopwatch import Stopwatch
from corereg.preprocessing.detection import Intensities, find_intensities
from corereg.preprocessing.pair import Scan, prepare_pair
from corereg.preprocessing.working_grid import choose_working_grid, field_of_view
from corereg.provenance import peak_memory_mb, versions
from corereg.settings import with_settings

__all__ = ["RegisterConfig", "RegistrationResult", "register"]

Progress = Callable[[str], None]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, repr=False)
class RegistrationResult:
    """A registered pair."""

    transform: Transform
    """From fixed to moving: resamples the moving image onto the fixed grid."""
    inverse_transform: Transform
    """From moving to fixed."""
    inverse_error: InverseError
    """How far the two transforms are from being inverse to each other."""
    alignment: Alignment | None
    """The affine pre-alignment; None if it was off."""
    coarse: Displacement
    """The displacement before instance optimisation, on the working grid."""
    refined: Displacement
    """The displacement after instance optimisation, on the working grid, without the affine part."""
    losses: tuple[float, ...]
    """Energy before each step of the instance optimisation."""
    metrics: Mapping[str, Any]
    """sdlogj and fold_percent of the deformation on the working grid, the inverse's error in mm, and Dice if known."""
    seconds: Mapping[str, float]
    """Seconds per stage."""
    fixed: Image
    moving: Image
    intensities: tuple[Intensities, ...]
    """How the intensities of the fixed and of the moving image were understood."""
    similarity_above_chance: float
    """How much more alike the registered images look than shifted copies of them; NaN if too little overlaps."""
    model: ModelChoice
    config: RegisterConfig
    """The settings as resolved."""
    regularisation: float
    """The R that was used."""
    peak_memory_mb: float
    """Largest memory of the process so far, in MiB."""

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def warped(self) -> Image:
        """The moving image on the fixed grid, linearly interpolated from the original: float32."""
        return self.transform.apply(self.moving)

    def summary(self) -> dict[str, Any]:
        """Everything except the fields as plain numbers and strings, for JSON."""
        alignment = None
        if self.alignment is not None:
            alignment = asdict(self.alignment) | {"affine": self.alignment.affine.tolist()}
        return {
            "metrics": dict(self.metrics),
            "seconds": dict(self.seconds),
            "peak_memory_mb": self.peak_memory_mb,
            "model": {"name": self.model.name, "sha256": self.model.sha256},
            "configuration": asdict(self.config),
            "seed": self.config.stages.seed,
            "regularisation": self.regularisation,
            "intensities": {
                name: asdict(each) for name, each in zip(("fixed", "moving"), self.intensities, strict=True)
            },
            "quality": {"measures": {"similarity_above_chance": self.similarity_above_chance}},
            "affine": alignment,
            "grids": {
                "fixed": self.fixed.grid.as_dict(),
                "moving": self.moving.grid.as_dict(),
                "working": self.refined.grid.as_dict(),
            },
            "losses": list(self.losses),
            "versions": versions(),
        }


@documented
def register(
    fixed: ImageLike,
    moving: ImageLike,
    *,
    fixed_affine: object = None,
    moving_affine: object = None,
    config: RegisterConfig | None = None,
    fixed_mask: MaskLike | None = None,
    moving_mask: MaskLike | None = None,
    progress: Progress | None = None,
    **settings: Unpack[RegisterSettings],
) -> RegistrationResult:
    """Register two scans: find the transform that resamples `moving` onto `fixed`.

    Args:
        fixed, moving: paths, Images, SimpleITK or nibabel images, MetaTensors, or arrays or tensors (I, J, K) with an
            affine; any spacing, orientation and field of view.
        fixed_affine, moving_affine: of an array or tensor: (4, 4), voxel indices to RAS+ millimetres.
        config: all settings at once.
        fixed_mask, moving_mask: masks on the grids of their images, as paths, Images, SimpleITK or nibabel images,
            arrays or tensors; only voxels greater than 0 count.
        progress: called with the name of each stage as it begins.
        **settings: single settings on top of `config`, by the names of the command line's options; None leaves a
            setting as it is.

    Raises:
        InputError: a scan, mask or setting cannot be used; the message is one line.
    """
    config = with_register_options(config or RegisterConfig(), settings)
    progress = progress or (lambda stage: None)
    device = find_device(config.device, fixed, moving)
    watch = Stopwatch(device)
    progress("reading")
    with watch("read"):
        fixed_image = as_image(fixed, affine=fixed_affine, name="the fixed image")
        moving_image = as_image(moving, affine=moving_affine, name="the moving image")
        masks = [_mask(mask, image) for mask, image in ((fixed_mask, fixed_image), (moving_mask, moving_image))]
    if config.affine == "none" and not fixed_image.grid.overlaps(moving_image.grid):
        raise InputError(
            f"got {fixed_image.name} and {moving_image.name}, which do not overlap in world coordinates, expected an "
            "overlap because the affine pre-alignment is off; use --affine auto"
        )
    working = choose_working_grid(
        fixed_image.grid, moving_image.grid, spacing_mm=config.spacing_mm, memory_bytes=config.memory_bytes
    )
    intensities = find_intensities((fixed_image, moving_image), config.modality)
    both_ct = all(each.modality.startswith("ct") for each in intensities)
    choice = get_model(config.model, seed=config.stages.seed, both_ct=both_ct, precision=config.precision)
    config = with_settings(config, {"stages.passes": config.stages.passes or choice.model.passes})
    scans = [Scan(*scan) for scan in zip((fixed_image, moving_image), intensities, masks, strict=True)]
    alignment = None
    if config.affine == "auto":
        progress("affine pre-alignment")
        with watch("affine"):
            alignment = align(*(coarse_copy(*scan) for scan in scans), seed=config.stages.seed)
    affine = None if alignment is None else alignment.affine
    progress("resampling to the working grid")
    with watch("resample"):
        pair = prepare_pair(scans, working, affine=affine, device=device)
    progress("deformable registration")
    if isinstance(choice.model, torch.nn.Module):
        choice.model.to(device)
    found = register_volumes(
        pair.fixed,
        pair.moving,
        choice.model,
        config.stages,
        fixed_weight=pair.fixed_weight,
        moving_weight=pair.moving_weight,
        field_of_view=field_of_view(fixed_image.grid, working),
    )
    with watch("judge"):
        parts = pair.fixed, pair.moving, pair.fixed_weight, pair.moving_weight
        similarity = _similarity(found.refined, field_of_view(fixed_image.grid, working), *parts)
        warn_if_no_better_than_chance(similarity, fixed_image.name, moving_image.name)
    progress("inverting")
    config = with_settings(config, {"stages.refine.similarity": found.similarity})
    return _result(
        found, watch, working, alignment, (fixed_image, moving_image), intensities, similarity, choice, config
    )


def _result(
    found: Registration,
    watch: Stopwatch,
    working: Grid,
    alignment: Alignment | None,
    images: tuple[Image, Image],
    intensities: tuple[Intensities, ...],
    similarity: float,
    choice: ModelChoice,
    config: RegisterConfig,
) -> RegistrationResult:
    fixed, moving = images
    coarse, refined = (Displacement(d[0].cpu(), working) for d in (found.coarse, found.refined))
    with watch("invert"):
        parts = (refined,) if alignment is None else (refined, alignment.affine)
        transform = Transform(parts, fixed=fixed, moving=moving)
        inverse = transform.inverse()
        error = transform.inverse_error(inverse)
        transform = replace(transform, backward=inverse)
    i, j, k = field_of_view(fixed.grid, working)
    disp_vox = refined.disp_vox[None, :, :i, :j, :k]
    metrics = {
        # A slab of few slices lies entirely within the border that the measure leaves out.
        "sdlogj": sdlogj(disp_vox) if min(i, j, k) > 2 * LOG_JACOBIAN_MARGIN else math.nan,
        "fold_percent": 100 * float((jacobian_determinant(disp_vox) <= 0).double().mean()),
        "inverse_error_mean_mm": error.mean,
        "inverse_error_p95_mm": error.p95,
        "inverse_error_max_mm": error.max,
    }
    return RegistrationResult(
        transform=transform,
        inverse_transform=inverse,
        inverse_error=error,
        alignment=alignment,
        coarse=coarse,
        refined=refined,
        losses=found.losses,
        metrics=metrics,
        seconds={**watch.seconds, **found.seconds},
        fixed=fixed,
        moving=moving,
        intensities=intensities,
        similarity_above_chance=similarity,
        model=choice,
        config=config,
        regularisation=found.regularisation,
        peak_memory_mb=peak_memory_mb(),
    )


def _similarity(
    disp_vox: Tensor,
    shown: tuple[int, int, int],
    fixed: Tensor,
    moving: Tensor,
    fixed_weight: Tensor | None,
    moving_weight: Tensor | None,
) -> float:
    """Similarity of the fixed and the warped moving volume within the fixed image's field of view."""
    i, j, k = shown
    counted = torch.ones_like(moving) if moving_weight is None else moving_weight
    warped, warped_weight = warp(moving, disp_vox), warp(counted, disp_vox, outside=0.0)
    volumes = (fixed, warped, torch.ones_like(fixed) if fixed_weight is None else fixed_weight, warped_weight)
    return similarity_above_chance(*(volume[..., :i, :j, :k] for volume in volumes))


def _mask(mask: object, image: Image) -> Mask | None:
    return None if mask is None else as_mask(mask, like=image.grid, of=image.name).array
