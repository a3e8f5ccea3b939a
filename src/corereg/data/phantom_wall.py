"""Phantom, stage 3 of 4, first coat: skin, fat and muscle of the trunk, and its bones.

Upstream: phantom_torso. Downstream: phantom_anatomy.
"""

import numpy as np

from corereg.data.phantom_shapes import Array, Canvas, Coords, Shape, Window, capsules, curve, ellipsoid, smooth_max
from corereg.data.phantom_torso import PITCH_MM, VERTEBRA_Z, Frame, level, spine_y

__all__ = ["paint_skeleton", "paint_wall"]

SKIN_HU, FAT_HU, MUSCLE_HU, INNER_FAT_HU = 15.0, -100.0, 52.0, -95.0
CORTEX_HU, MARROW_HU, DISC_HU, CARTILAGE_HU, CORD_HU = 850.0, 280.0, 90.0, 140.0, 25.0
"""Tissues, in HU of a contrast-enhanced CT. Vessels and organs stand beside their shapes."""

SKIN_MM = 2.5
CORTEX_MM = 2.5
DISC_MM = (4.0, 8.0)
"""Height of the discs in the upper chest and in the loin."""

BOX_MM = 400.0
"""Larger than any field of view."""

SPINE_BOX_MM = (48.0, -110.0, 10.0)
"""Half width, back and front of the box around the spine."""

CANAL_RADIUS_MM, ARCH_MM, LAMINA_MM = 8.5, 4.5, 3.0
TRANSVERSE_MM = ((28.0, 40.0), 5.0)
"""Reach of the transverse processes (chest, loin), and their half thickness."""
SPINOUS_MM = (3.2, 8.5, 30.0)
"""Half width, half height and length of the spinous processes behind the canal."""
SPINOUS_SLANT = (0.75, 0.15)
"""Drop per millimetre of length, chest and loin."""
LOIN_Z, CHEST_Z = -40.0, 120.0
"""Below and above, a vertebra is wholly lumbar or thoracic."""

RIB_COUNT, T12 = 12, 7
"""Pairs of ribs; index of the twelfth thoracic vertebra in VERTEBRA_Z."""
RIB_DEPTH_MM, RIB_HALF_THICKNESS_MM, RIB_HALF_HEIGHT_MM = 5.5, 3.8, 6.8
RIB_FALL_MM = (55.0, 95.0, 125.0, 145.0, 155.0, 160.0, 160.0, 163.0, 167.0, 172.0, 175.0, 150.0)
"""How far rib 1 ... 12 would sink on the way from the spine to the front."""
RIB_END = (0.84, 0.82, 0.80, 0.79, 0.78, 0.76, 0.74, 0.69, 0.63, 0.57, 0.42, 0.30)
"""Where its bone ends, as a fraction of that way."""
RIB_START = 0.13
RIB_FALL_POWER = 0.9
CARTILAGE_RISE_MM, LAST_CARTILAGE = (0.0, 60.0, 140.0, 220.0, 290.0, 340.0, 380.0, 400.0, 420.0, 420.0), 0.95
"""How steeply the cartilages of rib 1 ... 10 rise to the sternum per unit of the way, and where they end."""

STERNUM_Z, STERNUM_HALF_WIDTH_MM = (78.0, 232.0), 17.0


def _box(half_x: float, y: tuple[float, float], z: tuple[float, float]) -> Shape:
    """A box without a surface: for finding a window."""
    return Shape((-half_x, y[0], z[0]), (half_x, y[1], z[1]), lambda coords: np.zeros_like(coords[0]))


def paint_wall(canvas: Canvas, frame: Frame) -> None:
    """Skin, fat, muscle, the fat inside the cavity, and the muscles that bulge into it."""
    canvas.paint_sdf(frame.skin, SKIN_HU)
    canvas.paint_sdf(frame.skin + np.float32(SKIN_MM), FAT_HU, texture_hu=(5, 5))
    canvas.paint_sdf(frame.muscle, MUSCLE_HU, texture_hu=(5, 7))
    _paint_muscle_planes(canvas, frame)
    canvas.paint_sdf(frame.cavity, INNER_FAT_HU, texture_hu=(5, 10))
    for side in (1, -1):
        canvas.paint(ellipsoid((side * 128, -12, 236), (20, 34, 58)), FAT_HU + 10, texture_hu=(5, 10))
        canvas.paint(ellipsoid((side * 106, -50, 230), (34, 8, 50), _turn_z(side * 0.8).T), FAT_HU + 25, texture_hu=(5, 10))
        psoas = [(30, -26, 12, 9), (38, -24, -36, 16), (46, -20, -80, 21), (58, -8, -130, 25), (68, 8, -175, 27)]
        for shape in capsules(*curve([(side * x, y, z, r) for x, y, z, r in psoas], 14)):
            canvas.paint(shape, MUSCLE_HU + 6, texture_hu=(4, 5))
        canvas.paint(ellipsoid((side * 66, -60, -62), (24, 11, 62)), MUSCLE_HU, texture_hu=(4, 5))
        crus = [(side * 12, spine_y(-30) + 20, -30, 5), (side * 15, spine_y(10) + 22, 10, 5), (side * 16, -6, 62, 4.5)]
        for shape in capsules(*curve(crus)):
            canvas.paint(shape, MUSCLE_HU)


