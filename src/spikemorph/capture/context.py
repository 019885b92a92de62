"""The graph under construction, and one exported operation as the rules see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor, fx

from spikemorph.capture.naming import numbered
from spikemorph.capture.values import (
    Act,
    BatchAt,
    Const,
    Form,
    Ints,
    Layout,
    Opaque,
    Poisoned,
    Refused,
    Size,
    Value,
)
from spikemorph.ir import ops
from spikemorph.ir.graph import Node, Origin


@final
@dataclass(frozen=True)
class Call:
    """One exported operation with its arguments by name.

    Args:
        base: name for its nodes.
        args: by the names of the operation's schema, defaults filled in; nodes replaced by their values.
        form: of the result; of no axes where there are several results.
        parts: forms of the results where there are several; None for non-tensors.
        used: which of several results are read by anything.
    """

    node: fx.Node
    origin: Origin
    base: str
    args: Mapping[str, Any]
    form: Form
    parts: tuple[Form | None, ...] = ()
    used: frozenset[int] = frozenset()

    @property
    def shape(self) -> Ints:
        """Of the result, without the batch."""
        return self.form.shape

    def part_shape(self, index: int) -> Ints:
        """Of one of several results, without the batch."""
        form = self.parts[index]
        assert form is not None
        return form.shape

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

    def axis(self, value: Any, form: Form) -> int:
        """An axis of torch (batch included, may be negative) as an axis of a sample of that form."""
        axis = form.axis(int(self.number(value)))
        if axis is None:
            raise batch_refused()
        return axis

    def axes(self, value: Any, form: Form) -> Ints:
        """Several axes of torch as sorted axes of a sample; none means all, which has the batch in it."""
        if value is None or (isinstance(value, list | tuple) and not value):
            raise batch_refused()
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(sorted(self.axis(item, form) for item in items))


def batch_refused() -> Refused:
    """The refusal of everything that touches the batch axis."""
    return Refused(
        "on the batch axis",
        "axis 0 is the batch; every sample is computed on its own",
        "leave axis 0 alone: name the other axes, for example mean((2, 3)), flatten(1), view(x.shape[0], -1)",
    )


def layout_refused(layout: Layout) -> Refused:
    """The refusal of an operation that knows only values with the batch on axis 0."""
    if isinstance(layout, BatchAt):
        return Refused(
            f"on a value with the batch on axis {layout.axis}",
            "with the batch there: recurrent and linear layers, activations, sums and products, indexing, "
            "cat and stack",
            "bring the batch back to axis 0 first, with x.transpose(0, 1)",
        )
    return Refused(
        "on frames folded into the batch",
        "on folded frames: convolutions, batch norm, activations, pools, linear layers, sums and products",
        "unfold the frames first, with x.unflatten(0, (batch, -1)), and fold them again behind it",
    )


def folded_loop_refused() -> Refused:
    """The refusal of a recurrent layer within every frame, frames folded into the batch."""
    return Refused(
        "on frames folded into the batch",
        "recurrent layers over the elements of a sample; one within every frame (a hierarchy of two) is not "
        "converted",
        "use a convolution or linear layer within the frames, or one recurrent layer over all elements of "
        "all frames, with x.flatten(1, 2)",
    )


def fold_refused() -> Refused:
    """The refusal of frames folded into the batch, or taken out of it, with the batch innermost."""
    return Refused(
        "with the batch innermost in a fold of elements and batch",
        "frames folded with the batch outermost: x [batch, elements, ...] as x.flatten(0, 1)",
        "put the batch first before folding and after unfolding: x.transpose(0, 1), and batch_first=True in "
        "torch.nn.RNN",
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
    _known: dict[str, Node] = field(default_factory=dict)

    def emit(self, call: Call, op: ops.Op, *inputs: Act, shape: Ints | None = None, part: str = "") -> Act:
        """A new node; `part` names a step on the way to the result, whose shape is then given."""
        name = self.unique(f"{call.base}.{part}" if part else call.base)
        shape = call.shape if shape is None else shape
        return self._add(Node(name, op, tuple(each.name for each in inputs), shape, call.origin))

    def _add(self, node: Node) -> Act:
        self.nodes.append(node)
        self._known[node.name] = node
        return Act(node.name, node.shape)

    def source(self, x: Act) -> tuple[ops.Op, tuple[Act, ...]]:
        """The op that made an activation, and the activations it was made from."""
        node = self._known[x.name]
        return node.op, tuple(Act(name, self._known[name].shape) for name in node.inputs)

    def permute(self, call: Call, x: Act, axes: Ints, *, part: str = "") -> Act:
        """Axes in another order; one permutation in place of two, and none in place of inverse ones."""
        shape = tuple(x.shape[axis] for axis in axes)
        match self.source(x):
            case ops.Permute(before), (x,):
                axes = tuple(before[axis] for axis in axes)
        if axes == tuple(range(len(axes))):
            return x
        return self.emit(call, ops.Permute(axes), x, shape=shape, part=part)

    def input(self, name: str, form: Form, origin: Origin) -> Act:
        """The next input of the graph."""
        node = Node(self.unique(name), ops.Input(self.inputs), (), form.shape, origin)
        self.inputs += 1
        return replace(self._add(node), layout=form.layout)

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


def per_sample(value: Const, form: Form) -> Tensor:
    """The constant without batch axis, as it broadcasts in torch against a sample of a value of that form.

    Raises:
        Refused: it differs between samples, or would push the batch axis aside.
    """
    two, three = value.two, value.three
    at = two.dim() - (form.rank - form.batch_axis)
    found: Tensor | None = None
    if two.dim() <= form.rank and two.shape == three.shape:
        tensor = fixed(value)
        if at < 0:
            return tensor
        found = tensor if tensor.shape[at] == 1 else None
    elif two.dim() <= form.rank and at >= 0:
        found = _same_for_all(two, three, at, frames=form.sizes(1)[form.batch_axis])
    if found is not None:
        return found.squeeze(at) if isinstance(form.layout, BatchAt) else found
    raise Refused(
        f"with a constant of shape {list(two.shape)} that broadcasts over the batch",
        f"constants broadcast against one sample, which has {len(form.shape)} axes here",
        "give the constant a leading axis of 1, or none, and the same values for every sample",
    )


def _same_for_all(two: Tensor, three: Tensor, axis: int, frames: int) -> Tensor | None:
    """The first sample's part along the axis, where the parts of all of them are the same."""
    first = two.narrow(axis, 0, frames)
    repeated = [torch.cat([first] * batch, axis) for batch in (2, 3)]
    return first if torch.equal(two, repeated[0]) and torch.equal(three, repeated[1]) else None


class Rules:
    """Aten operation -> rule, by "name.overload" first, then by "name"."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}
        self._anywhere: set[str] = set()

    def __call__(self, *names: str) -> Callable[[Rule], Rule]:
        """Decorator: the rule of these operations on values with the batch on axis 0."""

        def register(rule: Rule) -> Rule:
            for name in names:
                assert name not in self._rules, name
                self._rules[name] = rule
            return rule

        return register

    def anywhere(self, *names: str) -> Callable[[Rule], Rule]:
        """Decorator: the rule of these operations, which looks itself where the batch is."""
        self._anywhere.update(names)
        return self(*names)

    def find(self, target: object, *, anywhere: bool) -> Rule | None:
        """The rule of an operation of torch.ops.aten, None where there is none.

        Args:
            anywhere: only a rule that looks where the batch is.
        """
        full = str(target)
        if not full.startswith("aten."):
            return None
        full = full.removeprefix("aten.")
        name = full if full in self._rules else full.split(".")[0]
        return None if anywhere and name not in self._anywhere else self._rules.get(name)

    def known(self) -> tuple[str, ...]:
        """All operations with a rule, sorted."""
        return tuple(sorted(self._rules))


RULES = Rules()
