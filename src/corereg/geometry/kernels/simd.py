"""Explicit vectors for compiled CPU kernels whose inner loops the compiler alone does not make fast.

These functions write the LLVM intermediate code of `simd_loops`. A vector is LANES consecutive float32 values.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, import-untyped"

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from corereg.geometry.kernels.threads import kernel

__all__ = [
    "COLUMNS",
    "INT",
    "LANES",
    "ROWS",
    "VECTOR",
    "WIDE",
    "between",
    "constant",
    "inlined",
    "load",
    "load_integers",
    "multiply_add",
    "offset",
    "pointers",
    "prefetch",
    "splat",
    "store",
    "total",
    "work_space",
]


def inlined(function: Callable[..., Any]) -> Any:
    """Decorate a function that maps its argument types to a signature and a function that writes its code."""
    return intrinsic(function)


def _register_file() -> tuple[int, int]:
    """The number of values in a vector, and the number of product rows (of two vectors each) summed in registers."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    if "+avx512f" in features:
        return 16, 8
    return (8, 6) if {"+avx2", "+fma"} <= set(features) else (4, 6)


LANES, ROWS = _register_file()
COLUMNS = 2 * LANES
WIDE = LANES > 4
"""Whether the processor has the wide vectors and fused multiply-add that make these products worthwhile."""

INT, INT32, BYTES = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
VECTOR = ir.VectorType(ir.FloatType(), LANES)
ALIGNMENT = 4
"""In bytes: no more is assumed, since offsets are arbitrary."""
LINE = 16
"""Number of values in a cache line."""


@kernel
def work_space(size):
    """Uninitialised memory aligned to cache lines: a vector that crosses into another line costs two accesses."""
    whole = np.empty(size + LINE, np.float32)
    start = -(whole.ctypes.data // 4) % LINE
    return whole[start : start + size]


def pointers(context, builder, signature, args, which):
    return [context.make_array(signature.args[n])(context, builder, args[n]).data for n in which]


def _place(builder, base, at):
    return builder.bitcast(builder.gep(base, [at]), VECTOR.as_pointer())


def offset(builder, at, *counted):
    """at + the sum of all number * step."""
    for number, step in counted:
        at = builder.add(at, builder.mul(step, INT(number)))
    return at


def load(builder, base, at):
    value = builder.load(_place(builder, base, at))
    value.align = ALIGNMENT
    return value


def load_integers(builder, base, at):
    integers = ir.VectorType(ir.IntType(16), LANES)
    value = builder.load(builder.bitcast(builder.gep(base, [at]), integers.as_pointer()))
    value.align = 2
    return builder.sitofp(builder.sext(value, ir.VectorType(INT32, LANES)), VECTOR)


def between(builder, share, low, high):
    return multiply_add(builder, share, builder.fsub(high, low), low)


def total(builder, vector):
    """The sum over the lanes, in any order."""
    value = ir.FloatType()
    kind = ir.FunctionType(value, [value, VECTOR])
    add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{LANES}f32")
    return builder.call(add, [ir.Constant(value, 0.0), vector], fastmath=("reassoc", "nsz"))


def store(builder, value, base, at):
    builder.store(value, _place(builder, base, at)).align = ALIGNMENT


def constant(value):
    return ir.Constant(VECTOR, [float(value)] * LANES)


def splat(builder, value):
    empty = ir.Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(empty, value, INT32(0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES))


def multiply_add(builder, a, b, c):
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32"), [a, b, c])


def prefetch(builder, base, at):
    kind = ir.FunctionType(ir.VoidType(), [BYTES, INT32, INT32, INT32])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(fetch, [builder.bitcast(builder.gep(base, [at]), BYTES), INT32(0), INT32(3), INT32(1)])
