"""Affine pre-alignment of a pair by SimpleITK: Mattes mutual information over several resolutions.

Works in world coordinates (RAS+ millimetres) on coarse copies of both images.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.grid import Grid, Matrix
from corereg.io.itk import affine_from_sitk, to_sitk, vector_to_sitk
from corereg.io.lazy import simpleitk
from corereg.method.translation import best_translation

__all__ = ["Alignment", "align"]

HISTOGRAM_BINS = 32
SAMPLES = 12_000
"""Fixed voxels that each evaluation of the metric looks at."""
COARSE_LEVELS = ((4, 2.0),)
FINE_LEVELS = ((2, 1.0), (1, 0.0))
"""Shrink factor and smoothing (voxels of the given images) of the rigid and of the affine search."""
ITERATIONS = 60
FIRST_STEP_MM, LAST_STEP_MM = 4.0, 0.02
"""Of the gradient descent, as the shift that a step causes in the image."""
NEEDED_GAIN = 0.25
"""Relative gain in mutual information below which the pair counts as aligned already. On 15 aligned pairs of
head-and-neck CT an affine map gained a few per cent of it and cost 6 points of Dice after the deformable stages."""
LARGEST_SCALE = 1.8
"""Stretch along any direction beyond which an affine map between two patients is not believed."""


@dataclass(frozen=True)
class Alignment:
    """Result of the pre-alignment.

    Args:
        affine: (4, 4), world of the fixed image to world of the moving one, RAS+ millimetres.
        start: which start was taken: "identity", "geometry", "moments" or "correlation".
        metric_before, metric_after: mutual information (higher is better) of the identity and of `affine`.
        needed: False where the identity was kept.
    """

    affine: Matrix
    start: str
    metric_before: float
    metric_after: float
    needed: bool


def align(
    fixed: NDArray[np.float32],
    fixed_grid: Grid,
    moving: NDArray[np.float32],
    moving_grid: Grid,
    *,
    fixed_mask: NDArray[np.bool_] | None = None,
    moving_mask: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> Alignment:
    """Rigid, then affine, from the best of four starts; the identity is kept where it is as good.

    Args:
        fixed, moving: (I, J, K), scaled intensities; a few millimetres per voxel are enough.
        fixed_mask, moving_mask: voxels that count, on the same grids.
    """
    with _one_thread():
        return _align(fixed, fixed_grid, moving, moving_grid, fixed_mask, moving_mask, seed)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order in which several threads add up would show in the last digits.

    Only the global setting reaches all parts of a SimpleITK registration: its own one leaves the optimiser's gradients
    to many threads.
    """
    process = simpleitk().ProcessObject
    threads = process.GetGlobalDefaultNumberOfThreads()
    process.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        process.SetGlobalDefaultNumberOfThreads(threads)


def _align(
    fixed: NDArray[np.float32],
    fixed_grid: Grid,
    moving: NDArray[np.float32],
    moving_grid: Grid,
    fixed_mask: NDArray[np.bool_] | None,
    moving_mask: NDArray[np.bool_] | None,
    seed: int,
) -> Alignment:
    sitk = simpleitk()
    images = to_sitk(fixed, fixed_grid), to_sitk(moving, moving_grid)
    masks = (
        None if fixed_mask is None else to_sitk(fixed_mask, fixed_grid),
        None if moving_mask is None else to_sitk(moving_mask, moving_grid),
    )
    starts = {
        "identity": sitk.Euler3DTransform(),
        "geometry": _centred(images, "GEOMETRY"),
        "moments": _centred(images, "MOMENTS"),
        "correlation": sitk.Euler3DTransform(),
    }
    starts["correlation"].SetTranslation(vector_to_sitk(best_translation(fixed, fixed_grid, moving, moving_grid)))

    def score(transform: Any) -> float:
        return _mutual_information(*images, masks, transform, seed) if _plausible(transform) else -np.inf

    before = score(starts["identity"])
    rigid: dict[str, Any] = {}
    for name, start in starts.items():
        if np.isfinite(score(start)):
            centred = _at_centre(images[0], start)
            # A coarse search can leave a good start for a larger overlap that matches worse.
            rigid[name] = max(centred, _optimise(images, masks, centred, seed, COARSE_LEVELS), key=score)
    if not rigid:
        warnings.warn(
            "the images do not overlap under any start of the affine pre-alignment; it is skipped", stacklevel=2
        )
        return Alignment(np.eye(4), "identity", before, before, False)
    best = max(rigid, key=lambda name: score(rigid[name]))
    finer = max(rigid[best], _optimise(images, masks, rigid[best], seed, FINE_LEVELS), key=score)
    affine = sitk.AffineTransform(3)
    affine.SetCenter(finer.GetCenter())
    affine.SetMatrix(finer.GetMatrix())
    affine.SetTranslation(finer.GetTranslation())
    winner = max(finer, _optimise(images, masks, affine, seed, FINE_LEVELS), key=score)
    after = score(winner)
    if after <= before * (1 + NEEDED_GAIN):
        return Alignment(np.eye(4), "identity", before, before, False)
    return Alignment(affine_from_sitk(winner), best, before, after, True)


