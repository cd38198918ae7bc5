"""The matrix product of BLAS in compiled loops, without going back to Python for each.

Between two calls from Python a thread has to get the interpreter's lock again. Loops of short
products spend more time waiting for it than multiplying, once there are several threads.
Numba's own `np.dot` would copy operands whose rows are not next to one another.

SciPy publishes the addresses of its BLAS for other compilers; the address is an argument here,
since it is another in each process, and compiled loops are kept from one to the next.

Numba notices a change of this file in its own compiled loops, but not in those of other files
that have taken code from here: after one, remove retrieval/search/__pycache__.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic

__all__ = ["SGEMM", "multiply", "place_of"]

SGEMM = get_cython_function_address("scipy.linalg.cython_blas", "sgemm")


@intrinsic
def multiply(typing_context, sgemm, shape, left, right, result):
    """Write left · right into a result, by rows; for compiled loops. Sums are in any order.

    Each matrix is float32 and given by `place_of`; the shape (M, N, K) is that of M rows, N
    columns and sums of K terms; sgemm is SGEMM.
    """

    def generate(context, builder, signature, arguments):
        sgemm, shape, left, right, result = arguments
        integer, pointer = ir.IntType(32), ir.IntType(8).as_pointer()

        def stored(value):
            slot = cgutils.alloca_once_value(builder, value)
            return builder.bitcast(slot, pointer)

        def number(value):
            return stored(builder.trunc(value, integer))

        def matrix(argument):
            start, step = cgutils.unpack_tuple(builder, argument)
            return builder.inttoptr(start, pointer), number(step)

        # BLAS thinks in columns: its product of the transposed matrices, the other way round.
        rows, columns, depth = (number(value) for value in cgutils.unpack_tuple(builder, shape))
        as_is = stored(ir.Constant(ir.IntType(8), ord("N")))
        one, zero = (stored(ir.Constant(ir.FloatType(), value)) for value in (1.0, 0.0))
        kind = ir.FunctionType(ir.VoidType(), [pointer] * 13)
        operands = one, *matrix(right), *matrix(left), zero, *matrix(result)
        builder.call(
            builder.inttoptr(sgemm, kind.as_pointer()),
            [as_is, as_is, columns, rows, depth, *operands],
        )
        return context.get_dummy_value()

    size = types.intp
    place = types.UniTuple(size, 2)
    return types.void(size, types.UniTuple(size, 3), place, place, place), generate


@njit(inline="always")
def place_of(matrix):
    """Where a float32 matrix starts, and how many numbers lie between the starts of its rows.

    The numbers of a row have to be next to each other.
    """
    # NumPy does not mind what the step of a single row is, BLAS does.
    return np.intp(matrix.ctypes.data), max(matrix.strides[0] // 4, matrix.shape[1])
