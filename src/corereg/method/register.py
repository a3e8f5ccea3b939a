"""From a pair of scans to the transform between them: working grid, pre-alignment, four stages, world coordinates."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import Unpack

from corereg.geometry.chain import offsets_mm, parts_of_field
from corereg.geometry.displacement import LOG_JACOBIAN_MARGIN, Displacement, jacobian_determinant, sdlogj
from corereg.geometry.grid import Grid
from corereg.io.images.companions import as_mask
from corereg.io.images.image import Image, as_image
from corereg.io.images.kinds import ImageLike, MaskLike
from corereg.io.transforms.transform import Transform
from corereg.method.affine.align import Alignment
from corereg.method.affine.coarse_copies import coarse_copy, common_unit_mm
from corereg.method.affine.pre_alignment import pre_alignment
from corereg.method.coarse.passes import default_passes
from corereg.method.config import RegisterConfig, documented, with_register_options
from corereg.method.device import find_device
from corereg.method.guidance.known import Known
from corereg.method.guidance.landmark_errors import landmark_errors, mean_errors
from corereg.method.guidance.rigid import largest_deviation_mm
from corereg.method.guidance.start import check_overlap, deforms, placed
from corereg.method.models import ModelChoice, get_model
from corereg.method.pipeline import Registration, no_deformation, register_volumes
from corereg.method.points_only import POINTS_ONLY, alignment_without_images, register_without_images
from corereg.method.quality.judged import Judged
from corereg.method.quality.quality import UNJUDGED, Quality, with_folds
from corereg.method.quality.thresholds import read_thresholds
from corereg.method.quality.uncertainty import uncertainty_mm, with_uncertainty
from corereg.method.quality.verdict import judge, warn_if_failed
from corereg.method.refine.regularisation_search import reached
from corereg.method.register_settings import RegisterSettings
from corereg.method.result import RegistrationResult
from corereg.method.stopwatch import Stopwatch
from corereg.preprocessing.body import body_threshold
from corereg.preprocessing.detection import Intensities, find_intensities
from corereg.preprocessing.filling import without_filling
from corereg.preprocessing.pair import Scan, prepare_pair
from corereg.preprocessing.working_grid import choose_working_grid, field_of_view
from corereg.provenance import peak_memory_mb, recorded_warnings
from corereg.settings import with_settings

__all__ = ["RegisterConfig", "RegistrationResult", "register"]

OVERLAP_NEEDED = "expected an overlap because the pre-alignment is off; use --affine auto"
NO_INTENSITIES = Intensities("points")
WRITTEN_OUT = 4.0
"""Multiple of the working grid's voxels up to which a displacement reaches all of the fixed image, whose blank planes
that grid leaves out: ITK moves nothing beyond a displacement's grid."""

Function = TypeVar("Function", bound=Callable[..., RegistrationResult])
Progress = Callable[[str], None]
Mask = NDArray[np.bool_]


def _keeping_warnings(function: Function) -> Function:
    """Make a registration's result hold the warnings given on the way; then warn of a bad verdict."""

    @wraps(function)
    def keeping(*arguments: Any, **settings: Any) -> RegistrationResult:
        with recorded_warnings() as texts:
            result = function(*arguments, **settings)
        warn_if_failed(result.quality, result.fixed.name, result.moving.name)
        return replace(result, warnings=tuple(texts))

    return cast(Function, keeping)


