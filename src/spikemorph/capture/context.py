"""The graph under construction, and one exported operation as the rules see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, fx

from spikemorph.capture.naming import numbered
from spikemorph.capture.values import Act, Const, Ints, Opaque, Poisoned, Refused, Size, Value
from spikemorph.ir import ops
from spikemorph.ir.graph import Node, Origin


@final
@dataclass(frozen=True)
class Call:
    """One exported operation with its arguments by name.

    Args:
        base: name for its nodes.
        args: by the names of the operation's schema, defaults filled in; nodes replaced by their values.
        shape: of the result without the batch, () for several results.
        parts: shapes of the results without the batch where there are several; None for non-tensors.
        used: which of several results are read by anything.
    """

    node: fx.Node
    origin: Origin
    base: str
    args: Mapping[str, Any]
    shape: Ints
    parts: tuple[Ints | None, ...] = ()
    used: frozenset[int] = frozenset()

    def act(self, name: str = "self") -> Act:
        """The activation of that argument."""
        value = self.args[name]
        if isinstance(value, Opaque):
            raise Poisoned
        if isinstance(value, Act):
            return value
        raise Refused(
            f"with a constant as `{name}`",
            "operations whose data come from the inputs",
            f"compute `{name}` from the input of the model, or write the operation the other way round",
        )

    def const(self, name: str) -> Const | None:
        """The constant tensor of that argument, None where it was left out."""
        value = self.args[name]
        if value is None or isinstance(value, Const):
            return value
        if isinstance(value, Opaque):
            raise Poisoned
        raise Refused(
            f"with a computed `{name}`",
            f"`{name}` is a parameter, a buffer or a constant",
            "make it a parameter of the model: weights that depend on the input are not converted",
        )

    def ints(self, name: str, count: int) -> Ints:
        """That argument as `count` integers; one integer stands for all."""
        value = self.args[name]
        items = list(value) if isinstance(value, list | tuple) else [value]
        items = [self.number(item) for item in items]
        items = items * count if len(items) == 1 else items
        return tuple(int(item) for item in items)

    def number(self, value: Any) -> int | float:
        """A plain number."""
        if isinstance(value, Size):
            if value.two != value.three:
                raise Refused(
                    "with a number that depends on the batch size",
                    "every sample is computed on its own",
                    "use a constant instead of the batch size",
                )
            return value.two
        if isinstance(value, Opaque):
            raise Poisoned
        if isinstance(value, bool | int | float):
            return value
        raise Refused("with a computed number", "constant numbers", "use a constant number")

    def axis(self, value: Any, rank: int) -> int:
        """An axis of torch (batch included, may be negative) as an axis of a sample of that rank."""
        axis = int(self.number(value))
        axis = axis + rank + 1 if axis < 0 else axis
        if axis == 0:
            raise batch_refused()
        return axis - 1

    def axes(self, value: Any, rank: int) -> Ints:
        """Several axes of torch as sorted axes of a sample; none means all, which has the batch in it."""
        if value is None or (isinstance(value, list | tuple) and not value):
            raise batch_refused()
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(sorted(self.axis(item, rank) for item in items))


def batch_refused() -> Refused:
    """The refusal of everything that touches the batch axis."""
    return Refused(
        "on the batch axis",
        "axis 0 is the batch; every sample is computed on its own",
        "leave axis 0 alone: name the other axes, for example mean((2, 3)), flatten(1), view(x.shape[0], -1)",
    )


Rule = Callable[["Context", Call], Value]


@dataclass
class Context:
    """Nodes and tensors so far; the rules emit into it.

    Args:
        state_names: state-dict names by id() of the tensors, which outlive this object.
    """

    state_names: Mapping[int, str]

    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    inputs: int = 0
    _taken: set[str] = field(default_factory=set)

    def emit(self, call: Call, op: ops.Op, *inputs: Act, shape: Ints | None = None, part: str = "") -> Act:
        """A new node; `part` names a step on the way to the result, whose shape is then given."""
        name = self.unique(f"{call.base}.{part}" if part else call.base)
        shape = call.shape if shape is None else shape
        self.nodes.append(Node(name, op, tuple(each.name for each in inputs), shape, call.origin))
        return Act(name, shape)

    def input(self, name: str, shape: Ints, origin: Origin) -> Act:
        """The next input of the graph."""
        name = self.unique(name)
        self.nodes.append(Node(name, ops.Input(self.inputs), (), shape, origin))
        self.inputs += 1
        return Act(name, shape)

    def unique(self, base: str) -> str:
        """`base`, or the first of base_2, base_3 ... that is free."""
        name = next(each for each in numbered(base) if each not in self._taken)
        self._taken.add(name)
        return name

    def weight(self, call: Call, value: Const) -> str:
        """Name of a constant that is used as it is."""
        return self.tensor(call, fixed(value))

    def tensor(self, call: Call, tensor: Tensor) -> str:
        """Name of a tensor: its state-dict name where it is in there, else "const_" and the node."""
        name = self.state_names.get(id(tensor)) or self.unique(f"const_{call.base}")
        self.tensors[name] = tensor.detach().cpu().contiguous()
        return name


def fixed(value: Const) -> Tensor:
    """The constant, which must not depend on the batch size."""
    if value.two is not value.three and (
        value.two.shape != value.three.shape or not torch.equal(value.two, value.three)
    ):
        raise Refused(
            "with a tensor that depends on the batch size",
            "every sample is computed on its own",
            "make it a parameter or a buffer of the model",
        )
    return value.two


def per_sample(value: Const, rank: int) -> Tensor:
    """The constant without batch axis, as it broadcasts against a sample of `rank` axes in torch.

    Raises:
        Refused: it differs between samples, or would push the batch axis aside.
    """
    two, three = value.two, value.three
    if two.shape == three.shape:
        tensor = fixed(value)
        if tensor.dim() <= rank:
            return tensor
        if tensor.dim() == rank + 1 and tensor.shape[0] == 1:
            return tensor[0]
    elif two.dim() == rank + 1 and (two == two[:1]).all() and (three == two[:1]).all():
        return two[0]
    raise Refused(
        f"with a constant of shape {list(two.shape)} that broadcasts over the batch",
        f"constants broadcast against one sample, which has {rank} axes here",
        "give the constant a leading axis of 1, or none, and the same values for every sample",
    )


class Rules:
    """Aten operation -> rule, by "name.overload" first, then by "name"."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}

    def __call__(self, *names: str) -> Callable[[Rule], Rule]:
        """Decorator: the rule of these operations."""

        def register(rule: Rule) -> Rule:
            for name in names:
                assert name not in self._rules, name
                self._rules[name] = rule
            return rule

        return register

    def find(self, target: object) -> Rule | None:
        """The rule of an operation of torch.ops.aten, None where there is none."""
        full = str(target)
        if not full.startswith("aten."):
            return None
        full = full.removeprefix("aten.")
        return self._rules.get(full) or self._rules.get(full.split(".")[0])

    def known(self) -> tuple[str, ...]:
        """All operations with a rule, sorted."""
        return tuple(sorted(self._rules))


RULES = Rules()