def _paint_muscle_planes(canvas: Canvas, frame: Frame) -> None:
    """Thin fat between muscles: around the erector spinae, and the midline behind."""
    x, y, z = canvas.coords
    for side in (1, -1):
        across = (x - np.float32(side * 34)) / 32
        behind = (y - (level("muscle_y", z) - level("muscle_b", z) + 22)) / 17
        rim = np.abs(np.sqrt(across**2 + behind**2) - 1) * 22 - np.float32(1.0)
        canvas.paint_sdf(smooth_max(rim, frame.muscle + 2, 2.0), -50.0)


def paint_skeleton(canvas: Canvas, frame: Frame) -> None:
    """Spine with discs and canal, ribs with cartilages, sternum, shoulder blades, collar bones, hip bones."""
    _paint_ribs(canvas, frame)
    _paint_sternum(canvas, frame)
    for side in (1, -1):
        blade = ellipsoid((side * 94, -70, 216), (38, 5, 62), _turn_z(side * 0.6).T)
        _paint_bone(canvas, blade)
        clavicle = [(side * 16, 44, 240, 8), (side * 50, 46, 256, 6), (side * 100, 18, 276, 6), (side * 140, -8, 286, 7)]
        for shape in capsules(*curve(clavicle, 16)):
            _paint_bone(canvas, shape)
        tilted = _turn_z(side * 0.55) @ _turn_y(-side * 0.42)
        hip = ellipsoid((side * 98, 0, -168), (8, 60, 62), tilted.T, power=2.3)
        _paint_bone(canvas, hip)
    _paint_spine(canvas)


def _turn_z(angle: float) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _turn_y(angle: float) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def _bone_hu(sdf: Array) -> Array:
    """Marrow inside, cortex within CORTEX_MM of the surface."""
    depth = np.clip((-sdf - np.float32(CORTEX_MM - 1)) / 2, 0, 1)
    return np.asarray(CORTEX_HU + (MARROW_HU - CORTEX_HU) * depth, np.float32)


def _paint_bone(canvas: Canvas, shape: Shape, name: str = "") -> None:
    where = canvas.window(shape)
    if where is not None:
        sdf = shape.sdf(_at(canvas, where))
        canvas.paint_sdf(sdf, _bone_hu(sdf), name, where=where, texture_hu=(0, 30))


def _at(canvas: Canvas, where: Window) -> Coords:
    x, y, z = (c[where] for c in canvas.coords)
    return x, y, z


def _paint_spine(canvas: Canvas) -> None:
    """All vertebrae at once: along the spine their shapes repeat, so positions are folded onto one vertebra."""
    half_x, back, front = SPINE_BOX_MM
    where = canvas.window(_box(half_x, (back, front), (-BOX_MM, BOX_MM)))
    if where is None:
        return
    x, y, z = _at(canvas, where)
    behind = spine_y(z) - y
    half_depth = level("spine_half_depth", z)
    thoracic = np.clip((z - LOIN_Z) / (CHEST_Z - LOIN_Z), 0, 1)
    from_centre, pitch = _fold(z)
    disc = DISC_MM[1] + (DISC_MM[0] - DISC_MM[1]) * thoracic
    above_end = np.abs(from_centre) - (pitch - disc) / 2
    waist = 1 - np.float32(0.07) * np.cos(from_centre / pitch * np.float32(2 * np.pi))
    level_size = np.sqrt((x / (level("spine_half_width", z) * waist)) ** 2 + (behind / (half_depth * waist)) ** 2)
    column = (level_size - 1) * half_depth
    body = smooth_max(column, above_end, 3.0)

    canal = np.sqrt((x / np.float32(1.2)) ** 2 + (behind - half_depth - CANAL_RADIUS_MM) ** 2) - CANAL_RADIUS_MM
    ring = smooth_max(np.abs(canal - LAMINA_MM) - LAMINA_MM, np.abs(from_centre) - pitch * np.float32(0.34), 3.0)
    past_canal = behind - half_depth - 2 * CANAL_RADIUS_MM
    spinous = _spinous(x, z, past_canal, thoracic)
    reach = TRANSVERSE_MM[0][1] + (TRANSVERSE_MM[0][0] - TRANSVERSE_MM[0][1]) * thoracic
    off_axis = np.sqrt((past_canal + CANAL_RADIUS_MM) ** 2 + from_centre**2) - TRANSVERSE_MM[1]
    transverse = smooth_max(off_axis, np.abs(x) - reach, 3.0)
    arch = np.minimum(np.minimum(ring, spinous), transverse)

    canvas.paint_sdf(column, DISC_HU, "spine", where=where)
    for bone in (body, arch):
        canvas.paint_sdf(bone, _bone_hu(bone), "spine", where=where, texture_hu=(15, 30))
    canvas.paint_sdf(canal, CORD_HU, where=where)
    canvas.paint_sdf(canal + 4, CORD_HU + 20, where=where)