@documented
@_keeping_warnings
def register(
    fixed: ImageLike,
    moving: ImageLike,
    *,
    fixed_affine: object = None,
    moving_affine: object = None,
    config: RegisterConfig | None = None,
    fixed_mask: MaskLike | None = None,
    moving_mask: MaskLike | None = None,
    initial: object = None,
    fixed_labels: object = None,
    moving_labels: object = None,
    fixed_points: object = None,
    moving_points: object = None,
    rigid_labels: object = None,
    fixed_channels: Sequence[ImageLike] = (),
    moving_channels: Sequence[ImageLike] = (),
    progress: Progress | None = None,
    **settings: Unpack[RegisterSettings],
) -> RegistrationResult:
    """Register two scans: find the transform that resamples `moving` onto `fixed`.

    Args:
        fixed, moving: paths, Images, SimpleITK or nibabel images, MetaTensors, or arrays or tensors (I, J, K) with an
            affine; any spacing, orientation and field of view.
        fixed_affine, moving_affine: of an array or tensor: (4, 4), voxel indices to RAS+ millimetres.
        config: all settings at once.
        fixed_mask, moving_mask: masks in the worlds of their images, as paths, Images, SimpleITK or nibabel images, or
            arrays or tensors of their images' shapes; only voxels greater than 0 count.
        initial: transform from fixed to moving to start from, as a path or a Transform. Its parts become the last ones
            of the result.
        fixed_labels, moving_labels: label maps in the worlds of their images, for `guide_labels`.
        fixed_points, moving_points: landmarks, as paths, or arrays (N, 3) in RAS+ millimetres. They guide the
            registration unless `guide_points` is off, and measure it. Rows match, unless `unmatched_points` finds
            which do.
        rigid_labels: label map of the fixed image whose structures move as rigid bodies.
        fixed_channels, moving_channels: further images of each side in the same world, such as T2 with T1; as many of
            one side as of the other.
        progress: called with the name of each stage as it begins.
        **settings: single settings on top of `config`, by the names of the command line's options; None leaves a
            setting as it is.

    Raises:
        InputError: a scan, mask or setting cannot be used; the message is one line.
    """
    given = {"initial": initial, "fixed_labels": fixed_labels, "moving_labels": moving_labels}
    given |= {"fixed_points": fixed_points, "moving_points": moving_points, "rigid_labels": rigid_labels}
    given |= {"fixed_channels": fixed_channels, "moving_channels": moving_channels}
    given |= {"fixed_mask": fixed_mask, "moving_mask": moving_mask}
    config = with_register_options(config or RegisterConfig(), settings)
    thresholds = read_thresholds(config.thresholds)
    progress = progress or (lambda stage: None)
    device = find_device(config.device, fixed, moving)
    watch = Stopwatch(device)
    progress("reading")
    with watch("read"):
        fixed_image = as_image(fixed, affine=fixed_affine, name="the fixed image")
        moving_image = as_image(moving, affine=moving_affine, name="the moving image")
        masks = [_mask(fixed_mask, fixed_image, moving_image), _mask(moving_mask, moving_image, fixed_image)]
        known = Known.of((fixed_image, moving_image), config.guidance, given)
    if config.guidance.only is not None and known.labels is not None:  # names become numbers
        config = with_settings(config, {"guidance.only": tuple(known.labels.ids)})
    images, started, by_points = (fixed_image, moving_image), initial is not None, config.guidance.points_only
    if config.affine == "none" and not started and not by_points:
        check_overlap(known.start, *images, OVERLAP_NEEDED)
    if by_points:
        working = choose_working_grid(
            fixed_image.grid, moving_image.grid, spacing_mm=config.spacing_mm, memory_bytes=config.memory_bytes
        )
        view = field_of_view(fixed_image.grid, working)
        progress("registration without intensities")
        known = known.matched(None, config.guidance)
        alignment = alignment_without_images(known, images, config, started=started)
        affine = None if alignment is None else alignment.affine
        found, known, config = register_without_images(known, images, working, affine, config)
        unseen = (NO_INTENSITIES,) * 2
        return _result(found, watch, working, view, known, alignment, images, unseen, UNJUDGED, POINTS_ONLY, config)
    shown = [without_filling(*each) for each in zip(images, masks, strict=True)]
    intensities = find_intensities([image for image, _ in shown], config.modality)
    both_ct = all(each.modality.startswith("ct") for each in intensities)
    choice = get_model(config.model, seed=config.stages.seed, both_ct=both_ct, precision=config.precision)
    scans = [Scan(image, each, mask) for (image, mask), each in zip(shown, intensities, strict=True)]
    working = choose_working_grid(
        scans[0].image.grid,
        scans[1].image.grid,
        spacing_mm=config.spacing_mm or choice.spacing_mm,
        memory_bytes=config.memory_bytes,
        written=fixed_image.grid,
    )
    view = field_of_view(scans[0].image.grid, working)
    passes = config.stages.passes or default_passes(choice.model.passes, math.prod(working.shape))
    config = with_settings(config, {"stages.passes": passes})
    scans[1] = placed(scans[1], known.start, working)
    progress("pre-alignment")
    with watch("affine"):
        unit_mm = common_unit_mm(*(scan.image.grid for scan in scans))
        copies = coarse_copy(*scans[0], unit_mm=unit_mm), coarse_copy(*scans[1], unit_mm=unit_mm)
        alignment = pre_alignment(copies, config, started=started)
    affine = None if alignment is None else alignment.affine
    known = known.matched(affine, config.guidance)
    progress("resampling to the working grid")
    with watch("resample"):
        pair = prepare_pair(scans, working, affine=affine, device=device)
    if not config.deforms:
        found = no_deformation(pair.fixed, config.stages)
    else:
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
            guide=known.guide(working, affine, config, device),
            field_of_view=view,
        )
    with watch("judge"):
        fields = found.coarse, found.refined, found.disagreement_vox
        judged = Judged(*pair, *fields, working, view, alignment, copies)
        quality = judge(judged, thresholds)
    bound_mm = None
    if config.uncertainty:
        progress("uncertainty")
        with watch("uncertainty"):
            bound_mm = uncertainty_mm(judged, fixed_image.grid)
            quality = with_uncertainty(quality, bound_mm, fixed_image.array)
    progress("inverting")
    config = with_settings(config, {"device": device.type, "stages.refine.similarity": found.similarity})
    result = _result(found, watch, working, view, known, alignment, images, intensities, quality, choice, config)
    return replace(result, uncertainty=bound_mm)


