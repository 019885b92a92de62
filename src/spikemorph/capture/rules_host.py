"""Operations that vanish, and those that run on the host behind the last layer."""

from __future__ import annotations

import torch

from spikemorph.capture.context import RULES, Call, Context, batch_refused
from spikemorph.capture.values import Parts, Refused, Value
from spikemorph.ir import ops


@RULES.anywhere(
    "clone",
    "contiguous",
    "detach",
    "alias",
    "lift_fresh",
    "lift_fresh_copy",
    "positive",
    "view_of",
    "resolve_conj",
    "resolve_neg",
)
def _identity(ctx: Context, call: Call) -> Value:
    return call.act(next(iter(call.args)))


@RULES.anywhere("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
def _dropout(ctx: Context, call: Call) -> Value:
    if call.args["train"] and call.args["p"]:
        raise Refused(
            "in training mode",
            "dropout in eval mode, which is the identity",
            "call model.eval(); leave out functional dropout, or pass training=self.training",
        )
    x = call.act("input")
    return Parts((x, None)) if call.parts else x


@RULES.anywhere("_to_copy", "to", "type_as")
def _convert(ctx: Context, call: Call) -> Value:
    before, after = call.node.args[0], call.node
    assert isinstance(before, torch.fx.Node)
    if before.meta["val"].dtype != after.meta["val"].dtype:
        raise Refused(
            f"from {before.meta['val'].dtype} to {after.meta['val'].dtype}",
            "one floating-point type throughout",
            "remove the conversion of types; integer values are not activations",
        )
    return call.act(next(iter(call.args)))


@RULES.anywhere("softmax", "_softmax")
def _softmax(ctx: Context, call: Call) -> Value:
    x = call.act()
    return ctx.emit(call, ops.Softmax(call.axis(call.args["dim"], x.form)), x)


@RULES.anywhere("log_softmax", "_log_softmax")
def _log_softmax(ctx: Context, call: Call) -> Value:
    x = call.act()
    return ctx.emit(call, ops.Softmax(call.axis(call.args["dim"], x.form), log=True), x)


@RULES.anywhere("argmax")
def _argmax(ctx: Context, call: Call) -> Value:
    x = call.act()
    if call.args["dim"] is None:
        raise batch_refused()
    axis = call.axis(call.args["dim"], x.form)
    return ctx.emit(call, ops.Argmax(axis, bool(call.args["keepdim"])), x)
