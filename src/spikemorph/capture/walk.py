"""The walk over an exported program: every operation becomes nodes, a constant, or an offence."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor, fx

from spikemorph.capture import (  # noqa: F401  (the rules register themselves)
    rules_arith,
    rules_elementwise,
    rules_host,
    rules_join,
    rules_linear,
    rules_pool,
    rules_rnn,
    rules_shape,
)
from spikemorph.capture.batch import Batch
from spikemorph.capture.context import (
    RULES,
    Call,
    Context,
    batch_refused,
    folded_loop_refused,
    layout_refused,
)
from spikemorph.capture.export import Exported
from spikemorph.capture.fold import fold, is_constant, leaves, replaced
from spikemorph.capture.naming import attention_of, base_name, origin_of, packet
from spikemorph.capture.refusals import unsupported
from spikemorph.capture.values import (
    BATCH_FIRST,
    Act,
    Const,
    Folded,
    Form,
    Opaque,
    Parts,
    Poisoned,
    Refused,
    Size,
    Value,
)
from spikemorph.errors import CaptureError, Offence
from spikemorph.ir.graph import Node, Origin


@final
@dataclass(frozen=True)
class Walked:
    """What the walk found.

    Args:
        nodes: in data-flow order, operations that no output needs included.
        outputs: every output, None where a refused operation left nothing.
        owners: every exported operation that is one activation here, by its own name.
        kept: nodes that were read by refused operations.
    """

    nodes: tuple[Node, ...]
    tensors: dict[str, Tensor]
    outputs: tuple[Act | None, ...]
    owners: dict[str, Act]
    offences: tuple[Offence, ...]
    kept: frozenset[str]


def walk(exported: Exported) -> Walked:
    """Translate all operations; offences are collected, not raised."""
    state = _Walk(exported, exported.batch, Context(exported.state_names))
    for node in exported.program.graph.nodes:
        match node.op:
            case "placeholder":
                state.placeholder(node)
            case "get_attr":
                state.attribute(node)
            case "call_function":
                state.call(node)
            case _:
                pass
    return Walked(
        nodes=tuple(state.ctx.nodes),
        tensors=state.ctx.tensors,
        outputs=tuple(state.output(number, name) for number, name in enumerate(exported.outputs)),
        owners={node.name: value for node, value in state.values.items() if isinstance(value, Act)},
        offences=tuple(state.offences),
        kept=frozenset(state.kept),
    )


@dataclass
class _Walk:
    exported: Exported
    batch: Batch
    ctx: Context
    values: dict[fx.Node, Value] = field(default_factory=dict)
    offences: list[Offence] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)

    def placeholder(self, node: fx.Node) -> None:
        """Parameters, buffers and constants are known; the rest are the inputs."""
        if node.name in self.exported.constants:
            tensor = self.exported.constants[node.name]
            self.values[node] = Const(tensor, tensor)
            return
        form = self.batch.form(node.meta["val"])
        assert form is not None
        several = len(self.exported.inputs) > 1
        name = f"input_{self.ctx.inputs}" if several else "input"
        self.values[node] = self.ctx.input(name, form, Origin(call="input"))

    def attribute(self, node: fx.Node) -> None:
        """A tensor that hangs on the exported module itself; submodules belong to control flow."""
        value = self.exported.program.graph_module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        self.values[node] = Const(value, value) if isinstance(value, Tensor) else Opaque()

    def call(self, node: fx.Node) -> None:
        """One operation: a size, a constant, nodes, or an offence and a stand-in."""
        val = node.meta.get("val")
        if val is None and packet(node.target).startswith(("_assert", "sym_constrain")):
            return
        try:
            self.values[node] = self._value(node, val)
        except Refused as refused:
            if attention_of(node) is not None:
                self._offend_attention(node)
                return
            origin = origin_of(node)
            got = f"{origin.call} {refused.got}".strip()
            self._offend(node, Offence(where=str(origin), got=got, known=refused.known, do=refused.do))
        except Poisoned:
            self.values[node] = self._stand_in(node)

    def _value(self, node: fx.Node, val: object) -> Value:
        if isinstance(val, torch.SymInt | torch.SymFloat | torch.SymBool | int | float):
            size = self.batch.size(val)
            if size is None:
                raise _unsupported(node)
            return size
        if node.target is operator.getitem:
            return self._item(node)
        if is_constant(node, self.values):
            return fold(node, self.values)
        if RULES.find(node.target, anywhere=False) is None:
            raise _unsupported(node)
        return self._apply(node, val)

    def _apply(self, node: fx.Node, val: object) -> Value:
        operands = [self.values.get(each, Opaque()) for each in node.all_input_nodes]
        if any(isinstance(each, Opaque) for each in operands):
            raise Poisoned
        call = self._called(node, val)
        found = (*operands, call.form, *call.parts)
        layouts = [each.layout for each in found if isinstance(each, Act | Form)]
        odd = next((each for each in layouts if each != BATCH_FIRST), None)
        rule = RULES.find(node.target, anywhere=odd is not None)
        if rule is None:
            assert odd is not None
            raise layout_refused(odd)
        value = rule(self.ctx, call)
        if not isinstance(value, Parts):
            return _laid_out(value, call.form)
        pairs = zip(value.items, call.parts, strict=True)
        return Parts(tuple(_laid_out(item, form) if item and form else item for item, form in pairs))

    def _called(self, node: fx.Node, val: object) -> Call:
        several = isinstance(val, list | tuple)
        form = Form(()) if several else self.batch.form(val)
        parts = tuple(map(self.batch.form, val)) if isinstance(val, list | tuple) else ()
        used = frozenset(
            int(user.args[1])  # type: ignore[arg-type]
            for user in node.users
            if user.target is operator.getitem
        )
        if form is None or any(parts[number] is None for number in used):
            raise self._without_form(node)
        return Call(
            node=node,
            origin=origin_of(node),
            base=base_name(node),
            args=self._arguments(node),
            form=form,
            parts=parts,
            used=used,
        )

    def _without_form(self, node: fx.Node) -> Refused:
        """Last states [layers, batch * frames, units] of a recurrent layer over folded frames have none."""
        recurrent = packet(node.target) in {"rnn_relu", "rnn_tanh"}
        operands = [self.values[each] for each in node.all_input_nodes]
        folded = any(isinstance(each, Act) and isinstance(each.layout, Folded) for each in operands)
        return folded_loop_refused() if recurrent and folded else batch_refused()

    def _arguments(self, node: fx.Node) -> dict[str, Any]:
        """Arguments by name, as the operation's schema has them, nodes replaced by their values."""
        schema = node.target._schema  # type: ignore[union-attr]
        given: dict[str, Any] = {each.name: each.default_value for each in schema.arguments}
        given.update(zip(given, node.args, strict=False))
        given.update(node.kwargs)
        return {
            name: replaced(value, lambda leaf: self.values[leaf] if isinstance(leaf, fx.Node) else leaf)
            for name, value in given.items()
        }

    def _item(self, node: fx.Node) -> Value:
        source, index = node.args
        assert isinstance(source, fx.Node) and isinstance(index, int)
        value = self.values[source]
        item = value.items[index] if isinstance(value, Parts) else None
        if item is None:
            raise Poisoned
        return item

    def _offend(self, node: fx.Node, offence: Offence) -> None:
        self.offences.append(offence)
        for each in leaves([node.args, node.kwargs]):
            value = self.values.get(each) if isinstance(each, fx.Node) else None
            if isinstance(value, Act):
                self.kept.add(value.name)
        self.values[node] = self._stand_in(node)

    def _offend_attention(self, node: fx.Node) -> None:
        """Attention moves the batch about in many steps; it is one offence."""
        origin = origin_of(node)
        offence = unsupported(replace(origin, call="torch.nn.MultiheadAttention"), "MultiheadAttention")
        if all(each.where != offence.where or each.got != offence.got for each in self.offences):
            self._offend(node, offence)
        else:
            self.values[node] = self._stand_in(node)

    def _stand_in(self, node: fx.Node) -> Value:
        """A further input in place of a refused result, so that the walk can go on behind it."""
        val = node.meta.get("val")
        form = self.batch.form(val)
        if form is None or not isinstance(val, Tensor) or not val.is_floating_point():
            return Opaque()
        return self.ctx.input(base_name(node), form, origin_of(node))

    def output(self, number: int, name: str) -> Act | None:
        """The activation that is an output."""
        value = {node.name: each for node, each in self.values.items()}.get(name, Opaque())
        match value:
            case Act():
                return value
            case Const() | Size():
                raise CaptureError(
                    where=f"output {number}",
                    got="a constant that depends on no input",
                    known="outputs that are computed from the inputs",
                    do="leave it out of what forward returns",
                )
            case _:
                return None


def _laid_out(value: Value, form: Form) -> Value:
    """The result of a rule as torch has it: rules compute samples, the exported program knows the layout."""
    if not isinstance(value, Act):
        return value
    assert value.shape == form.shape, (value, form)
    return replace(value, layout=form.layout)


def _unsupported(node: fx.Node) -> Refused:
    offence = unsupported(origin_of(node), packet(node.target))
    return Refused("", offence.known, offence.do)