def _result(
    found: Registration,
    watch: Stopwatch,
    working: Grid,
    view: tuple[int, int, int],
    known: Known,
    alignment: Alignment | None,
    images: tuple[Image, Image],
    intensities: tuple[Intensities, ...],
    quality: Quality,
    choice: ModelChoice,
    config: RegisterConfig,
) -> RegistrationResult:
    (fixed, moving), start = images, known.start
    coarse, refined = (Displacement(d[0].cpu(), working) for d in (found.coarse, found.refined))
    with watch("invert"):
        reaching = refined.covering(fixed.grid, at_most=WRITTEN_OUT)
        deformed = Transform((reaching,) if config.deforms else (), fixed=fixed)
        aligned = Transform(() if alignment is None else (alignment.affine,), fixed=fixed)
        before = start.then(aligned) if config.deforms else start
        own = aligned.then(deformed)
        transform, inverse = start.then(own), own.inverse().then(start.inverse())
        error = transform.inverse_error(inverse, where=moving.array > body_threshold(moving.array))
        transform = replace(transform, backward=inverse)
    i, j, k = view
    deformation = parts_of_field(offsets_mm(transform.parts, working), working)[0] if deforms(start) else refined
    disp_vox = deformation.disp_vox[None, :, :i, :j, :k]
    metrics = {
        # A slab of few slices lies entirely within the border that the measure leaves out.
        "sdlogj": sdlogj(disp_vox) if min(i, j, k) > 2 * LOG_JACOBIAN_MARGIN else math.nan,
        "fold_percent": 100 * float((jacobian_determinant(disp_vox) <= 0).double().mean()),
        "inverse_error_mean_mm": error.mean,
        "inverse_error_p95_mm": error.p95,
        "inverse_error_max_mm": error.max,
    }
    target = config.stages.target_sdlogj
    if target is not None and not reached(metrics["sdlogj"], target):
        warnings.warn(
            f"the displacement has the SDlogJ {metrics['sdlogj']:.3g} instead of {target:g}: no R that is tried brings "
            "it nearer",
            stacklevel=2,
        )
    if known.rigid is not None:
        metrics["rigid_deviation_mm"] = largest_deviation_mm(known.rigid, transform)
    errors = landmark_errors(known.landmarks, before, transform, found.points)
    return RegistrationResult(
        transform=transform,
        inverse_transform=inverse,
        inverse_error=error,
        before=before,
        alignment=alignment,
        coarse=coarse,
        refined=refined,
        deformation=deformation,
        losses=found.losses,
        metrics=metrics | mean_errors(errors),
        landmarks=errors,
        seconds={**watch.seconds, **found.seconds},
        fixed=fixed,
        moving=moving,
        intensities=intensities,
        quality=with_folds(quality, metrics["fold_percent"]),
        warnings=(),
        model=choice,
        config=config,
        regularisation=found.regularisation,
        peak_memory_mb=peak_memory_mb(),
    )


def _mask(mask: object, image: Image, other: Image) -> Mask | None:
    return None if mask is None else as_mask(mask, like=image.grid, of=image.name, other=other.grid).array
