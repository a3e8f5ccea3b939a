"""Pairs whose motion is known: a CT, and the same CT warped by a random diffeomorphism."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corereg.evaluation.metrics import warp_labels
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image

AIR_HU = -500.0
"""Threshold between the patient and the air around."""

MEAN_MM, MAX_MM = 6.0, 30.0
"""Mean and largest length of the displacement over the body."""
LATTICE_MM, WIDTH_MM, BORDER_MM = 8.0, 30.0, 40.0
"""The velocity's lattice, its correlation (standard deviation of a Gaussian), and the rim in which it fades to 0."""
STEPS, SEARCH, SEARCH_STEPS = 8, 8, 2
"""Steps of the integration; rounds of the search for strength and contrast, and steps of its shorter integration."""
CORRECTIONS = 3
"""Newton steps that make the two directions inverse to each other, which splines on the lattice are only roughly."""
NOISE_HU, BIAS_HU, BIAS_WIDTH_MM, CONTRAST = 10.0, 15.0, 40.0, 1.05
"""How the moving image differs apart from the motion: white noise, a smooth bias, a factor."""

Field = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Two images of one grid, and the motion: moving(x + u(x)) = fixed(x), except for noise and intensities."""

    fixed: NDArray[np.float32]
    moving: NDArray[np.float32]
    grid: Grid
    disp_vox: NDArray[Any]
    """(3, I, J, K): u, in voxels."""
    labels: tuple[NDArray[Any], NDArray[Any]] | None = None
    """Label maps of the fixed and the moving image."""


def body(hu: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The patient: the largest connected piece that is not air, with holes filled slice by slice."""
    pieces, _ = ndimage.label(ndimage.binary_opening(hu > AIR_HU))
    largest = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    return np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(largest, 2, 0)], 2)


def random_diffeomorphism(grid: Grid, inside: NDArray[np.bool_], seed: int) -> tuple[Field, Field]:
    """Displacements (3, I, J, K) of exp(v) and exp(-v) in voxels; v is a smooth random velocity, 0 at the border.

    v is a cubic spline; both are integrated on its lattice by the fourth-order Runge-Kutta method. v is scaled, and its
    strong parts are made stronger, until exp(v) has MEAN_MM and MAX_MM over `inside`.
    """
    rng = np.random.default_rng(seed)
    spacing = np.array(grid.spacing)
    shape = [int(np.ceil((n - 1) * s / LATTICE_MM)) + 1 for n, s in zip(grid.shape, spacing, strict=True)]
    drawn = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), WIDTH_MM / LATTICE_MM) for _ in range(3)])
    for axis, size in enumerate(shape):
        depth = np.minimum(np.arange(size), np.arange(size)[::-1]) * LATTICE_MM / BORDER_MM
        drawn *= np.sin(np.pi / 2 * np.clip(depth, 0, 1)).reshape([-1 if a == axis else 1 for a in range(3)]) ** 2
    nodes = np.indices(grid.shape).astype(np.float64) * (spacing / LATTICE_MM).reshape(3, 1, 1, 1)

    def fine(disp: Field) -> Field:
        disp_mm = np.stack([ndimage.map_coordinates(d, nodes, order=3, mode="nearest") for d in disp]) * LATTICE_MM
        return np.asarray(disp_mm / spacing.reshape(3, 1, 1, 1))

    inner = ndimage.map_coordinates(inside.astype(np.float32), _lattice(shape, LATTICE_MM / spacing), order=1) > 0.5
    strength, contrast = 1.0, 0.0
    length = np.linalg.norm(drawn, axis=0)
    drawn, length = drawn / length[inner].mean(), length / length[inner].mean()
    for _ in range(SEARCH):
        velocity = strength * drawn * length**contrast
        there = np.linalg.norm(_flow(velocity, SEARCH_STEPS), axis=0)[inner] * LATTICE_MM
        strength *= MEAN_MM / there.mean()
        contrast += 0.7 * np.log(MAX_MM / MEAN_MM / (there.max() / there.mean()))
    there_vox, back_vox = fine(_flow(velocity)), fine(_flow(-velocity))
    for _ in range(CORRECTIONS):
        missed = there_vox + _pulled(back_vox, there_vox)
        there_vox = _pulled(there_vox, -missed) - missed
    return there_vox, back_vox


def _pulled(disp_vox: Field, by_vox: Field) -> Field:
    """disp_vox at x + by_vox(x), linear between voxels."""
    at = np.indices(disp_vox.shape[1:]) + by_vox
    return np.stack([ndimage.map_coordinates(d, at, order=1, mode="nearest") for d in disp_vox])


def _lattice(shape: Sequence[int], step: NDArray[np.float64]) -> Field:
    return np.indices(shape).astype(np.float64) * step.reshape(3, 1, 1, 1)


def _flow(velocity: Field, steps: int = STEPS) -> Field:
    """How far a unit of time carries the lattice's nodes, in steps of the lattice."""
    splines = [ndimage.spline_filter(v, mode="nearest") for v in velocity]
    start = np.indices(velocity.shape[1:]).astype(np.float64)

    def at(place: Field) -> Field:
        return np.stack([ndimage.map_coordinates(s, place, prefilter=False, mode="nearest") for s in splines])

    place, h = start, 1 / steps
    for _ in range(steps):
        a = at(place)
        b = at(place + h / 2 * a)
        c = at(place + h / 2 * b)
        d = at(place + h * c)
        place = place + h / 6 * (a + 2 * b + 2 * c + d)
    return place - start


def warped_pair(scan: Image, seed: int, labels: NDArray[Any] | None = None) -> Pair:
    """A CT as fixed image, and the same CT warped by a random diffeomorphism, with its own noise and intensities."""
    hu = scan.array.astype(np.float32)
    disp_vox, back_vox = random_diffeomorphism(scan.grid, body(hu), seed)
    there = np.indices(scan.grid.shape) + back_vox
    rng = np.random.default_rng([seed, 1])
    bias = ndimage.gaussian_filter(
        rng.standard_normal(hu.shape, np.float32), BIAS_WIDTH_MM / np.array(scan.grid.spacing)
    )
    moving = ndimage.map_coordinates(hu, there, order=3, mode="nearest").clip(hu.min(), hu.max())
    moving = CONTRAST * moving + BIAS_HU / bias.std() * bias + NOISE_HU * rng.standard_normal(hu.shape, np.float32)
    pair = Pair(hu, moving.round().clip(-1024, 3071).astype(np.float32), scan.grid, disp_vox)
    if labels is None:
        return pair
    return replace(pair, labels=(labels, warp_labels(labels, back_vox)))
