"""Sums, products and constants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spikemorph.capture.context import RULES, Call, Context, batch_refused, per_sample
from spikemorph.capture.frames import emit_framewise
from spikemorph.capture.values import Act, Const, Form, Ints, Opaque, Poisoned, Refused, Value
from spikemorph.ir import ops


def affine(
    ctx: Context,
    call: Call,
    x: Act,
    *,
    gain: Tensor | None = None,
    offset: Tensor | None = None,
    shape: Ints | None = None,
    part: str = "",
) -> Act:
    """gain * x + offset; x is spread first where a constant is larger than it."""
    shape = call.shape if shape is None else shape
    if x.shape != shape:
        x = ctx.emit(call, ops.Expand(shape), x, shape=shape, part="expand")
    gain_name = None if gain is None else ctx.tensor(call, gain)
    offset_name = None if offset is None else ctx.tensor(call, offset)
    return ctx.emit(call, ops.Affine(gain_name, offset_name), x, shape=shape, part=part)


def broadcast_pair(ctx: Context, call: Call) -> tuple[Act, Act]:
    """Both operands, which have the batch in one place: torch aligns shapes at the end, batch and all."""
    a, b = call.act("self"), call.act("other")
    if not a.form.broadcasts_to(call.form) or not b.form.broadcasts_to(call.form):
        raise batch_refused()
    return a, b


def _operand(call: Call, value: Any, form: Form) -> Act | Tensor:
    """An operand as an activation, or as a constant that broadcasts against a sample (numbers: float64)."""
    match value:
        case Opaque():
            raise Poisoned
        case Act():
            return value
        case Const():
            return per_sample(value, form)
        case _:
            return torch.tensor(float(call.number(value)), dtype=torch.float64)


def _operands(call: Call) -> tuple[Act | Tensor, Act | Tensor]:
    first, second = call.args["self"], call.args["other"]
    forms = [each.form for each in (first, second) if isinstance(each, Act)]
    form = max(forms, key=lambda each: each.rank, default=Form(()))
    return _operand(call, first, form), _operand(call, second, form)


def _as_float(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_floating_point() else tensor.double()


@RULES.anywhere("add")
def _add(ctx: Context, call: Call) -> Value:
    return _sum(ctx, call, float(call.number(call.args["alpha"])))


@RULES.anywhere("sub", "subtract")
def _sub(ctx: Context, call: Call) -> Value:
    return _sum(ctx, call, -float(call.number(call.args["alpha"])))


@RULES.anywhere("rsub")
def _rsub(ctx: Context, call: Call) -> Value:
    """other - alpha * self."""
    swapped = {**call.args, "self": call.args["other"], "other": call.args["self"]}
    return _sum(ctx, replace(call, args=swapped), -float(call.number(call.args["alpha"])))


def _sum(ctx: Context, call: Call, alpha: float) -> Act:
    """self + alpha * other."""
    match _operands(call):
        case Act(), Act() as b:
            a, b = broadcast_pair(ctx, call)
            if abs(alpha) != 1:
                size = torch.tensor(abs(alpha), dtype=torch.float64)
                b = affine(ctx, call, b, gain=size, shape=b.shape, part="alpha")
            return emit_framewise(ctx, call, ops.Add((1, 1 if alpha > 0 else -1)), a, b, shape=call.shape)
        case Act() as a, Tensor() as constant:
            return affine(
                ctx, call, a, offset=_as_float(constant) if alpha == 1 else _as_float(constant) * alpha
            )
        case Tensor() as constant, Act() as b:
            gain = None if alpha == 1 else torch.tensor(alpha, dtype=torch.float64)
            return affine(ctx, call, b, gain=gain, offset=_as_float(constant))
    raise Poisoned


@RULES.anywhere("mul", "multiply")
def _mul(ctx: Context, call: Call) -> Value:
    match _operands(call):
        case Act(), Act():
            return emit_framewise(ctx, call, ops.Mul(), *broadcast_pair(ctx, call), shape=call.shape)
        case (Act() as x, Tensor() as gain) | (Tensor() as gain, Act() as x):
            return affine(ctx, call, x, gain=_as_float(gain))
    raise Poisoned


@RULES.anywhere("div", "divide", "true_divide")
def _div(ctx: Context, call: Call) -> Value:
    if call.args.get("rounding_mode") is not None:
        raise Refused("with rounding", "true division", "leave rounding to the quantiser")
    match _operands(call):
        case Act() as x, Tensor() as divisor:
            if not bool((divisor != 0).all()):
                raise Refused("by zero", "division by constants other than zero", "remove the division")
            return affine(ctx, call, x, gain=divisor.double().reciprocal())
    raise Refused(
        "by an activation",
        "division by a number, parameter or buffer",
        "divide by a constant; products of two activations can be converted",
    )


@RULES.anywhere("neg", "negative")
def _neg(ctx: Context, call: Call) -> Value:
    return affine(ctx, call, call.act(), gain=torch.tensor(-1.0, dtype=torch.float64))


@RULES.anywhere("pow.Tensor_Scalar")
def _pow(ctx: Context, call: Call) -> Value:
    exponent = call.number(call.args["exponent"])
    if exponent == 1:
        return call.act()
    if exponent != 2:
        raise Refused(
            f"with exponent {exponent}",
            "x**2, which is the product x * x",
            "write whole powers as products x * x * x",
        )
    return _square(ctx, call)


@RULES.anywhere("square")
def _square(ctx: Context, call: Call) -> Value:
    x = call.act()
    return emit_framewise(ctx, call, ops.Mul(), x, x, shape=call.shape)
