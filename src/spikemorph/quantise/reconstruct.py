"""A planned network set up on calibration data, layer by layer, so that it stays close to the float network.

Node after node in data-flow order, with the float value and the quantised value of every calibration sample:
weights, biases and units of a layer are chosen knowing what the layers in front of it got wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from spikemorph.evaluate.batching import Batches, batches
from spikemorph.evaluate.floats import evaluate_node
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.passes.levels import LeastSquares
from spikemorph.quantise.equalise import equalised, readers
from spikemorph.quantise.fit import Fitted, Live, fit, live_range
from spikemorph.quantise.grids import Grids, absorbed_units
from spikemorph.quantise.methods import Reconstruction
from spikemorph.quantise.network import QuantisedNetwork, quantiser_of
from spikemorph.quantise.observe import kept_of, rows_of
from spikemorph.quantise.rounding import round_in_turn
from spikemorph.quantise.samples import Samples, inputs_at, outputs_at, places
from spikemorph.quantise.scale import choose_unit

AT_ONCE = 2**23
"""Numbers of one value that are computed at once."""


def with_biases(graph: Graph) -> Graph:
    """Every convolution and linear layer has a bias, zero where it had none: `<node>.bias`."""
    tensors, nodes = dict(graph.tensors), []
    for node in graph.nodes:
        if isinstance(node.op, ops.Conv | ops.Linear) and node.op.bias is None:
            name = f"{node.name}.bias"
            outputs = node.shape[0 if isinstance(node.op, ops.Conv) else -1]
            tensors[name] = torch.zeros(outputs, dtype=torch.float64)
            node = replace(node, op=replace(node.op, bias=name))
        nodes.append(node)
    return graph.with_nodes(nodes, tensors=tensors)


def reconstruct(network: QuantisedNetwork, calibration: Batches, method: Reconstruction) -> None:
    """Every weight, bias, unit and step of a network chosen, in place; it is then calibrated.

    Raises:
        DataError: empty or unfit calibration data.
    """
    largest = max(math.prod(node.shape) for node in network.graph.nodes)
    size = max(1, min(64, AT_ONCE // largest))
    given = list(batches(network.graph, calibration, size=size, where="calibration"))
    with torch.no_grad(), network.calibrating():
        walk = _Walk(network, method, given)
        for node in network.graph.body:
            walk.visit(node)


class _Walk:
    """The values at the frontier of the walk; lives inside `reconstruct` only.

    `floats` and `counts` hold, by node name, a tensor for each batch: the float network's values and the
    integers of the quantised one.
    """

    def __init__(
        self, network: QuantisedNetwork, method: Reconstruction, given: list[tuple[Tensor, ...]]
    ) -> None:
        self.network, self.method, self.given = network, method, given
        self.graph = network.graph
        self.grids = Grids(self.graph, network.levels, network)
        self.trained: Mapping[str, Tensor] = dict(self.graph.tensors)
        self.floats: dict[str, list[Tensor]] = {}
        self.counts: dict[str, list[Tensor]] = {}
        self.last_use = {name: node.name for node in self.graph.nodes for name in node.inputs}
        self.generator = torch.Generator().manual_seed(0)

    def visit(self, node: Node) -> None:
        """Choose what the node has to choose, then compute it in both networks."""
        self.floats[node.name] = [self._float(node, i) for i in range(len(self.given))]
        match node.op:
            case ops.Input():
                self.network.set_grid(node, torch.cat([each.flatten() for each in self.floats[node.name]]))
            case ops.Recurrence():
                self._choose_unit(node, self.floats)
            case ops.Quantiser():
                self._quantiser(node)
            case ops.Conv(transposed=False) | ops.Linear():
                self._weighted(node, node.op)
            case _:
                pass
        cell = self.grids.lay(node)
        self.counts[node.name] = [
            self.network.value(node, cell, [self.counts[name][i] for name in node.inputs], inputs)
            for i, inputs in enumerate(self.given)
        ]
        for name in node.inputs:
            if self.last_use[name] == node.name:
                self.floats.pop(name, None)
                self.counts.pop(name, None)

    def _float(self, node: Node, i: int) -> Tensor:
        if isinstance(node.op, ops.Input):
            return self.given[i][node.op.index]
        return evaluate_node(node, {name: self.floats[name][i] for name in node.inputs}, self.trained)

    def _real(self, name: str, i: int) -> Tensor:
        """A value of the quantised network as real numbers."""
        return self.network.decoded(self.grids.cells[name], self.counts[name][i])

    # ------------------------------------------------------------ units
    def _quantiser(self, node: Node) -> None:
        op, (source,) = node.op, node.inputs
        assert isinstance(op, ops.Quantiser)
        values = [self.network.chain(op, self._real(source, i)) for i in range(len(self.given))]
        self._choose_unit(node, {node.name: values})

    def _choose_unit(self, node: Node, values: Mapping[str, list[Tensor]]) -> None:
        """The unit with which what comes out is closest to the float value."""
        parts: list[tuple[Tensor, Tensor]] = []
        for value, wanted in zip(values[node.name], self.floats[node.name], strict=True):
            rows = rows_of(node, value), rows_of(node, wanted)
            few = kept_of(len(rows[0])) // len(self.given) + 1
            if few < rows[0].shape[1]:
                kept = torch.randint(rows[0].shape[1], (few,), generator=self.generator)
                ends = [rows[0].amax(1, keepdim=True), rows[0].amin(1, keepdim=True)]
                rows = rows[0][:, kept], rows[1][:, kept]
                if not isinstance(self.network.levels.observer, LeastSquares):
                    rows = torch.cat([rows[0], *ends], 1), torch.cat([rows[1], *ends], 1)
            parts.append(rows)
        seen, wanted = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        op = quantiser_of(node.op)  # type: ignore[arg-type]
        levels = self.network.levels
        unit = choose_unit(seen, op.lo, op.hi, levels.observer, wanted)
        reads = readers(self.graph, node, levels)
        unit = equalised((seen, wanted), unit, (op.lo, op.hi), reads, corrected=True)
        self.network.set_unit(node, unit)

    # ------------------------------------------------------------ weights
    def _weighted(self, node: Node, op: ops.Conv | ops.Linear) -> None:
        weight = self.trained[op.weight].double()
        groups = op.groups if isinstance(op, ops.Conv) else 1
        by_group = weight.reshape(groups, weight.shape[0] // groups, -1)
        samples, live = self._samples(node, op, by_group)
        assert op.bias is not None
        bias = self.trained[op.bias].double().reshape(groups, 1, -1)
        fitted = fit(samples, (by_group.transpose(1, 2), bias), live, weights=self.method.weights)
        if self.method.rounding:
            fitted = self._rounded(node, op, fitted)
        else:
            self._choose_steps(node, op, fitted.weight)
        self.network.tensor(op.weight).copy_(fitted.weight.transpose(1, 2).reshape(weight.shape))
        self.network.tensor(op.bias).copy_(fitted.bias.reshape(-1))

    def _samples(self, node: Node, op: ops.Conv | ops.Linear, by_group: Tensor) -> tuple[Samples, Live]:
        count = sum(len(each[0]) for each in self.given)
        branches, live = self._continues(node)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for i in range(len(self.given)):
            at = places(node, by_group.shape[2], count, self.generator)
            target = outputs_at(node, self.floats[node.name][i], at)
            beside = torch.zeros_like(target)
            for name, sign in branches:
                target = target + sign * outputs_at(node, self.floats[name][i], at)
                beside = beside + sign * outputs_at(node, self._real(name, i), at)
            kernel = self.trained[op.weight].shape[2:]
            read = inputs_at(node, kernel, self._real(node.inputs[0], i), at)
            parts.append((read, target.unsqueeze(0), beside.unsqueeze(0)))
        groups = by_group.shape[0]
        x, wanted, others = (torch.cat(each, 1) for each in zip(*parts, strict=True))
        wanted, others = (each.unflatten(2, (groups, -1))[0].transpose(0, 1) for each in (wanted, others))
        return Samples(x, wanted, others if branches else None), live

    def _continues(self, node: Node) -> tuple[list[tuple[str, int]], Live]:
        """The other branches of the sum that a weighted sum goes into, and what its activation sees."""
        branches: list[tuple[str, int]] = []
        user = self._only_user(node)
        if user is not None and isinstance(user.op, ops.Add):
            known = [
                (name, sign)
                for name, sign in zip(user.inputs, user.op.signs, strict=True)
                if name != node.name
            ]
            own = user.op.signs[user.inputs.index(node.name)]
            whole = all(
                name in self.counts and self.graph.by_name[name].shape == node.shape for name, _ in known
            )
            if own > 0 and whole and len(known) == len(user.inputs) - 1:
                branches, user = known, self._only_user(user)
            else:
                user = None
        if user is not None and isinstance(user.op, ops.Quantiser) and user.op.chain:
            first = user.op.chain[0]
            return branches, Live() if isinstance(first, ops.Affine) else live_range(first)
        return branches, Live()

    def _only_user(self, node: Node) -> Node | None:
        users = self.graph.consumers[node.name]
        return users[0] if len(users) == 1 and node.name not in self.graph.outputs else None

    def _rounded(self, node: Node, op: ops.Conv | ops.Linear, fitted: Fitted) -> Fitted:
        """Weights on the grid of their integers, and the biases that belong to them."""
        weight = fitted.weight.transpose(1, 2)
        relative, step = self._choose_steps(node, op, fitted.weight)
        seen = relative[:, 0]
        moments = fitted.moments / (seen.unsqueeze(2) * seen.unsqueeze(1))
        integers = round_in_turn(
            weight * relative / step, moments, self.network.levels.largest_weight(node.origin.module)
        )
        return fitted.with_weight((integers * step / relative).transpose(1, 2))

    def _choose_steps(self, node: Node, op: ops.Conv | ops.Linear, fitted: Tensor) -> tuple[Tensor, Tensor]:
        """Sets the steps of weights [groups, inputs, outputs]; what they take in of units, and the steps."""
        outer = self.trained[op.weight]
        weight = fitted.transpose(1, 2)
        (source,) = node.inputs
        unit, channels = (
            self.grids.cells[source].unit,
            self.graph.by_name[source].shape[0 if isinstance(op, ops.Conv) else -1],
        )
        relative, _ = absorbed_units(op, unit, outer, channels)
        relative = relative.expand(outer.shape).reshape(weight.shape)
        relative = torch.where(relative == 0, torch.ones_like(relative), relative)
        rows = (weight * relative).flatten(0, 1)
        largest = self.network.levels.largest_weight(node.origin.module)
        self.network.set_step(node, choose_unit(rows, -largest, largest, self.network.levels.weight_observer))
        return relative, self.network.weight_step(node, rows, largest).reshape(*weight.shape[:2], 1)
