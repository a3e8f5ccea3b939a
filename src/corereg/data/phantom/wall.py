"""Phantom, stage 3 of 4, first layer: skin, fat and muscle of the trunk; and its bones, painted after the chest.

Upstream: torso. Downstream: anatomy.
"""

import numpy as np

from corereg.data.phantom.shapes import (
    Array,
    Canvas,
    Coords,
    Floats,
    Shape,
    Window,
    capsules,
    curve,
    ellipsoid,
    smooth_max,
    turned,
)
from corereg.data.phantom.tissues import HU, TEXTURE_HU
from corereg.data.phantom.torso import PITCH_MM, VERTEBRA_Z, Frame, level, spine_y
from corereg.data.phantom.tubes import mirrored, paint_tube

__all__ = ["paint_skeleton", "paint_wall"]

SKIN_MM, CORTEX_MM = 2.5, 2.5

# The right side; the left one is its mirror image. Knots: x, y, z, radius.
AXILLA = ((128, -12, 236), (20, 34, 58), 0.0)
"""Fat of the armpit: centre, radii, rotation about z (radians)."""
SUBSCAPULAR = ((106, -50, 230), (34, 8, 50), 0.8)
QUADRATUS = ((66, -60, -62), (24, 11, 62))
PSOAS = np.array(
    ((30, -26, 12, 9), (38, -24, -36, 16), (46, -20, -80, 21), (58, -8, -130, 25), (68, 8, -175, 27)), float
)
CRUS = np.array(((12, -7, -30, 5), (15, -13, 10, 5), (16, -6, 62, 4.5)), float)
SCAPULA = ((94, -70, 216), (38, 5, 62), 0.6)
CLAVICLE = np.array(((16, 44, 240, 8), (50, 46, 256, 6), (100, 18, 276, 6), (140, -8, 286, 7)), float)
HIP = ((98, 0, -168), (8, 60, 62), 0.55, -0.42, 2.3)
"""Wing of the hip bone: centre, radii, rotations about z and y, power."""

BACK_MUSCLE = (34.0, 22.0, 32.0, 17.0, 2.0)
"""Erector spinae: lateral and backward position, half axes (the second from the muscles' surface), rim of fat."""

FAR_MM = 400.0
"""A distance larger than any field of view."""

SPINE_BOX_MM = (48.0, -115.0, 15.0)
"""Half the width, back and front of the box around the spine."""
DISC_MM = (4.0, 8.0)
"""Height of the discs in the upper chest and in the lumbar spine."""
WAIST = 0.07
"""How much narrower a vertebral body is at half height."""
CANAL_RADIUS_MM, CANAL_FLATNESS, FLUID_MM, LAMINA_MM, LAMINA_SHARE = 8.5, 1.2, 4.0, 3.0, 0.34
"""Spinal canal and the bone around it; half the height of the laminae as a share of a vertebra's."""
TRANSVERSE_MM, TRANSVERSE_HALF_MM = (28.0, 40.0), 5.0
"""Reach of the transverse processes (thoracic, lumbar), and half their thickness."""
SPINOUS_MM, SPINOUS_SLANT = (3.4, 8.5, 30.0), (0.75, 0.15)
"""Spinous processes: half width, half height, length behind the canal; drop per millimetre, thoracic and lumbar."""
LUMBAR_Z, THORACIC_Z = -40.0, 120.0
"""Heights below and above which a vertebra is entirely lumbar or thoracic."""

