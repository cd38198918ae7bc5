"""float16 bits → float32 in compiled loops: Numba has no float16 on the CPU.

LLVM has: one instruction (F16C, on every x86-64 of the last ten years; ARMv8 has its own)
converts eight values, and the loop around it is vectorised.

Numba notices a change of this file in its own compiled loops, but not in those of other files
that have taken code from here: after one, remove retrieval/search/__pycache__.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["half_to_float"]


@intrinsic
def half_to_float(typing_context, bits):
    """The float32 of the same value as the float16 with these bits (uint16); exact."""

    def generate(context, builder, signature, arguments):
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate
