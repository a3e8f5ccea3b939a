"""Compiled loops of `mutual_information`, on one thread so that sums come out the same every time.

Legend: N places, BINS bins; volume (I, J, K) in units of bins, so that a value's integer part is its bin; mask
(I, J, K) from 0 to 1, or a single voxel if all voxels count.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

import numpy as np

from corereg.geometry.kernels.threads import inlined_kernel, kernel

__all__ = ["compare", "derivative"]


@inlined_kernel
def _trilinear(volume, i, j, k, u, v, w):
    """The value at (i + u, j + v, k + w), and its derivatives along the three axes."""
    x, y, z = min(i + 1, volume.shape[0] - 1), min(j + 1, volume.shape[1] - 1), min(k + 1, volume.shape[2] - 1)
    a, b, c, d = volume[i, j, k], volume[i, j, z], volume[i, y, k], volume[i, y, z]
    e, f, g, h = volume[x, j, k], volume[x, j, z], volume[x, y, k], volume[x, y, z]
    ab, cd, ef, gh = a + w * (b - a), c + w * (d - c), e + w * (f - e), g + w * (h - g)
    near, far = ab + v * (cd - ab), ef + v * (gh - ef)
    by_j = (1 - u) * (cd - ab) + u * (gh - ef)
    by_k = (1 - u) * ((1 - v) * (b - a) + v * (d - c)) + u * ((1 - v) * (f - e) + v * (h - g))
    return near + u * (far - near), far - near, by_j, by_k


@kernel
def compare(points, to_vox, fixed_bins, volume, mask, bins):
    """Joint histogram (bins, bins) of the weights; and for each place, (N, 12): the moving value and its derivatives
    along i, j, k; the weight and its derivatives; the weight without the mask and its derivatives.
    """
    joint = np.zeros((bins, bins))
    seen = np.empty((len(points), 12))
    end_i, end_j, end_k = volume.shape[0] - 1.0, volume.shape[1] - 1.0, volume.shape[2] - 1.0
    last_i, last_j, last_k = max(volume.shape[0] - 2, 0), max(volume.shape[1] - 2, 0), max(volume.shape[2] - 2, 0)
    masked = mask.size > 1
    for n in range(len(points)):
        p, q, s = points[n, 0], points[n, 1], points[n, 2]
        x = to_vox[0, 0] * p + to_vox[0, 1] * q + to_vox[0, 2] * s + to_vox[0, 3]
        y = to_vox[1, 0] * p + to_vox[1, 1] * q + to_vox[1, 2] * s + to_vox[1, 3]
        z = to_vox[2, 0] * p + to_vox[2, 1] * q + to_vox[2, 2] * s + to_vox[2, 3]
        depth = min(min(min(x, end_i - x), min(y, end_j - y)), min(z, end_k - z))
        if depth <= -0.5:
            seen[n] = 0.0
            continue
        u, v, w = min(max(x, 0.0), end_i), min(max(y, 0.0), end_j), min(max(z, 0.0), end_k)
        i, j, k = min(int(u), last_i), min(int(v), last_j), min(int(w), last_k)
        u, v, w = u - i, v - j, w - k
        value, by_i, by_j, by_k = _trilinear(volume, i, j, k, u, v, w)
        weight, weight_i, weight_j, weight_k = 1.0, 0.0, 0.0, 0.0
        if masked:
            weight, weight_i, weight_j, weight_k = _trilinear(mask, i, j, k, u, v, w)
        cover, cover_i, cover_j, cover_k = 1.0, 0.0, 0.0, 0.0
        if depth < 0.5:
            # Places fade out over one voxel at the border. If they dropped out one by one, the value would change in
            # steps.
            if x < 0 or x > end_i:
                by_i = weight_i = 0.0
            if y < 0 or y > end_j:
                by_j = weight_j = 0.0
            if z < 0 or z > end_k:
                by_k = weight_k = 0.0
            cover = depth + 0.5
            if depth == x or depth == end_i - x:
                cover_i = 1.0 if depth == x else -1.0
            elif depth == y or depth == end_j - y:
                cover_j = 1.0 if depth == y else -1.0
            else:
                cover_k = 1.0 if depth == z else -1.0
            weight_i = cover * weight_i + weight * cover_i
            weight_j = cover * weight_j + weight * cover_j
            weight_k = cover * weight_k + weight * cover_k
            weight *= cover
        row = seen[n]
        row[0], row[1], row[2], row[3] = value, by_i, by_j, by_k
        row[4], row[5], row[6], row[7] = weight, weight_i, weight_j, weight_k
        row[8], row[9], row[10], row[11] = cover, cover_i, cover_j, cover_k
        first = int(value) - 1
        t = value - first - 1
        r = 1 - t
        line = joint[fixed_bins[n]]
        line[first] += weight * r**3 / 6
        line[first + 1] += weight * (4 - 6 * t**2 + 3 * t**3) / 6
        line[first + 2] += weight * (4 - 6 * r**2 + 3 * r**3) / 6
        line[first + 3] += weight * t**3 / 6
    return joint, seen


@kernel
def derivative(points, fixed_bins, seen, score):
    """Sums over the places of d(weight x score) / d(voxel position) x (place, 1), and the same for the weight without
    the mask: (3, 4) each.

    Args:
        score: (bins, bins), the contribution of a sample in each cell.
    """
    by_score, by_cover = np.zeros((3, 4)), np.zeros((3, 4))
    for n in range(len(points)):
        row = seen[n]
        value, weight, cover = row[0], row[4], row[8]
        if cover == 0:
            continue
        first = int(value) - 1
        t = value - first - 1
        r = 1 - t
        line = score[fixed_bins[n]]
        a, b, c, d = line[first], line[first + 1], line[first + 2], line[first + 3]
        slope = weight * (-(r**2) * a + (3 * t**2 - 4 * t) * b + (4 * r - 3 * r**2) * c + t**2 * d) / 2
        force_i, force_j, force_k = slope * row[1], slope * row[2], slope * row[3]
        if row[5] != 0 or row[6] != 0 or row[7] != 0:
            gained = (r**3 * a + (4 - 6 * t**2 + 3 * t**3) * b + (4 - 6 * r**2 + 3 * r**3) * c + t**3 * d) / 6
            force_i, force_j, force_k = force_i + gained * row[5], force_j + gained * row[6], force_k + gained * row[7]
        p, q, s = points[n, 0], points[n, 1], points[n, 2]
        for axis, force in enumerate((force_i, force_j, force_k)):
            by_score[axis, 0] += force * p
            by_score[axis, 1] += force * q
            by_score[axis, 2] += force * s
            by_score[axis, 3] += force
        if cover < 1:
            for axis in range(3):
                for column in range(3):
                    by_cover[axis, column] += row[9 + axis] * points[n, column]
                by_cover[axis, 3] += row[9 + axis]
    return by_score, by_cover
