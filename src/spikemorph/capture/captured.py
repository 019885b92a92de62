"""From a trained module to a float graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import nn
from torch.export import ExportedProgram

from spikemorph.capture import fates
from spikemorph.capture.check import check_capture
from spikemorph.capture.export import Exported, exported
from spikemorph.capture.fates import Vanished
from spikemorph.capture.spelled import recognise
from spikemorph.capture.trailing import softmax_offences, to_host
from spikemorph.capture.values import Act, Ints
from spikemorph.capture.walk import Walked, walk
from spikemorph.errors import CaptureError, Offence, UnsupportedOps
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.ir.ops import Input
from spikemorph.ir.verify import used_tensors, verify


@final
@dataclass(frozen=True)
class Captured:
    """A captured network with notes.

    Args:
        graph: float dialect. Where there are offences it is only good for a table: the result of every
            refused operation is a further input behind those of the network, and outputs may be missing.
        offences: operations that cannot be converted.
        vanished: operations that are gone because they do nothing at rest.
    """

    graph: Graph
    offences: tuple[Offence, ...]
    vanished: tuple[Vanished, ...]


def capture(
    model: nn.Module | ExportedProgram, example_inputs: object = None, *, batch_axis: int | Ints = 0
) -> Graph:
    """The float graph of a trained network, checked against the module on the example inputs.

    The batch is always the first axis of what spikemorph takes and gives, whatever axis it is on in the
    module; frames that are folded into the batch of an output come out as [batch, frames, ...].

    Args:
        model: a module in eval mode, or a program of torch.export with a dynamic batch.
        example_inputs: a tensor [batch, ...] or a tuple of them, one for each argument of forward;
            only a program has a default: its own, or random numbers.
        batch_axis: the axis that is the batch in the module and in its example inputs, one for all inputs or
            one for each: 1 for a sequence [elements, batch, features], (0, 1) where an initial state
            [layers, batch, units] comes with it. A program says itself.

    Raises:
        UnsupportedOps: operations without a spiking form, all of them.
        CaptureError: training mode, values that are not finite, torch.export fails, the graph differs.
        DataError: the example inputs do not fit.
    """
    program = exported(model, example_inputs, batch_axis)
    walked = walk(program)
    captured = _captured(program, walked)
    if captured.offences:
        raise UnsupportedOps(captured.offences)
    verify(captured.graph)
    outputs = [act.form for act in walked.outputs if act is not None]
    check_capture(captured.graph, program, outputs, _owners(captured.graph, walked))
    return captured.graph


def capture_with_notes(
    model: nn.Module | ExportedProgram, example_inputs: object = None, *, batch_axis: int | Ints = 0
) -> Captured:
    """As `capture`, but offences are listed, not raised, and nothing is checked against the module.

    Raises:
        CaptureError: training mode, values that are not finite, torch.export fails.
        DataError: the example inputs do not fit.
    """
    try:
        program = exported(model, example_inputs, batch_axis)
    except UnsupportedOps as error:
        return Captured(Graph(Dialect.FLOAT, (), ()), error.offences, ())
    return _captured(program, walk(program))


def _captured(program: Exported, walked: Walked) -> Captured:
    outputs = tuple(act.name for act in walked.outputs if act is not None)
    nodes = _reachable(recognise(walked.nodes, walked.tensors), {*outputs, *walked.kept}, len(program.inputs))
    graph = Graph(Dialect.FLOAT, nodes, outputs, walked.tensors, program.structure)
    graph = graph.with_nodes(nodes, tensors=used_tensors(graph))
    offences = (*walked.offences, *softmax_offences(graph))
    if not offences and len(outputs) != len(walked.outputs):
        raise _lost_output(walked.outputs.index(None))
    return Captured(to_host(graph, walked.kept), offences, fates.vanished(program.raw))


def _owners(graph: Graph, walked: Walked) -> dict[str, Act]:
    """Activations by exported operation, without nodes that traded their operation with another."""
    before = {node.name: node.origin for node in walked.nodes}
    unmoved = {node.name for node in graph.nodes if node.origin == before[node.name]}
    return {operation: act for operation, act in walked.owners.items() if act.name in unmoved}


def _reachable(nodes: tuple[Node, ...], wanted: set[str], inputs: int) -> tuple[Node, ...]:
    """Nodes that some wanted one depends on, and the inputs of the network."""
    kept: list[Node] = []
    for node in reversed(nodes):
        if node.name in wanted or (isinstance(node.op, Input) and node.op.index < inputs):
            wanted.update(node.inputs)
            kept.append(node)
    return tuple(reversed(kept))


def _lost_output(number: int) -> CaptureError:
    return CaptureError(
        where=f"output {number}",
        got="a result that is no activation [batch, ...]",
        known="floating-point tensors with one axis that is the batch",
        do="leave it out of what forward returns",
    )
