"""Functions of every number: ReLU in all spellings, and the smooth ones."""

from __future__ import annotations

import math
from collections.abc import Callable

from spikemorph.capture.context import RULES, Call, Context, fixed, per_sample
from spikemorph.capture.frames import emit_framewise
from spikemorph.capture.rules_arith import affine, broadcast_pair
from spikemorph.capture.values import Act, Const, Form, Refused, Value
from spikemorph.ir import functions as fn
from spikemorph.ir import ops

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _function(call: Call, function: fn.Function, ctx: Context) -> Act:
    return emit_framewise(ctx, call, ops.Elementwise(function), call.act(), shape=call.shape)


def _register(names: tuple[str, ...], make: Callable[[Call], fn.Function]) -> None:
    RULES.anywhere(*names)(lambda ctx, call: _function(call, make(call), ctx))


def _bounded(lo: float | None, hi: float | None) -> fn.Function:
    return fn.Relu() if lo == 0 and hi is None else fn.Clamp(lo, hi)


def _elu(call: Call) -> fn.Function:
    if call.args["input_scale"] != 1:
        raise _shape_refused("input_scale other than 1", "ELU, SELU, CELU with alpha = 1")
    return fn.Elu(float(call.args["alpha"]), float(call.args["scale"]))


def _celu(call: Call) -> fn.Function:
    if call.args["alpha"] != 1:
        raise _shape_refused(f"alpha = {call.args['alpha']}", "CELU with alpha = 1")
    return fn.Elu()


def _softplus(call: Call) -> fn.Function:
    """The linear part beyond the threshold is what softplus is there, to e**-threshold."""
    if math.exp(-float(call.args["threshold"])) > 1e-6:
        raise _shape_refused(f"threshold = {call.args['threshold']}", "Softplus with a threshold from 14 on")
    return fn.Softplus(float(call.args["beta"]))


def _threshold(call: Call) -> fn.Function:
    if call.args["threshold"] != 0 or call.args["value"] != 0:
        raise _shape_refused("that jumps", "threshold(x, 0, 0), which is ReLU")
    return fn.Relu()


def _gelu(call: Call) -> fn.Function:
    return fn.Gelu(tanh=call.args["approximate"] == "tanh")


def _shape_refused(got: str, known: str) -> Refused:
    return Refused(f"with {got}", known, "use ReLU, or one of the functions that `known` lists")


_register(("relu",), lambda call: fn.Relu())
_register(("relu6",), lambda call: fn.Clamp(0.0, 6.0))
_register(("sigmoid", "special_expit"), lambda call: fn.Sigmoid())
_register(("tanh",), lambda call: fn.Tanh())
_register(("hardsigmoid",), lambda call: fn.HardSigmoid())
_register(("hardswish",), lambda call: fn.HardSwish())
_register(("silu",), lambda call: fn.Silu())
_register(("mish",), lambda call: fn.Mish())
_register(("abs", "absolute"), lambda call: fn.Abs())
_register(("gelu",), _gelu)
_register(("elu",), _elu)
_register(("celu",), _celu)
_register(("selu",), lambda call: fn.Elu(SELU_ALPHA, SELU_SCALE))
_register(("softplus",), _softplus)
_register(("threshold",), _threshold)
_register(("leaky_relu",), lambda call: fn.LeakyRelu(float(call.args["negative_slope"])))


@RULES.anywhere("clamp", "clip", "clamp_min", "clamp_max", "hardtanh")
def _clamp(ctx: Context, call: Call) -> Value:
    lo = _bound(call, call.args.get("min", call.args.get("min_val")))
    hi = _bound(call, call.args.get("max", call.args.get("max_val")))
    return _function(call, _bounded(lo, hi), ctx)


def _bound(call: Call, value: object) -> float | None:
    """A bound of a clamp as a number; tensors must be the same everywhere."""
    if value is None:
        return None
    if isinstance(value, Const):
        tensor = fixed(value)
        if tensor.numel() == 0 or (tensor != tensor.flatten()[0]).any():
            raise Refused(
                "with bounds that differ between positions",
                "one bound for all",
                "clamp to one number, or scale the data first",
            )
        return float(tensor.flatten()[0])
    return float(call.number(value))


@RULES.anywhere("maximum", "max.other")
def _maximum(ctx: Context, call: Call) -> Value:
    first, second = call.args["self"], call.args["other"]
    match first, second:
        case (Act() as x, Const() as c) | (Const() as c, Act() as x):
            bound = _uniform(c, x.form)
            if bound is not None and x.shape == call.shape:
                return ctx.emit(call, ops.Elementwise(_bounded(bound, None)), x)
            raise _tensor_bound_refused()
    a, b = broadcast_pair(ctx, call)
    stacked = []
    for x in (a, b):
        if x.shape != call.shape:
            x = ctx.emit(call, ops.Expand(call.shape), x, part="expand")
        shape = (1, *call.shape)
        stacked.append(ctx.emit(call, ops.Reshape(shape), x, shape=shape, part="unsqueeze"))
    both = ctx.emit(call, ops.Concat(0), *stacked, shape=(2, *call.shape), part="stack")
    return ctx.emit(call, ops.AMax((0,), keepdim=False), both)


@RULES.anywhere("minimum", "min.other")
def _minimum(ctx: Context, call: Call) -> Value:
    first, second = call.args["self"], call.args["other"]
    match first, second:
        case (Act() as x, Const() as c) | (Const() as c, Act() as x):
            bound = _uniform(c, x.form)
            if bound is not None and x.shape == call.shape:
                return ctx.emit(call, ops.Elementwise(fn.Clamp(None, bound)), x)
    raise _tensor_bound_refused()


def _uniform(value: Const, form: Form) -> float | None:
    tensor = per_sample(value, form).flatten()
    return float(tensor[0]) if tensor.numel() and bool((tensor == tensor[0]).all()) else None


def _tensor_bound_refused() -> Refused:
    return Refused(
        "with bounds that differ between positions, or the minimum of two activations",
        "the maximum of two activations; maximum and minimum with one number",
        "write min(a, b) as -max(-a, -b)",
    )


@RULES.anywhere("prelu", "_prelu_kernel")
def _prelu(ctx: Context, call: Call) -> Value:
    x, weight = call.act(), call.const("weight")
    assert weight is not None
    slopes = fixed(weight).flatten()
    if bool((slopes == slopes[0]).all()):
        return _function(call, fn.LeakyRelu(float(slopes[0])), ctx)
    # a slope per channel is no single function: relu(x) + slope * min(x, 0)
    up = ctx.emit(call, ops.Elementwise(fn.Relu()), x, shape=x.shape, part="positive")
    low = ctx.emit(call, ops.Elementwise(fn.Clamp(None, 0.0)), x, shape=x.shape, part="negative")
    gain = slopes.reshape(-1, *(1,) * (len(x.shape) - 1 - call.axis(1, x.form)))
    down = affine(ctx, call, low, gain=gain, shape=x.shape, part="slope")
    return ctx.emit(call, ops.Add((1, 1)), up, down)


@RULES.anywhere("glu")
def _glu(ctx: Context, call: Call) -> Value:
    x = call.act()
    axis = call.axis(call.args["dim"], x.form)
    half = x.shape[axis] // 2
    value = ctx.emit(call, ops.Slice(axis, 0, half), x, part="value")
    gate = ctx.emit(call, ops.Slice(axis, half, 2 * half), x, part="gate")
    gate = ctx.emit(call, ops.Elementwise(fn.Sigmoid()), gate, part="sigmoid")
    return ctx.emit(call, ops.Mul(), value, gate)
