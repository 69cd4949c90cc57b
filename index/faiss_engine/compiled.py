"""What the compiled searches share: inner products with stored numbers, and a list of the best. Numba compiles it.

Numba keeps compiled code beside the file of the function that was called, and looks at no other file. So whoever
changes this one while developing removes `__pycache__/*.nbi` in `graph` and `va_file`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# Numbers that are multiplied at once.
LANES = 8
# Sums in any order, and no other liberty: what is not finite stays so.
_FAST = {"reassoc", "contract", "nsz"}
JIT: dict[str, Any] = {"nogil": True, "boundscheck": False, "fastmath": _FAST, "error_model": "numpy"}


def _dot_product(convert: Callable[[Any, Any], Any], element: ir.Type, *, chains: int = 2) -> Any:
    """Return a function of compiled code: the inner product of floats and stored numbers, eight at a time.

    product(floats, start, numbers, number_start, count) looks at `count` // 8 * 8 of each.

    Args:
        convert: eight stored numbers to floats.
        chains: sums that are added up at once, a power of two: each waits for its own last addition only.
    """
    floats, bits = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(element, LANES)

    @intrinsic  # type: ignore[untyped-decorator]
    def product(_: Any, a: Any, start_a: Any, b: Any, start_b: Any, count: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data_a, data_b = (
                context.make_array(signature.args[place])(context, builder, arguments[place]).data for place in (0, 2)
            )
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(floats, [floats] * 3), f"llvm.fma.v{LANES}f32"
            )
            sums = [cgutils.alloca_once_value(builder, ir.Constant(floats, [0.0] * LANES)) for _ in range(chains)]

            def add(total: Any, offset: Any) -> None:
                loaded = []
                for data, start, vector in ((data_a, arguments[1], floats), (data_b, arguments[3], bits)):
                    address = builder.gep(data, [builder.add(start, offset)])
                    load = builder.load(builder.bitcast(address, vector.as_pointer()))
                    load.align = 1
                    loaded.append(load)
                numbers = convert(builder, loaded[1])
                builder.store(builder.call(fma, [loaded[0], numbers, builder.load(total)]), total)

            at_once = arguments[4].type(chains * LANES)
            groups = builder.udiv(arguments[4], at_once)
            with cgutils.for_range(builder, groups) as loop:
                offset = builder.mul(loop.index, at_once)
                for number, total in enumerate(sums):
                    add(total, builder.add(offset, offset.type(number * LANES)))
            first = builder.mul(groups, at_once)
            blocks = builder.udiv(builder.sub(arguments[4], first), first.type(LANES))
            with cgutils.for_range(builder, blocks) as loop:
                add(sums[0], builder.add(first, builder.mul(loop.index, first.type(LANES))))
            values = [builder.load(total) for total in sums]
            while len(values) > 1:
                values = [builder.fadd(*pair) for pair in zip(values[::2], values[1::2], strict=True)]
            reduce = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(ir.FloatType(), [ir.FloatType(), floats]),
                f"llvm.vector.reduce.fadd.v{LANES}f32",
            )
            zero = ir.Constant(ir.FloatType(), 0.0)
            return builder.call(reduce, [zero, values[0]], fastmath=("reassoc",))

        return types.float32(a, types.intp, b, types.intp, types.intp), generate

    return product


def _from_integers(builder: Any, numbers: Any) -> Any:
    return builder.sitofp(numbers, ir.VectorType(ir.FloatType(), LANES))


def _from_unsigned(builder: Any, numbers: Any) -> Any:
    return builder.uitofp(numbers, ir.VectorType(ir.FloatType(), LANES))


def _from_halves(builder: Any, bits: Any) -> Any:
    halves = builder.bitcast(bits, ir.VectorType(ir.HalfType(), LANES))
    return builder.fpext(halves, ir.VectorType(ir.FloatType(), LANES))


# Compilers leave short loops over whole numbers without the processor's instructions for vectors.
dot_bytes = _dot_product(_from_integers, ir.IntType(8))
dot_unsigned_bytes = _dot_product(_from_unsigned, ir.IntType(8), chains=2)
dot_words = _dot_product(_from_integers, ir.IntType(16))
dot_halves = _dot_product(_from_halves, ir.IntType(16))


@intrinsic  # type: ignore[untyped-decorator]
def float_of_half(_: Any, bits: Any) -> Any:
    """Return the number that 16 bits are in half precision."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(_: Any, array: Any, position: Any) -> Any:
    """Ask for the line of the cache that an element of an array is in."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), pointer)
        function_type = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        builder.call(function, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@njit(**JIT)  # type: ignore[untyped-decorator]
def keep_best(scores: Any, rows: Any, kept: Any, score: Any, row: Any) -> Any:
    """Put a row into a list, best first, of which `kept` places are taken. Returns: its place, or the length."""
    if kept == scores.size:
        if not score > scores[kept - 1]:
            return kept
        place = kept - 1
    else:
        place = kept
    while place > 0 and scores[place - 1] < score:
        scores[place], rows[place] = scores[place - 1], rows[place - 1]
        place -= 1
    scores[place], rows[place] = score, row
    return place


def compiled_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function when it is first called, and keep that beside this file, or where Numba keeps such else."""
    try:
        compiled: Callable[..., Any] = njit(**JIT, cache=True)(function)
    except RuntimeError:  # nowhere to keep it: every process compiles it
        compiled = njit(**JIT)(function)
    return compiled