T12 = 7
"""Index of the twelfth thoracic vertebra in VERTEBRA_Z."""
RIB_DEPTH_MM, RIB_HALF_THICKNESS_MM, RIB_HALF_HEIGHT_MM, RIB_LIFT_MM = 5.5, 3.8, 6.8, 8.0
"""Distance of a rib's middle from the cavity, size of its section, height of its head above its vertebra's centre."""
RIB_FALL_MM = (55.0, 95.0, 125.0, 145.0, 155.0, 160.0, 160.0, 163.0, 167.0, 172.0, 175.0, 150.0)
"""Descent of ribs 1 to 12 over the whole path from the spine to the front."""
RIB_START, RIB_END = 0.13, (0.84, 0.82, 0.80, 0.79, 0.78, 0.76, 0.74, 0.69, 0.63, 0.57, 0.42, 0.30)
"""Start and end of the ribs' bone, as fractions of that path."""
RIB_FALL_POWER, HALF_WAY_ROUND_MM = 0.9, 330.0
CARTILAGE_RISE_MM = (0.0, 60.0, 140.0, 220.0, 290.0, 340.0, 380.0, 400.0, 420.0, 420.0)
"""Rise of the cartilages of ribs 1 to 10 towards the sternum, per unit of the path."""
CARTILAGE_END = 0.95

STERNUM_Z, STERNUM_HALF_WIDTH_MM, STERNUM_HALF_DEPTH_MM = (78.0, 232.0), 17.0, 5.0
MANUBRIUM_Z, MANUBRIUM_MM, MANUBRIUM_TURN_MM = 190.0, 8.0, 40.0
"""Height at which the sternum starts to widen, by how much, and over which distance."""


def paint_wall(canvas: Canvas, frame: Frame) -> None:
    """Paint skin, fat, muscle, the fat inside the cavity, and the muscles that bulge into it."""
    muscle, texture = HU["muscle"], TEXTURE_HU["muscle"]
    canvas.paint_sdf(frame.skin, HU["skin"])
    canvas.paint_sdf(frame.skin + np.float32(SKIN_MM), HU["fat"], texture_hu=TEXTURE_HU["fat"])
    canvas.paint_sdf(frame.muscle, muscle, texture_hu=texture)
    for side in (1, -1):
        _paint_back_muscle(canvas, frame, side)
    canvas.paint_sdf(frame.cavity, HU["inner fat"], texture_hu=TEXTURE_HU["inner fat"])
    for side in (1, -1):
        for centre, radii, turn in (AXILLA, SUBSCAPULAR):
            pad = ellipsoid(mirrored(np.array(centre, float), side), radii, turned(about_z=side * turn))
            canvas.paint(pad, HU["fat"], texture_hu=TEXTURE_HU["fat"])
        paint_tube(canvas, mirrored(PSOAS, side), muscle, texture_hu=texture)
        centre, radii = QUADRATUS
        canvas.paint(ellipsoid(mirrored(np.array(centre, float), side), radii), muscle, texture_hu=texture)
        paint_tube(canvas, mirrored(CRUS, side), muscle)


def _paint_back_muscle(canvas: Canvas, frame: Frame, side: int) -> None:
    """Paint the thin layer of fat around the erector spinae."""
    x, y, z = canvas.coords
    lateral, behind, half_width, half_depth, rim_mm = BACK_MUSCLE
    across = (x - side * lateral) / half_width
    deep = (y - (level("muscle_y", z) - level("muscle_b", z) + behind)) / half_depth
    rim = np.abs(np.sqrt(across**2 + deep**2) - 1) * np.sqrt(half_width * half_depth) - rim_mm / 2
    canvas.paint_sdf(smooth_max(rim, frame.muscle + 2, 2.0), HU["fat between muscles"])


def paint_skeleton(canvas: Canvas, frame: Frame) -> None:
    """Paint ribs with cartilages, sternum, shoulder blades, collar bones, hip bones, and spine with discs and canal."""
    _paint_ribs(canvas, frame)
    _paint_sternum(canvas, frame)
    for side in (1, -1):
        centre, radii, turn = SCAPULA
        _paint_bone(canvas, ellipsoid(mirrored(np.array(centre, float), side), radii, turned(about_z=side * turn)))
        for shape in capsules(*curve(mirrored(CLAVICLE, side))):
            _paint_bone(canvas, shape)
        centre, radii, about_z, about_y, power = HIP
        axes = turned(about_y=side * about_y, about_z=side * about_z)
        _paint_bone(canvas, ellipsoid(mirrored(np.array(centre, float), side), radii, axes, power))
    # Last, so that no rib cuts off a transverse process.
    _paint_spine(canvas)


def _bone_hu(sdf: Floats) -> Array:
    """HU of a bone: marrow inside, cortex within CORTEX_MM of the surface."""
    depth = np.clip((-sdf - np.float32(CORTEX_MM - 1)) / 2, 0, 1)
    return np.asarray(HU["cortex"] + (HU["marrow"] - HU["cortex"]) * depth, np.float32)


def _paint_bone(canvas: Canvas, shape: Shape) -> None:
    where = canvas.window(shape)
    if where is not None:
        sdf = shape.sdf(_at(canvas, where))
        canvas.paint_sdf(sdf, _bone_hu(sdf), "", where=where, texture_hu=TEXTURE_HU["marrow"])


def _at(canvas: Canvas, where: Window) -> Coords:
    x, y, z = (c[where] for c in canvas.coords)
    return x, y, z


def _box(half_x: float, y: tuple[float, float], z: tuple[float, float]) -> Shape:
    """A box without a surface, to find a window with."""
    return Shape((-half_x, y[0], z[0]), (half_x, y[1], z[1]), lambda coords: np.zeros_like(coords[0]))


def _paint_spine(canvas: Canvas) -> None:
    """Paint all vertebrae at once: shapes repeat along the spine, so positions are folded onto one vertebra."""
    half_x, back, front = SPINE_BOX_MM
    where = canvas.window(_box(half_x, (back, front), (-FAR_MM, FAR_MM)))
    if where is None:
        return
    x, y, z = _at(canvas, where)
    behind = spine_y(z) - y
    half_depth = level("spine_half_depth", z)
    thoracic = np.clip((z - LUMBAR_Z) / (THORACIC_Z - LUMBAR_Z), 0, 1)
    from_centre, pitch = _fold(z)

    disc = DISC_MM[1] + (DISC_MM[0] - DISC_MM[1]) * thoracic
    waist = 1 - WAIST * np.cos(from_centre / pitch * np.float32(2 * np.pi))
    size = np.sqrt((x / (level("spine_half_width", z) * waist)) ** 2 + (behind / (half_depth * waist)) ** 2)
    column = (size - 1) * half_depth
    body = smooth_max(column, np.abs(from_centre) - (pitch - disc) / 2, 3.0)

    past_canal = behind - half_depth - 2 * CANAL_RADIUS_MM
    from_canal = past_canal + CANAL_RADIUS_MM
    canal = np.sqrt((x / CANAL_FLATNESS) ** 2 + from_canal**2) - CANAL_RADIUS_MM
    ring = smooth_max(np.abs(canal - LAMINA_MM) - LAMINA_MM, np.abs(from_centre) - pitch * LAMINA_SHARE, 3.0)
    reach = TRANSVERSE_MM[1] + (TRANSVERSE_MM[0] - TRANSVERSE_MM[1]) * thoracic
    rod = np.sqrt(from_canal**2 + from_centre**2) - TRANSVERSE_HALF_MM
    transverse = smooth_max(rod, np.abs(x) - reach, 3.0)
    arch = np.minimum(np.minimum(ring, _spinous(x, z, past_canal, thoracic)), transverse)

    canvas.paint_sdf(column, HU["disc"], "spine", where=where)
    for bone in (body, arch):
        canvas.paint_sdf(bone, _bone_hu(bone), "spine", where=where, texture_hu=TEXTURE_HU["marrow"])
    canvas.paint_sdf(canal, HU["spinal fluid"], where=where)
    canvas.paint_sdf(canal + np.float32(FLUID_MM), HU["spinal cord"], where=where)


def _spinous(x: Array, z: Array, past_canal: Floats, thoracic: Floats) -> Array:
    half_width, half_height, length = SPINOUS_MM
    slant = SPINOUS_SLANT[1] + (SPINOUS_SLANT[0] - SPINOUS_SLANT[1]) * thoracic
    # Sheared before folding, so that a process can reach down to the next vertebra's level without a break.
    from_centre, _ = _fold(z + slant * np.maximum(past_canal, 0))
    flat = smooth_max(np.abs(x) - half_width, np.abs(from_centre) - half_height, 2.0)
    return smooth_max(flat, np.maximum(past_canal - length, -past_canal - 2), 3.0)


