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
    rules_linear,
    rules_pool,
    rules_shape,
)
from spikemorph.capture.batch import Batch
from spikemorph.capture.context import RULES, Call, Context, Rule, batch_refused
from spikemorph.capture.export import Exported
from spikemorph.capture.fold import fold, is_constant, leaves, replaced
from spikemorph.capture.naming import attention_of, base_name, origin_of, packet
from spikemorph.capture.refusals import unsupported
from spikemorph.capture.values import Act, Const, Opaque, Parts, Poisoned, Refused, Size, Value
from spikemorph.errors import CaptureError, Offence
from spikemorph.ir.graph import Node, Origin


@final
@dataclass(frozen=True)
class Walked:
    """What the walk found.

    Args:
        nodes: in data-flow order, operations that no output needs included.
        outputs: node name of every output, None where a refused operation left nothing.
        owners: node name of every exported operation that is one activation here, by its own name.
        kept: nodes that were read by refused operations.
    """

    nodes: tuple[Node, ...]
    tensors: dict[str, Tensor]
    outputs: tuple[str | None, ...]
    owners: dict[str, str]
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
        owners={node.name: value.name for node, value in state.values.items() if isinstance(value, Act)},
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
        shape = self.batch.sample_shape(node.meta["val"])
        assert shape is not None
        several = len(self.exported.inputs) > 1
        name = f"input_{self.ctx.inputs}" if several else "input"
        self.values[node] = self.ctx.input(name, shape, Origin(call="input"))

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
        rule = RULES.find(node.target)
        if rule is None:
            raise _unsupported(node)
        return self._apply(node, rule, val)

    def _apply(self, node: fx.Node, rule: Rule, val: object) -> Value:
        operands = [self.values.get(each, Opaque()) for each in node.all_input_nodes]
        if any(isinstance(each, Opaque) for each in operands):
            raise Poisoned
        several = isinstance(val, list | tuple)
        shape = () if several else self.batch.sample_shape(val)
        if shape is None:
            raise batch_refused()
        used = frozenset(
            int(user.args[1])  # type: ignore[arg-type]
            for user in node.users
            if user.target is operator.getitem
        )
        call = Call(
            node=node,
            origin=origin_of(node),
            base=base_name(node),
            args=self._arguments(node),
            shape=shape,
            parts=tuple(self.batch.sample_shape(each) for each in val)
            if isinstance(val, list | tuple)
            else (),
            used=used,
        )
        if any(call.parts[number] is None for number in used):
            raise batch_refused()
        return rule(self.ctx, call)

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
        shape = self.batch.sample_shape(val)
        if shape is None or not isinstance(val, Tensor) or not val.is_floating_point():
            return Opaque()
        return self.ctx.input(base_name(node), shape, origin_of(node))

    def output(self, number: int, name: str) -> str | None:
        """Node name of an output."""
        value = {node.name: each for node, each in self.values.items()}.get(name, Opaque())
        match value:
            case Act():
                return value.name
            case Const() | Size():
                raise CaptureError(
                    where=f"output {number}",
                    got="a constant that depends on no input",
                    known="outputs that are computed from the inputs",
                    do="leave it out of what forward returns",
                )
            case _:
                return None


def _unsupported(node: fx.Node) -> Refused:
    offence = unsupported(origin_of(node), packet(node.target))
    return Refused("", offence.known, offence.do)
