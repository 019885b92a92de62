"""Recurrent layers: a linear layer and a recurrence for each layer and direction; cells as sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from spikemorph.capture.context import (
    RULES,
    Call,
    Context,
    batch_refused,
    fixed,
    folded_loop_refused,
    layout_refused,
    per_sample,
)
from spikemorph.capture.refusals import PACKED
from spikemorph.capture.rules_arith import affine
from spikemorph.capture.values import (
    BATCH_FIRST,
    Act,
    BatchAt,
    Const,
    Folded,
    Form,
    Parts,
    Poisoned,
    Refused,
    Value,
)
from spikemorph.ir import functions as fn
from spikemorph.ir import ops


@final
@dataclass(frozen=True)
class _Cell:
    """One layer in one direction.

    Args:
        row: its number among all states, in torch's order.
        weights: what the input and what the state goes through.
    """

    name: str
    row: int
    reverse: bool
    function: fn.Function
    weights: tuple[Const, Const]
    biases: tuple[Const, ...]

    @property
    def units(self) -> int:
        return fixed(self.weights[1]).shape[0]

    def first(self, elements: int) -> int:
        """The element that it begins with."""
        return elements - 1 if self.reverse else 0

    def last(self, elements: int) -> int:
        """The element that it ends with."""
        return 0 if self.reverse else elements - 1


@RULES.anywhere("rnn_relu.input")
def _rnn_relu(ctx: Context, call: Call) -> Value:
    return _rnn(ctx, call, fn.Relu())


@RULES.anywhere("rnn_tanh.input")
def _rnn_tanh(ctx: Context, call: Call) -> Value:
    return _rnn(ctx, call, fn.Tanh())


@RULES.anywhere("rnn_relu.data", "rnn_tanh.data")
def _packed(ctx: Context, call: Call) -> Value:
    raise Refused(*PACKED)


def _rnn(ctx: Context, call: Call, function: fn.Function) -> Value:
    """Output [elements, directions * units] and last states [layers * directions, units] of nn.RNN."""
    if call.args["train"] and call.args["dropout"]:
        raise Refused("in training mode", "dropout in eval mode, which is the identity", "call model.eval()")
    x = call.act("input")
    if isinstance(x.layout, Folded):
        raise folded_loop_refused()
    wanted = BatchAt(0 if call.args["batch_first"] else 1)
    if x.layout != wanted:
        raise batch_refused() if x.layout == BATCH_FIRST else layout_refused(x.layout)
    states = _initial(call)
    last: list[Act] = []
    for layer, cells in enumerate(_layers(call, function)):
        outs = [_direction(ctx, call, x, cell, states) for cell in cells]
        if 1 in call.used:
            last += [_end(ctx, call, h, cell) for h, cell in zip(outs, cells, strict=True)]
        x = outs[0]
        if len(outs) > 1:
            shape = (x.shape[0], sum(each.shape[1] for each in outs))
            x = ctx.emit(call, ops.Concat(1), *outs, shape=shape, part=f"l{layer}_both")
    return Parts((x, _joined(ctx, call, last)))


def _joined(ctx: Context, call: Call, last: list[Act]) -> Act | None:
    """The last states of all layers and directions, where they are read."""
    if len(last) < 2:
        return last[0] if last else None
    return ctx.emit(call, ops.Concat(0), *last, shape=call.part_shape(1), part="last")


def _layers(call: Call, function: fn.Function) -> list[list[_Cell]]:
    """The cells of every layer."""
    per_cell = 4 if call.args["has_biases"] else 2
    directions = ("", "_reverse") if call.args["bidirectional"] else ("",)
    params = iter(call.args["params"])
    found: list[list[_Cell]] = []
    for layer in range(int(call.args["num_layers"])):
        cells: list[_Cell] = []
        for direction, suffix in enumerate(directions):
            incoming, own, *biases = (next(params) for _ in range(per_cell))
            row = layer * len(directions) + direction
            name = f"l{layer}{suffix}"
            cells.append(_Cell(name, row, bool(direction), function, (incoming, own), tuple(biases)))
        found.append(cells)
    return found


def _initial(call: Call) -> Act | Tensor | None:
    """The initial states [layers * directions, units] of a sample; None where they are all zero."""
    match call.args["hx"]:
        case Const() as value:
            return _constant_state(
                value, Form((int(value.two.shape[0]), int(value.two.shape[2])), BatchAt(1))
            )
        case Act() as x:
            if x.layout != BatchAt(1):
                raise layout_refused(x.layout)
            return x
    raise Poisoned


def _constant_state(value: Const, form: Form) -> Tensor | None:
    """A state that depends on no input, None where it is zero."""
    state = per_sample(value, form)
    return state if bool(state.any()) else None


def _direction(ctx: Context, call: Call, x: Act, cell: _Cell, states: Act | Tensor | None) -> Act:
    shape = (x.shape[0], cell.units)
    step = f"{cell.name}_input"
    total = ctx.emit(
        call, ops.Linear(ctx.weight(call, cell.weights[0]), _bias(ctx, call, cell)), x, shape=shape, part=step
    )
    match states:
        case Act():
            total = _add_state(ctx, call, total, cell, states)
        case Tensor():
            offset = torch.zeros(shape, dtype=torch.float64)
            offset[cell.first(shape[0])] = fixed(cell.weights[1]).double() @ states[cell.row].double()
            total = affine(ctx, call, total, offset=offset, shape=shape, part=f"{cell.name}_start")
    op = ops.Recurrence(ctx.weight(call, cell.weights[1]), ops.Elementwise(cell.function), cell.reverse)
    return ctx.emit(call, op, total, shape=shape, part=cell.name)


def _bias(ctx: Context, call: Call, cell: _Cell) -> str | None:
    if not cell.biases:
        return None
    return ctx.tensor(call, fixed(cell.biases[0]) + fixed(cell.biases[1]))


def _add_state(ctx: Context, call: Call, total: Act, cell: _Cell, states: Act) -> Act:
    """What the initial state gives to the first element, added there."""
    part, row = f"{cell.name}_start", (1, cell.units)
    h = states
    if states.shape[0] > 1:
        h = ctx.emit(call, ops.Slice(0, cell.row, cell.row + 1), h, shape=row, part=f"{part}.state")
    h = ctx.emit(
        call, ops.Linear(ctx.weight(call, cell.weights[1]), None), h, shape=row, part=f"{part}.linear"
    )
    elements = total.shape[0]
    first = cell.first(elements)
    if elements > 1:
        pads = (first, elements - 1 - first, 0, 0)
        h = ctx.emit(call, ops.Pad(pads), h, shape=total.shape, part=f"{part}.pad")
    return ctx.emit(call, ops.Add((1, 1)), total, h, shape=total.shape, part=part)


def _end(ctx: Context, call: Call, h: Act, cell: _Cell) -> Act:
    index, shape = cell.last(h.shape[0]), (1, cell.units)
    if h.shape == shape:
        return h
    return ctx.emit(call, ops.Slice(0, index, index + 1), h, shape=shape, part=f"{cell.name}_last")


@RULES.anywhere("rnn_relu_cell")
def _relu_cell(ctx: Context, call: Call) -> Value:
    return _cell(ctx, call, fn.Relu())


@RULES.anywhere("rnn_tanh_cell")
def _tanh_cell(ctx: Context, call: Call) -> Value:
    return _cell(ctx, call, fn.Tanh())


def _cell(ctx: Context, call: Call, function: fn.Function) -> Value:
    """function(w_ih x + b_ih + w_hh h + b_hh): one element of a loop that was written out."""
    terms: list[Act] = []
    offset: Tensor | None = None
    for operand, suffix in (("input", "ih"), ("hx", "hh")):
        weight, bias = call.const(f"w_{suffix}"), call.const(f"b_{suffix}")
        assert weight is not None
        match call.args[operand]:
            case Act() as x:
                op = ops.Linear(ctx.weight(call, weight), None if bias is None else ctx.weight(call, bias))
                terms.append(ctx.emit(call, op, x, shape=call.shape, part=suffix))
            case Const() as value:
                state = per_sample(value, Form((*call.shape[:-1], value.two.shape[-1]), call.form.layout))
                offset = F.linear(state, fixed(weight), None if bias is None else fixed(bias))
            case _:
                raise Poisoned
    total = terms[0]
    if offset is not None and bool(offset.any()):
        total = affine(ctx, call, total, offset=offset, shape=call.shape, part="start")
    elif len(terms) == 2:
        total = ctx.emit(call, ops.Add((1, 1)), *terms, shape=call.shape, part="sum")
    return ctx.emit(call, ops.Elementwise(function), total)