def _spinous(x: Array, z: Array, past_canal: Array, thoracic: Array) -> Array:
    half_width, half_height, length = (np.float32(v) for v in SPINOUS_MM)
    slant = SPINOUS_SLANT[1] + (SPINOUS_SLANT[0] - SPINOUS_SLANT[1]) * thoracic
    # Sheared before it is folded: a process may reach down to the next vertebra's level without a break.
    from_centre, _ = _fold(z + slant * np.maximum(past_canal, 0))
    flat = smooth_max(np.abs(x) - half_width, np.abs(from_centre) - half_height, 2.0)
    return smooth_max(flat, np.maximum(past_canal - length, -past_canal - 2), 3.0)


def _fold(z: Array) -> tuple[Array, Array]:
    """Height above the centre of the nearest vertebra, and the height of one vertebra with its disc."""
    indices = np.arange(len(VERTEBRA_Z))
    position = np.interp(z, VERTEBRA_Z, indices).astype(np.float32)
    pitch = np.interp(z, VERTEBRA_Z, PITCH_MM).astype(np.float32)
    return (position - np.round(position)) * pitch, pitch


def _paint_ribs(canvas: Canvas, frame: Frame) -> None:
    """Ribs lie on one surface a little outside the cavity, each at its own height."""
    shell = np.abs(frame.cavity - np.float32(RIB_DEPTH_MM))
    near = shell < 12
    x, y, z = (c[near] for c in canvas.coords)
    across = shell[near] / RIB_HALF_THICKNESS_MM
    way = np.arctan2(np.abs(x), level("cavity_y", z) - y) / np.float32(np.pi)
    bone = np.full(x.shape, np.float32(BOX_MM))
    cartilage = bone.copy()
    for rib in range(RIB_COUNT):
        fall, end = np.float32(RIB_FALL_MM[rib]), np.float32(RIB_END[rib])
        centre = np.float32(VERTEBRA_Z[T12 + 11 - rib] + 8) - fall * np.minimum(way, end) ** RIB_FALL_POWER
        slope = np.float32(1 / np.sqrt(1 + (fall / 330) ** 2))
        round_ = (np.sqrt(across**2 + ((z - centre) * slope / RIB_HALF_HEIGHT_MM) ** 2) - 1) * RIB_HALF_THICKNESS_MM
        bone = np.minimum(bone, np.maximum(round_, np.maximum(way - end, RIB_START - way) * 300))
        if rib < len(CARTILAGE_RISE_MM):
            centre = centre + CARTILAGE_RISE_MM[rib] * np.maximum(way - end, 0)
            round_ = (np.sqrt(across**2 + ((z - centre) / RIB_HALF_HEIGHT_MM) ** 2) - 1) * RIB_HALF_THICKNESS_MM
            cartilage = np.minimum(cartilage, np.maximum(round_, np.maximum(way - LAST_CARTILAGE, end - way) * 300))
    for sdf, hu, name in ((cartilage, CARTILAGE_HU, ""), (bone, _bone_hu(bone), "ribs")):
        full = np.full(near.shape, np.float32(BOX_MM))
        full[near] = sdf
        value = np.full(near.shape, np.float32(MARROW_HU))
        value[near] = hu
        canvas.paint_sdf(full, value, name)


def _paint_sternum(canvas: Canvas, frame: Frame) -> None:
    where = canvas.window(_box(2 * STERNUM_HALF_WIDTH_MM, (20.0, 150.0), STERNUM_Z))
    if where is None:
        return
    x, y, z = _at(canvas, where)
    middle, half = sum(STERNUM_Z) / 2, (STERNUM_Z[1] - STERNUM_Z[0]) / 2
    width = STERNUM_HALF_WIDTH_MM + np.float32(8) * np.clip((z - 190) / 40, 0, 1)
    plate = np.maximum(np.abs(frame.cavity[where] - 6) - 5, np.abs(x) - width)
    sdf = smooth_max(np.maximum(plate, -y), np.abs(z - np.float32(middle)) - np.float32(half), 5.0)
    canvas.paint_sdf(sdf, _bone_hu(sdf), "sternum", where=where, texture_hu=(0, 30))
