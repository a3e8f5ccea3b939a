"""Keyword arguments of `register`. Made by `make reference` from `method/config.py`: do not edit."""

from collections.abc import Sequence
from os import PathLike
from typing import Literal

from typing_extensions import TypedDict

__all__ = ["RegisterSettings"]


class RegisterSettings(TypedDict, total=False):
    """Single settings of `register`; None leaves a setting as it is."""

    model: str | PathLike[str] | None
    """Model: mind, head-neck-ct, head-neck-ct-labels, random, or a .safetensors file written by `corereg train`."""
    modality: Literal["auto", "ct", "ct-abdomen", "mr"] | None
    """How intensities are scaled: ct, ct-abdomen (the abdominal window) or mr; auto decides for each image."""
    affine: Literal["auto", "none", "rigid", "rigid-only", "affine-only"] | None
    """Pre-alignment: auto finds an affine map for pairs without an initial transform, or a rigid one where stretching
    gains little; rigid a rigid one; none trusts the headers. rigid-only and affine-only stop there: nothing deforms."""
    spacing: float | None
    """Voxel size of the working grid in mm; by default chosen from the scans and the memory."""
    device: Literal["auto", "cpu", "cuda", "mps"] | None
    """Where to compute; auto takes CUDA where it is available."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] | None
    """Number type of the network's convolutions; auto takes the fastest on the device."""
    memory: float | None
    """Memory to plan for in GB (10^9 bytes), by default what is free; a working grid that would take more is made
    coarser."""
    uncertainty: bool | None
    """Also map by how many mm the result may be off, a bound that 95 % of the voxels keep, into uncertainty.nii.gz."""
    thresholds: str | PathLike[str] | None
    """Thresholds of the verdict, a file written by `corereg calibrate`; by default those on board."""
    guide_labels: bool | None
    """Let the label maps of both scans guide the registration; labels that only one scan has do not."""
    guide_only: Sequence[int | str] | None
    """Numbers or names of the labels that guide, such as 5,1 or liver,spleen; by default all that both scans have."""
    guide_weight: float | None
    """Weight of the labels that guide, relative to the images."""
    guide_points: bool | None
    """Let the landmarks of both scans guide the registration; otherwise they only measure it."""
    point_tolerance: float | None
    """Distance in mm by which guiding landmarks may miss their partners."""
    unmatched_points: bool | None
    """The landmarks are clouds in any order and number: find out which belong together."""
    points_only: bool | None
    """Register by landmarks alone, and by the surfaces of FIXED and MOVING where these are masks; intensities do not
    count."""
    passes: Sequence[int] | None
    """Strides of the coarse passes in working voxels, such as 8,4; by default the model's own, the last of them twice
    above 3 million voxels. The paper's are 8,8."""
    refine_steps: int | None
    """Adam steps of the instance optimisation; 0 skips it."""
    regularisation: float | Literal["auto"] | None
    """R, weight of the smoothness: larger is smoother; full grids above 3 million voxels take 0.7 of it. The paper
    trains with 1 and tests with the value that reaches a target SDlogJ; auto tries several on a copy of the pair whose
    motion is known, and takes the most accurate."""
    volume_preservation: float | None
    """Weight of volume change relative to the other smoothness; tissue bends and slides more easily than it changes
    volume. 0 in the paper."""
    parametrisation: Literal["displacement", "diffeomorphic"] | None
    """What is optimised: a displacement, or for diffeomorphic a velocity, whose flow cannot fold."""
    similarity: Literal["auto", "features", "correlation"] | None
    """What the refinement compares: features alone, or correlation: the images' local correlation joins the features on
    the 1/2 grid and replaces them on the full grid. It tolerates bias fields but needs scans of similar contrast; auto
    measures whether they are."""
    target_sdlogj: float | None
    """Search R until the displacement has this SDlogJ."""
    symmetric: bool | None
    """Register both directions and make the displacements inverse to each other: next to no folds at the same overlap,
    for about twice the time."""
    fine: bool | None
    """Refine on the full grid as well; by default on grids of up to 24 million voxels, or 9 million where features
    alone are compared."""
    seed: int | None
    """Same seed, same result."""
    refine: Literal["default", "paper"] | None
    """default, or paper: passes 8,8 and instance optimisation as published, one way and on the 1/2 grid alone. Other
    settings override it."""
