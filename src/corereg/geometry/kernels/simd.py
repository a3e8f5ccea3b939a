"""Explicit vectors for compiled CPU kernels, where the compiler alone does not make the inner loops fast.

What is here writes LLVM's intermediate code for `vector_loops`. A vector is LANES float32 that follow one another.
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
    """For a function that, from the types of its arguments, gives its signature and what writes its code."""
    return intrinsic(function)


def _register_file() -> tuple[int, int]:
    """Values of a vector, and rows of a product that are summed in registers at a time, two vectors each."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    if "+avx512f" in features:
        return 16, 8
    return (8, 6) if {"+avx2", "+fma"} <= set(features) else (4, 6)


LANES, ROWS = _register_file()
COLUMNS = 2 * LANES
WIDE = LANES > 4
"""Whether the processor has the vectors and the fused multiply-add with which products pay."""

INT, INT32, BYTES = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
VECTOR = ir.VectorType(ir.FloatType(), LANES)
ALIGNMENT = 4
"""Bytes: an offset may be any."""
LINE = 16
"""Values of a cache line."""


@kernel
def work_space(size):
    """Uninitialised, and aligned to cache lines: a vector that lies on two of them costs two accesses."""
    whole = np.empty(size + LINE, np.float32)
    start = -(whole.ctypes.data // 4) % LINE
    return whole[start : start + size]


def pointers(context, builder, signature, args, which):
    return [context.make_array(signature.args[n])(context, builder, args[n]).data for n in which]


def _place(builder, base, at):
    return builder.bitcast(builder.gep(base, [at]), VECTOR.as_pointer())


def offset(builder, at, *counted):
    """at + the sum of number x step."""
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
    """Sum over the lanes, in any order."""
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
