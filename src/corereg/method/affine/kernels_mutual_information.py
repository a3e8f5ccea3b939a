"""Compiled loops of `mutual_information`, on one thread so that sums come out the same every time.

Legend: N places, BINS bins; volume (I, J, K) in units of bins, so that a value's integer part is its bin; mask
(I, J, K) from 0 to 1, or a single voxel if all voxels count.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

import numpy as np

from corereg.geometry.kernels.threads import kernel

__all__ = ["compare", "derivative"]

FAR = 1e9


@kernel
def compare(points, to_vox, fixed_bins, volume, mask, bins):  # noqa: C901 (one pass over the places)
    """Joint histogram (bins, bins) of the weights; and for each place, (N, 12): the moving value and its derivatives
    along i, j, k; the weight and its derivatives; the weight without the mask and its derivatives.
    """
    joint = np.zeros((bins, bins))
    seen = np.zeros((len(points), 12))
    size = volume.shape
    place, low, part = np.zeros(3), np.zeros(3, np.int64), np.zeros(3)
    for n in range(len(points)):
        depth, nearest, sign = FAR, 0, 0.0
        for a in range(3):
            x = to_vox[a, 3]
            for b in range(3):
                x += to_vox[a, b] * points[n, b]
            place[a] = x
            if x < depth:
                depth, nearest, sign = x, a, 1.0
            if size[a] - 1 - x < depth:
                depth, nearest, sign = size[a] - 1 - x, a, -1.0
        if depth <= -0.5:
            continue
        for a in range(3):
            x = min(max(place[a], 0.0), size[a] - 1.0)
            low[a] = min(int(x), max(size[a] - 2, 0))
            part[a] = x - low[a]
        value, weight = 0.0, 1.0 if mask.size == 1 else 0.0
        for corner in range(8):
            i, j, k = corner >> 2, (corner >> 1) & 1, corner & 1
            at = min(low[0] + i, size[0] - 1), min(low[1] + j, size[1] - 1), min(low[2] + k, size[2] - 1)
            u = part[0] if i else 1 - part[0]
            v = part[1] if j else 1 - part[1]
            w = part[2] if k else 1 - part[2]
            by_i, by_j, by_k = (2 * i - 1) * v * w, (2 * j - 1) * u * w, (2 * k - 1) * u * v
            here = volume[at]
            value += u * v * w * here
            seen[n, 1] += by_i * here
            seen[n, 2] += by_j * here
            seen[n, 3] += by_k * here
            if mask.size > 1:
                here = mask[at]
                weight += u * v * w * here
                seen[n, 5] += by_i * here
                seen[n, 6] += by_j * here
                seen[n, 7] += by_k * here
        for a in range(3):
            if place[a] < 0 or place[a] > size[a] - 1:
                seen[n, 1 + a] = seen[n, 5 + a] = 0.0
        # Places fade out over one voxel at the border. If they dropped out one by one, the value would change in steps.
        seen[n, 8] = 1.0
        if depth < 0.5:
            seen[n, 8] = depth + 0.5
            seen[n, 9 + nearest] = sign
            for a in range(3):
                seen[n, 5 + a] = seen[n, 8] * seen[n, 5 + a] + weight * seen[n, 9 + a]
            weight *= seen[n, 8]
        seen[n, 0], seen[n, 4] = value, weight
        first = int(value) - 1
        t = value - first - 1
        r = 1 - t
        f = fixed_bins[n]
        joint[f, first] += weight * r**3 / 6
        joint[f, first + 1] += weight * (4 - 6 * t**2 + 3 * t**3) / 6
        joint[f, first + 2] += weight * (4 - 6 * r**2 + 3 * r**3) / 6
        joint[f, first + 3] += weight * t**3 / 6
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
        value, weight = seen[n, 0], seen[n, 4]
        if seen[n, 8] == 0:
            continue
        first = int(value) - 1
        t = value - first - 1
        r = 1 - t
        row = score[fixed_bins[n]]
        a, b, c, d = row[first], row[first + 1], row[first + 2], row[first + 3]
        slope = (-(r**2) * a + (3 * t**2 - 4 * t) * b + (4 * r - 3 * r**2) * c + t**2 * d) / 2
        gained = (r**3 * a + (4 - 6 * t**2 + 3 * t**3) * b + (4 - 6 * r**2 + 3 * r**3) * c + t**3 * d) / 6
        for axis in range(3):
            force = weight * slope * seen[n, 1 + axis] + gained * seen[n, 5 + axis]
            for column in range(3):
                by_score[axis, column] += force * points[n, column]
                by_cover[axis, column] += seen[n, 9 + axis] * points[n, column]
            by_score[axis, 3] += force
            by_cover[axis, 3] += seen[n, 9 + axis]
    return by_score, by_cover
