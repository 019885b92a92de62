"""A planned network with trainable numbers: an ordinary torch module on the grids of the integer graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from spikemorph.errors import DataError, LevelsError
from spikemorph.evaluate import functions, pooling
from spikemorph.evaluate.batching import Batches, kept
from spikemorph.evaluate.encode import as_inputs
from spikemorph.evaluate.host import host_values
from spikemorph.evaluate.linear import LINEAR, align_ranks
from spikemorph.evaluate.recurrent import recur
from spikemorph.ir import ops, structure
from spikemorph.ir.graph import Graph, Node
from spikemorph.passes.levels import Levels
from spikemorph.passes.plan import sources_of_outputs
from spikemorph.quantise.cells import Accumulator, Cell, accumulator, round_through
from spikemorph.quantise.equalise import equalised, readers
from spikemorph.quantise.grids import Grids, lay_grids
from spikemorph.quantise.inputs import input_grid
from spikemorph.quantise.observe import observe
from spikemorph.quantise.poor import remark
from spikemorph.quantise.scale import choose_unit


class QuantisedNetwork(nn.Module):
    """Fake-quantised twin of an integer graph: made by `trainable`, turned into integers by `freeze`.

    Integers flow between the ops as float32 numbers; rounding passes gradients straight through; units and
    weight steps are learned as base-2 logarithms, so they stay positive.

    Args:
        graph: planned dialect.
        levels: the ranges of counts and weights.
    """

    calibrated: Tensor

    def __init__(self, graph: Graph, levels: Levels) -> None:
        super().__init__()
        self.graph, self.levels = graph, levels
        self._slots = {name: f"t{i}" for i, name in enumerate(_used_tensors(graph))}
        self.values = nn.ParameterDict({
            slot: _parameter(graph.tensors[name]) for name, slot in self._slots.items()
        })
        self._slot_of = {node.name: f"n{i}" for i, node in enumerate(graph.nodes)}
        self.register_buffer("calibrated", torch.zeros((), dtype=torch.bool))
        self.log_units = nn.ParameterDict()
        self.log_steps = nn.ParameterDict()
        for node in graph.nodes:
            slot = self._slot_of[node.name]
            if isinstance(node.op, ops.Quantiser | ops.Recurrence):
                rows = node.shape[0] if quantiser_of(node.op).per_channel and node.shape else 1
                self.log_units[slot] = nn.Parameter(torch.full((rows,), torch.nan, dtype=torch.float32))
            if isinstance(node.op, ops.Conv | ops.Linear | ops.Recurrence):
                channels = node.shape[0 if isinstance(node.op, ops.Conv) else -1]
                self.log_steps[slot] = nn.Parameter(torch.full((channels,), torch.nan, dtype=torch.float32))
            elif isinstance(node.op, ops.Input):
                self.register_buffer(f"grid_{slot}", torch.full((3,), torch.nan, dtype=torch.float64))

    # ------------------------------------------------------------ parameters of the grids
    def tensor(self, name: str) -> Tensor:
        """A weight, bias, gain or offset."""
        return cast(Tensor, self.values[self._slots[name]])

    def weight_step(self, node: Node, absorbed: Tensor, largest: int) -> Tensor:
        """Learned steps [out]; chosen from the weights when first asked for."""
        log_step = self.log_steps[self._slot_of[node.name]]
        if not self.calibrated and bool(log_step.isnan().any()):
            unit = choose_unit(absorbed.detach().flatten(1), -largest, largest, self.levels.weight_observer)
            log_step.data.copy_(unit.log2())
        return torch.exp2(log_step.double())

    def unit(self, node: Node, pattern: tuple[int, ...]) -> Tensor:
        """The learned unit of a quantiser, the fixed one of an input."""
        if isinstance(node.op, ops.Input):
            unit = self.grid(node)[:1]
        else:
            unit = torch.exp2(self.log_units[self._slot_of[node.name]].double())
        if not self.calibrated and bool(unit.isnan().any()):
            raise DataError(
                where=f"neuron '{node.name}'",
                got="no unit yet",
                known="units come from calibration data",
                do="pass calibration to trainable(...), or call module.calibrate(samples) before training",
            )
        return unit.reshape(pattern)

    def grid(self, node: Node) -> Tensor:
        """(unit, lo, hi) of an input, float64."""
        return cast(Tensor, getattr(self, f"grid_{self._slot_of[node.name]}"))

    def calibrate(self, calibration: Batches) -> None:
        """Choose all units and weight steps from samples of training data, in place.

        Samples that are few, all alike, repeated or without contrast are warned of (CalibrationWarning).

        Raises:
            DataError: empty or unfit calibration data.
        """
        calibration = kept(calibration)
        remark(self.graph, calibration, lambda: self.graph, what="units", observer=self.levels.observer)
        self.lay(*seen_in(self.graph, self.levels, calibration))

    def lay(self, units: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> None:
        """Take these units and choose the weight steps, in place.

        Args:
            units: of every quantiser and recurrence by node name, [channels or 1], above 0.
            inputs: numbers seen of every input by node name, which its grid is to reach.

        Raises:
            DataError: an input of zeros alone.
        """
        with self.calibrating():
            for name, samples in inputs.items():
                self.set_grid(self.graph.by_name[name], samples)
            for name, unit in units.items():
                self.set_unit(self.graph.by_name[name], unit)
            grids = Grids(self.graph, self.levels, self)
            for node in self.graph.body:
                grids.lay(node)

    @contextmanager
    def calibrating(self) -> Iterator[None]:
        """Inside, units and steps are to be chosen anew; steps that are not are chosen from the weights."""
        for log_step in self.log_steps.values():
            log_step.data.fill_(torch.nan)
        self.calibrated.fill_(value=False)
        with torch.no_grad():
            yield
        self.calibrated.fill_(value=True)

    def set_grid(self, node: Node, samples: Tensor) -> None:
        """The grid of an input, from samples of it."""
        _check_alive(node, samples, alone=len(self.graph.inputs) == 1)
        self.grid(node).copy_(torch.tensor(input_grid(samples, self.levels.input.bits), dtype=torch.float64))

    def set_unit(self, node: Node, unit: Tensor) -> None:
        """Units [rows] of a neuron."""
        self.log_units[self._slot_of[node.name]].data.copy_(unit.log2())

    def set_step(self, node: Node, step: Tensor) -> None:
        """Steps [out] of weights."""
        self.log_steps[self._slot_of[node.name]].data.copy_(step.log2())

    def check_finite(self) -> None:
        """Nothing, where every parameter is a finite number.

        Raises:
            DataError: NaN or infinity, as after a training that diverged.
        """
        names = {slot: name for name, slot in self._slots.items()}
        names |= {slot: name for name, slot in self._slot_of.items()}
        for key, parameter in self.named_parameters():
            if self.calibrated and not bool(parameter.isfinite().all()):
                kind, _, slot = key.partition(".")
                raise DataError(
                    where=f"{kind} of '{names[slot]}'",
                    got="NaN or infinite numbers",
                    known="finite numbers; a training that diverged leaves others",
                    do="train again with a smaller learning rate, or from an earlier checkpoint",
                )

    def cells(self) -> dict[str, Cell]:
        """The grid of every value, with gradients."""
        return lay_grids(self.graph, self.levels, self)

    # ------------------------------------------------------------ running
    def forward(self, *inputs: Tensor) -> Any:
        """The module's own output structure, from float inputs [batch, *shape]."""
        return self.with_activity(*inputs)[0]

    def with_activity(self, *inputs: Tensor) -> tuple[Any, Tensor]:
        """The outputs, and the mean |count| over all neurons: add a multiple to the loss for fewer spikes."""
        values, cells = self.integers(*inputs)
        neurons = ops.Quantiser | ops.Recurrence
        counts = [values[node.name].abs() for node in self.graph.nodes if isinstance(node.op, neurons)]
        activity = sum((each.sum() for each in counts), torch.zeros(())) / max(
            sum(each.numel() for each in counts), 1
        )
        real = {name: self.decoded(cells[name], values[name]) for name in sources_of_outputs(self.graph)}
        known = host_values(self.graph, real)
        return structure.build(self.graph.structure, [known[name] for name in self.graph.outputs]), activity

    def integers(self, *inputs: Tensor) -> tuple[dict[str, Tensor], dict[str, Cell]]:
        """Every value as float32 integers [batch, *shape] by node name, and the grids."""
        as_inputs(self.graph, inputs)
        cells = self.cells()
        values: dict[str, Tensor] = {}
        for node in self.graph.body:
            sources = [values[name] for name in node.inputs]
            values[node.name] = self.value(node, cells[node.name], sources, inputs)
        return values, cells

    def value(self, node: Node, cell: Cell, sources: list[Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        """The integers of one node from those of its sources, or from the network's inputs."""
        match node.op:
            case ops.Input(index):
                _, lo, hi = self.grid(node)
                return (inputs[index].double() / cell.unit + 0.5).floor().clamp(lo, hi).float()
            case ops.Affine():
                return sources[0].expand(-1, *node.shape)
            case ops.Add():
                return self._sum(cell, sources)
            case ops.Mul():
                a, b = align_ranks(*sources)
                return a * b
            case ops.MaxPool() | ops.AMax():
                return pooling.maximum(node.op, sources[0])
            case ops.Quantiser():
                return self._count(node.op, cell, sources[0])
            case ops.Recurrence():
                return self._recur(node.op, cell, sources[0])
            case ops.Conv(weight=weight):
                return _without_bias(node.op, sources, {weight: cell.integers["weight"].float()})
            case ops.Linear(weight=weight):
                return _without_bias(node.op, sources, {weight: cell.integers["weight"].float()})
            case ops.AxisMap(axis, matrix, _):
                return LINEAR[ops.AxisMap](ops.AxisMap(axis, matrix), sources, self.graph.tensors)
            case ops.Pad(pads, _):
                return LINEAR[ops.Pad](ops.Pad(pads), sources, {})
            case _:
                return LINEAR[type(node.op)](node.op, sources, {})

    @staticmethod
    def _sum(cell: Cell, sources: list[Tensor]) -> Tensor:
        rank = cell.unit.dim()
        total: Tensor | None = None
        for i, source in enumerate(sources):
            lifted = source.reshape(source.shape[0], *(1,) * (rank + 1 - source.dim()), *source.shape[1:])
            term = lifted * cell.integers[f"factor{i}"].float()
            total = term if total is None else total + term
        assert total is not None
        return total

    def _recur(self, op: ops.Recurrence, cell: Cell, source: Tensor) -> Tensor:
        """All elements of a recurrence; what no element changes is computed once."""
        quantiser, acc = quantiser_of(op), cell.source
        assert acc is not None
        x = source * cell.integers["factor0"].float()
        x = x if acc.bias is None else x + acc.bias.float()
        unit, rest = acc.unit.float().squeeze(0), acc.rest
        rests = None if rest is None else rest.float().expand(source.shape[1], -1).unbind()
        own = replace(cell, unit=cell.unit.float().reshape(1))

        def one(total: Tensor, n: int) -> Tensor:
            value = total * unit
            return self._chained(quantiser, own, value if rests is None else value + rests[n])

        return recur(op, x, cell.integers["weight"].float(), one)

    def _count(self, op: ops.Quantiser, cell: Cell, source: Tensor) -> Tensor:
        assert cell.source is not None
        return self._chained(op, cell, _real(cell.source, source))

    def _chained(self, op: ops.Quantiser, cell: Cell, x: Tensor) -> Tensor:
        return round_through((self.chain(op, x) / cell.unit.float()).clamp(op.lo, op.hi))

    def chain(self, op: ops.Quantiser, x: Tensor) -> Tensor:
        """What a neuron rounds, from the real value of its sum."""
        for link in op.chain:
            if isinstance(link, ops.Affine):
                named = {name: self.tensor(name) for name in (link.gain, link.offset) if name is not None}
                x = LINEAR[ops.Affine](link, [x], named)
            else:
                x = functions.apply(link, x)
        return x

    @staticmethod
    def decoded(cell: Cell, value: Tensor) -> Tensor:
        """A value as real numbers, from its integers."""
        return _real(accumulator(cell), value)


def seen_in(
    graph: Graph, levels: Levels, calibration: Batches
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Units of a planned graph's neurons, and numbers seen of its inputs: what `lay` takes.

    Raises:
        DataError: empty or unfit calibration data.
    """
    units: dict[str, Tensor] = {}
    seen: dict[str, Tensor] = {}
    for name, samples in observe(graph, calibration).items():
        node = graph.by_name[name]
        if isinstance(node.op, ops.Input):
            seen[name] = samples
        elif isinstance(node.op, ops.Quantiser | ops.Recurrence):
            op = quantiser_of(node.op)
            unit = choose_unit(samples, op.lo, op.hi, levels.observer)
            units[name] = equalised((samples, samples), unit, (op.lo, op.hi), readers(graph, node, levels))
    return units, seen


def _real(acc: Accumulator, integers: Tensor) -> Tensor:
    x = integers if acc.bias is None else integers + acc.bias.float()
    x = x * acc.unit.float()
    return x if acc.rest is None else x + acc.rest.float()


def _without_bias(op: ops.Conv | ops.Linear, sources: list[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    return LINEAR[type(op)](replace(op, bias=None), sources, tensors)


def quantiser_of(op: ops.Quantiser | ops.Recurrence) -> ops.Quantiser:
    """What lays the grid of a neuron to be."""
    found = op.cell if isinstance(op, ops.Recurrence) else op
    assert isinstance(found, ops.Quantiser)
    return found


def _check_alive(node: Node, samples: Tensor, *, alone: bool) -> None:
    """Refuses an input without a range; one beside others may well be zero, as initial states are."""
    if not bool((samples != 0).any()):
        raise DataError(
            where=f"calibration, input '{node.name}'",
            got="zeros alone",
            known="samples whose range is that of the data to come",
            do="pass a few hundred samples of training data"
            if alone
            else "an input that is always zero, such as an initial state h0, is no input: drop the argument "
            "from forward (torch.nn.RNN starts from zero by itself) and capture again; else pass samples of "
            "training data",
        )


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().float().clone())


def _used_tensors(graph: Graph) -> list[str]:
    """Names of the real-valued tensors that training may move, in order of use."""
    names: dict[str, None] = {}
    for node in graph.nodes:
        chain = quantiser_of(node.op).chain if isinstance(node.op, ops.Quantiser | ops.Recurrence) else ()
        links = chain if isinstance(node.op, ops.Quantiser) else (node.op, *chain)
        for link in links:
            for part in ("weight", "bias", "gain", "offset"):
                name = getattr(link, part, None)
                if name is not None:
                    names[name] = None
    return list(names)


def check_overrides(graph: Graph, levels: Levels) -> None:
    """Every override names a module of the network.

    Raises:
        LevelsError: an override that covers nothing.
    """
    modules = {node.origin.module for node in graph.nodes if node.origin.module}
    for path in levels.overrides:
        if not any(module == path or module.startswith(path + ".") for module in modules):
            raise LevelsError(
                where="Levels(overrides)",
                got=f"'{path}', which is no module of this network",
                known=", ".join(sorted(modules)),
                do="use the module path as `spikemorph inspect` prints it",
            )