def _centred(images: tuple[Any, Any], by: str) -> Any:
    sitk = simpleitk()
    mode = getattr(sitk.CenteredTransformInitializerFilter, by)
    # Moments need weights, which Hounsfield units below 0 are not.
    shifted = [sitk.Cast(image - float(sitk.GetArrayViewFromImage(image).min()), sitk.sitkFloat32) for image in images]
    return sitk.Euler3DTransform(sitk.CenteredTransformInitializer(*shifted, sitk.Euler3DTransform(), mode))


def _at_centre(fixed: Any, transform: Any) -> Any:
    """The same rigid map with its centre of rotation in the middle of the fixed image."""
    sitk = simpleitk()
    centre = fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()])
    moved = sitk.Euler3DTransform()
    moved.SetCenter(centre)
    moved.SetMatrix(transform.GetMatrix())
    moved.SetTranslation((np.array(transform.TransformPoint(centre)) - centre).tolist())
    return moved


def _method(fixed: Any, masks: tuple[Any, Any], seed: int, shrink: tuple[int, ...] = (1,)) -> Any:
    method = simpleitk().ImageRegistrationMethod()
    voxels = fixed.GetNumberOfPixels()
    shares = [min(1.0, SAMPLES * factor**3 / voxels) for factor in shrink]
    method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentagePerLevel(shares, seed + 1)
    # Gradients at the samples alone: filtered ones of whole images take longer than all the rest.
    method.SetMetricUseFixedImageGradientFilter(False)
    method.SetMetricUseMovingImageGradientFilter(False)
    method.SetInterpolator(simpleitk().sitkLinear)
    method.SetShrinkFactorsPerLevel(shrink)
    if masks[0] is not None:
        method.SetMetricFixedMask(masks[0])
    if masks[1] is not None:
        method.SetMetricMovingMask(masks[1])
    return method


def _mutual_information(fixed: Any, moving: Any, masks: tuple[Any, Any], transform: Any, seed: int) -> float:
    """Higher is better; minus infinity where too little of the images overlaps."""
    method = _method(fixed, masks, seed)
    method.SetSmoothingSigmasPerLevel((0.0,))
    method.SetInitialTransform(transform)
    try:
        return -float(method.MetricEvaluate(fixed, moving))
    except RuntimeError:
        return -np.inf


def _optimise(
    images: tuple[Any, Any], masks: tuple[Any, Any], start: Any, seed: int, levels: tuple[tuple[int, float], ...]
) -> Any:
    """The start improved, or the start itself where the metric loses the overlap on the way."""
    method = _method(images[0], masks, seed, tuple(factor for factor, _ in levels))
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=FIRST_STEP_MM,
        minStep=LAST_STEP_MM,
        numberOfIterations=ITERATIONS,
        relaxationFactor=0.5,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetSmoothingSigmasPerLevel(tuple(sigma for _, sigma in levels))
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(False)
    moved = type(start)(start)
    method.SetInitialTransform(moved, inPlace=True)
    try:
        method.Execute(*images)
    except RuntimeError:
        return start
    return moved


def _plausible(transform: Any) -> bool:
    stretches = np.linalg.svd(affine_from_sitk(transform)[:3, :3], compute_uv=False)
    return bool(stretches.max() < LARGEST_SCALE and stretches.min() > 1 / LARGEST_SCALE)
