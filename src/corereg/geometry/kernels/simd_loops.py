"""Inner loops of the compiled CPU kernels written in explicit vectors: products and transforms.

Each is expanded into straight vector code where a kernel calls it. Arrays are flat, C-contiguous and float32 unless
stated otherwise; arguments such as `at` are offsets into them.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from corereg.geometry.kernels.simd import (
    COLUMNS,
    INT,
    LANES,
    ROWS,
    VECTOR,
    between,
    constant,
    inlined,
    load,
    load_integers,
    multiply_add,
    offset,
    pointers,
    prefetch,
    splat,
    store,
    total,
)

__all__ = ["compare", "copy_known", "finish_plane", "multiply_rows", "transform_line", "transform_plane"]

Matrix = NDArray[np.float64]


@inlined
def multiply_rows(_, a, a_at, depth, b, b_at, out, to, ahead, below):
    """out[r, d] = sum_c a[r, c] b[c, d] for ROWS rows and COLUMNS columns.

    Args:
        depth: a tuple with one entry per c; its length is part of its type.
        ahead, below: offsets into a and b of the next call's operands, which are prefetched.
    """
    count = len(depth)
    signature = types.void(a, types.int64, depth, b, types.int64, out, types.int64, types.int64, types.int64)

    def generate(context, builder, signature, args):
        a, b, out = pointers(context, builder, signature, args, (0, 3, 5))
        a_at, b_at, to = (args[n] for n in (1, 4, 6))
        next_a, next_b = builder.gep(a, [args[7]]), builder.gep(b, [args[8]])
        rows, columns = builder.gep(a, [a_at]), builder.gep(b, [b_at])
        before = builder.block
        loop, after = builder.append_basic_block("product"), builder.append_basic_block("sums")
        builder.branch(loop)
        builder.position_at_end(loop)
        c = builder.phi(INT)
        c.add_incoming(INT(0), before)
        sums = [[builder.phi(VECTOR) for _ in range(2)] for _ in range(ROWS)]
        row = builder.mul(c, INT(COLUMNS))
        factors = [load(builder, columns, builder.add(row, INT(n * LANES))) for n in range(2)]
        for n in range(2):
            prefetch(builder, next_b, builder.add(row, INT(n * LANES)))
        prefetch(builder, next_a, builder.mul(c, INT(ROWS)))
        totals = []
        for r in range(ROWS):
            value = splat(builder, builder.load(builder.gep(rows, [builder.add(c, INT(r * count))])))
            totals.append([multiply_add(builder, value, f, s) for f, s in zip(factors, sums[r], strict=True)])
            for new, s in zip(totals[r], sums[r], strict=True):
                s.add_incoming(constant(0.0), before)
                s.add_incoming(new, loop)
        following = builder.add(c, INT(1))
        c.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, INT(count)), loop, after)
        builder.position_at_end(after)
        for r in range(ROWS):
            for n in range(2):
                store(builder, totals[r][n], out, builder.add(to, INT(r * COLUMNS + n * LANES)))

    return signature, generate


@inlined
def compare(_, moving, cell, step_i, step_j, step_k, share_i, share_j, share_k, fixed, at, channels, ahead):
    """Squared difference d^2 of a voxel's features from the moving image interpolated in a cell, and half its slopes.

    Args:
        moving, fixed: int16, channels last.
        cell: offset of the lower corner.
        step_i, step_j, step_k: offsets to its neighbours along each axis.
        share_i, share_j, share_k: weight of the upper corner along each axis.
        at: offset of the voxel in `fixed`.
        channels: a tuple with one entry per channel; their number is a multiple of LANES.
        ahead: offset of a cell needed soon, which is prefetched.

    Returns: the sum over channels of d^2, and of d times the slope of the moving image along each axis.
    """
    signature = types.UniTuple(types.float32, 4)(
        moving, *[types.int64] * 4, *[types.float32] * 3, fixed, types.int64, channels, types.int64
    )

    def generate(context, builder, signature, args):
        moving, fixed = pointers(context, builder, signature, args, (0, 8))
        steps, (wi, wj, wk) = args[2:5], (splat(builder, w) for w in args[5:8])
        corners = [list(zip((n >> 2, n >> 1 & 1, n & 1), steps, strict=True)) for n in range(8)]
        for corner in corners:
            prefetch(builder, moving, offset(builder, args[11], *corner))
        places = [offset(builder, args[1], *corner) for corner in corners]
        sums = [constant(0.0)] * 4
        for c in range(0, len(channels), LANES):
            m = [load_integers(builder, moving, builder.add(place, INT(c))) for place in places]
            along_k = [builder.fsub(m[n + 1], m[n]) for n in (0, 2, 4, 6)]
            edges = [multiply_add(builder, wk, slope, m[2 * n]) for n, slope in enumerate(along_k)]
            along_j = [builder.fsub(edges[1], edges[0]), builder.fsub(edges[3], edges[2])]
            low, high = (multiply_add(builder, wj, slope, edges[2 * n]) for n, slope in enumerate(along_j))
            slope_i = builder.fsub(high, low)
            slope_j = between(builder, wi, *along_j)
            slope_k = between(builder, wi, between(builder, wj, *along_k[:2]), between(builder, wj, *along_k[2:]))
            here = load_integers(builder, fixed, builder.add(args[9], INT(c)))
            difference = builder.fsub(multiply_add(builder, wi, slope_i, low), here)
            terms = difference, slope_i, slope_j, slope_k
            sums = [multiply_add(builder, difference, t, s) for t, s in zip(terms, sums, strict=True)]
        return context.make_tuple(builder, signature.return_type, [total(builder, s) for s in sums])

    return signature, generate


@inlined
def copy_known(_, source, at, known, out, to):
    """out[to:] = source[at:] for one vector, or 0 unless it is `known`; `at` is then ignored."""
    signature = types.void(source, types.int64, types.boolean, out, types.int64)

    def generate(context, builder, signature, args):
        source, out = pointers(context, builder, signature, args, (0, 3))
        store(builder, constant(0.0), out, args[4])
        with builder.if_then(args[2]):
            store(builder, load(builder, source, args[1]), out, args[4])

    return signature, generate


def transform_line(matrix: Matrix) -> Any:
    """A function for kernels: out[to + r * out_step] = sum_n matrix[r, n] source[at + n * step]; all are vectors."""

    @inlined
    def line(_, source, at, step, out, to, out_step):
        signature = types.void(source, types.int64, types.int64, out, types.int64, types.int64)

        def generate(context, builder, signature, args):
            source, out = pointers(context, builder, signature, args, (0, 3))
            values = [load(builder, source, offset(builder, args[1], (n, args[2]))) for n in range(matrix.shape[1])]
            for r, value in enumerate(_combined(builder, matrix, values)):
                store(builder, value, out, offset(builder, args[4], (r, args[5])))

        return signature, generate

    return line


def transform_plane(matrix: Matrix) -> Any:
    """A function for kernels that applies the matrix along both axes of a plane of vectors.

    out[to + r * out_r + s * out_s] = sum_m sum_n matrix[r, m] matrix[s, n] source[at + m * step_m + n * step_n]
    """

    @inlined
    def plane(_, source, at, step_m, step_n, out, to, out_r, out_s):
        signature = types.void(source, *[types.int64] * 3, out, *[types.int64] * 3)

        def generate(context, builder, signature, args):
            source, out = pointers(context, builder, signature, args, (0, 4))
            for r, s, value in _plane(builder, matrix, source, *args[1:4]):
                store(builder, value, out, offset(builder, args[5], (r, args[6]), (s, args[7])))

        return signature, generate

    return plane


def finish_plane(matrix: Matrix) -> Any:
    """Like `transform_plane`, but each result becomes max(result + bias, floor), where bias is a vector."""

    @inlined
    def plane(_, source, at, step_m, step_n, out, to, out_r, out_s, bias, bias_at, floor):
        signature = types.void(source, *[types.int64] * 3, out, *[types.int64] * 3, bias, types.int64, types.float32)

        def generate(context, builder, signature, args):
            source, out, bias = pointers(context, builder, signature, args, (0, 4, 8))
            shift, least = load(builder, bias, args[9]), splat(builder, args[10])
            for r, s, value in _plane(builder, matrix, source, *args[1:4]):
                shifted = builder.fadd(value, shift)
                # An ordered comparison, so that NaN stays NaN.
                below = builder.fcmp_ordered("<", shifted, least)
                kept = builder.select(below, least, shifted)
                store(builder, kept, out, offset(builder, args[5], (r, args[6]), (s, args[7])))

        return signature, generate

    return plane


def _plane(builder, matrix, source, at, step_m, step_n):
    size = range(matrix.shape[1])
    columns = []
    for n in size:
        column = [load(builder, source, offset(builder, at, (m, step_m), (n, step_n))) for m in size]
        columns.append(_combined(builder, matrix, column))
    for r in range(matrix.shape[0]):
        for s, value in enumerate(_combined(builder, matrix, [column[r] for column in columns])):
            yield r, s, value


def _combined(builder, matrix, values):
    """The matrix times a column of vectors; factors of 0, 1 and -1 cost no product."""
    return [_sum(builder, [(f, v) for f, v in zip(row, values, strict=True) if f]) for row in matrix]


def _sum(builder, terms):
    # A term with factor 1 comes first, so that nothing has to be negated.
    (factor, total), *rest = sorted(terms, key=lambda term: term[0] != 1)
    if factor != 1:
        total = builder.fmul(total, constant(factor))
    for factor, value in rest:
        if factor == 1:
            total = builder.fadd(total, value)
        elif factor == -1:
            total = builder.fsub(total, value)
        else:
            total = multiply_add(builder, value, constant(factor), total)
    return total