def _fold(z: Floats) -> tuple[Array, Array]:
    """Height above the centre of the nearest vertebra, and height of a vertebra with its disc."""
    position = np.interp(z, VERTEBRA_Z, np.arange(len(VERTEBRA_Z))).astype(np.float32)
    pitch = np.interp(z, VERTEBRA_Z, PITCH_MM).astype(np.float32)
    offset: Array = position - np.round(position).astype(np.float32)
    return offset * pitch, pitch


def _paint_ribs(canvas: Canvas, frame: Frame) -> None:
    """Paint the ribs, which lie on one surface slightly outside the cavity, each at its own height."""
    shell = np.abs(frame.cavity - np.float32(RIB_DEPTH_MM))
    near = shell < 3 * RIB_HALF_THICKNESS_MM
    x, y, z = (c[near] for c in canvas.coords)
    across = shell[near] / RIB_HALF_THICKNESS_MM
    along = np.arctan2(np.abs(x), level("cavity_y", z) - y) / np.float32(np.pi)
    bone, cartilage = (np.full(x.shape, np.float32(FAR_MM)) for _ in range(2))
    for rib, (fall, end) in enumerate(zip(RIB_FALL_MM, RIB_END, strict=True)):
        head = VERTEBRA_Z[T12 + len(RIB_END) - 1 - rib] + RIB_LIFT_MM
        centre = head - fall * np.minimum(along, end) ** RIB_FALL_POWER
        steepness = float(np.hypot(1, fall / HALF_WAY_ROUND_MM))
        ends = np.maximum(along - end, RIB_START - along) * HALF_WAY_ROUND_MM
        bone = np.minimum(bone, np.maximum(_rib_section(across, (z - centre) / steepness), ends))
        if rib < len(CARTILAGE_RISE_MM):
            centre = centre + CARTILAGE_RISE_MM[rib] * np.maximum(along - end, 0)
            ends = np.maximum(along - CARTILAGE_END, end - along) * HALF_WAY_ROUND_MM
            cartilage = np.minimum(cartilage, np.maximum(_rib_section(across, z - centre), ends))
    tissues = ((cartilage, np.full_like(x, HU["cartilage"]), ""), (bone, _bone_hu(bone), "ribs"))
    for sdf_near, hu_near, name in tissues:
        sdf, hu = np.full(near.shape, np.float32(FAR_MM)), np.zeros(near.shape, np.float32)
        sdf[near], hu[near] = sdf_near, hu_near
        canvas.paint_sdf(sdf, hu, name)


def _rib_section(across: Floats, height: Floats) -> Array:
    size = np.sqrt(across**2 + (height / RIB_HALF_HEIGHT_MM) ** 2)
    return np.asarray((size - 1) * RIB_HALF_THICKNESS_MM, np.float32)


def _paint_sternum(canvas: Canvas, frame: Frame) -> None:
    where = canvas.window(_box(2 * STERNUM_HALF_WIDTH_MM, (20.0, 150.0), STERNUM_Z))
    if where is None:
        return
    x, y, z = _at(canvas, where)
    low, high = STERNUM_Z
    width = STERNUM_HALF_WIDTH_MM + MANUBRIUM_MM * np.clip((z - MANUBRIUM_Z) / MANUBRIUM_TURN_MM, 0, 1)
    plate = np.maximum(np.abs(frame.cavity[where] - RIB_DEPTH_MM) - STERNUM_HALF_DEPTH_MM, np.abs(x) - width)
    sdf = smooth_max(np.maximum(plate, -y), np.abs(z - (low + high) / 2) - (high - low) / 2, 5.0)
    canvas.paint_sdf(sdf, _bone_hu(sdf), "sternum", where=where, texture_hu=TEXTURE_HU["marrow"])
