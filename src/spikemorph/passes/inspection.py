"""What would become of a model, op by op, before any work: the fate, the reason, the fix."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, final

from spikemorph.capture import Captured, capture_with_notes
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.passes import plan
from spikemorph.passes.levels import Levels

FATES: dict[type, tuple[str, str]] = {
    ops.Input: ("input", "quantised on a symmetric grid with its unit from calibration"),
    ops.AxisMap: ("linear", "integer map along an axis"),
    ops.Conv: ("linear", "integer weights"),
    ops.Linear: ("linear", "integer weights"),
    ops.BatchNorm: ("folded", "gain into units, shift into breakpoints and biases"),
    ops.Affine: ("folded", "gain into units, constant into breakpoints and biases"),
    ops.AvgPool: ("linear", "integer map along each axis"),
    ops.AdaptiveAvgPool: ("linear", "integer map along each axis"),
    ops.Mean: ("linear", "integer map along each axis"),
    ops.Upsample: ("linear", "integer map along each axis"),
    ops.Add: ("linear", "branches brought to one grid"),
    ops.Concat: ("linear", "joined"),
    ops.Mul: ("product", "A_t B_t - A_(t-1) B_(t-1) of two counts"),
    ops.MaxPool: ("neuron", "tracks the maximum of its sources' counts"),
    ops.AMax: ("neuron", "tracks the maximum of its sources' counts"),
    ops.Recurrence: ("recurrent neuron", "element by element; settled counts go to the next element"),
    ops.Elementwise: ("neuron", "tracks a step function of its accumulator"),
    ops.Softmax: ("host op", "computed on the decoded output, outside the law"),
    ops.HostFunction: ("host op", "computed on the decoded output, outside the law"),
    ops.Argmax: ("host op", "computed on the decoded output, outside the law"),
    **dict.fromkeys(ops.REARRANGING, ("moved", "no arithmetic")),
}


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One operation of the model, or one identity neuron that has to be inserted.

    Args:
        fate: input, linear, folded, moved, product, neuron, recurrent neuron, fused, identity neuron,
            host op, removed or refused.
        do: what to change, for refused operations.
    """

    name: str
    op: str
    place: str
    fate: str
    reason: str
    do: str = ""


@final
@dataclass(frozen=True)
class Inspection:
    """The fate of every operation.

    Args:
        rows: in data-flow order; removed and refused operations come last.
    """

    rows: tuple[Row, ...]

    @property
    def convertible(self) -> bool:
        """Whether nothing is refused."""
        return not any(row.fate == "refused" for row in self.rows)

    @property
    def identity_neurons(self) -> tuple[Row, ...]:
        """Identity neurons that will be inserted."""
        return tuple(row for row in self.rows if row.fate == "identity neuron")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"convertible": self.convertible, "rows": [asdict(row) for row in self.rows]}

    def __str__(self) -> str:
        head = ("name", "op", "place", "fate", "reason")
        lines = [head, *((row.name, row.op, row.place, row.fate, row.reason) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head) - 1)]
        text = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]])
            for line in lines
        ]
        text += [f"  -> {row.place}: {row.do}" for row in self.rows if row.do]
        return "\n".join(text)


def inspect(
    model: Any,
    example_inputs: Any,
    levels: Levels | None = None,
    *,
    batch_axis: int | tuple[int, ...] = 0,
) -> Inspection:
    """Every operation of a model and what becomes of it. Refuses nothing: refused operations are rows.

    Args:
        model: a torch module in eval mode, or an exported program.
        example_inputs: a tensor [batch, ...] or a tuple of them.
        levels: decide where maps compose and where an identity neuron must stand; Levels() by default.
        batch_axis: as `capture` takes it.

    Raises:
        CaptureError: the model cannot even be exported.
    """
    captured = capture_with_notes(model, example_inputs, batch_axis=batch_axis)
    rows = _captured_rows(captured, Levels() if levels is None else levels)
    rows += [
        Row("", gone.origin.call, str(gone.origin), "removed", gone.reason) for gone in captured.vanished
    ]
    rows += [Row("", each.got, each.where, "refused", each.known, each.do) for each in captured.offences]
    return Inspection(tuple(rows))


def _captured_rows(captured: Captured, levels: Levels) -> list[Row]:
    graph = captured.graph
    planned = plan(graph, levels) if not captured.offences else None
    guards = {} if planned is None else _identities(planned)
    rows: list[Row] = []
    for node in graph.nodes:
        rows.append(_row(node, graph, planned))
        if node.name in guards:
            rows.append(guards[node.name])
    return rows


def _identities(planned: Graph) -> dict[str, Row]:
    """Rows of inserted identity neurons by the name of the op they stand behind."""
    found = {}
    for node in planned.nodes:
        if isinstance(node.op, ops.Quantiser) and not node.op.chain:
            row = Row(node.name, "identity", str(node.origin), "identity neuron", node.op.reason)
            found[node.name.removesuffix(".identity").split(".axis")[0]] = row
    return found


def _row(node: Node, graph: Graph, planned: Graph | None) -> Row:
    fate, reason = FATES[type(node.op)]
    name = type(node.op).__name__
    if isinstance(node.op, ops.Elementwise | ops.HostFunction):
        name = type(node.op.function).__name__
    if planned is not None and isinstance(node.op, ops.Elementwise) and node.name not in planned.by_name:
        fate, reason = "fused", "one step function together with what follows"
    if planned is not None and node.name in planned.by_name:
        made = planned.by_name[node.name].op
        made = made.cell if isinstance(made, ops.Recurrence) else made
        if isinstance(made, ops.Quantiser):
            reason = f"{reason}, counts {made.lo}..{made.hi}"
    if isinstance(node.op, ops.Input) and node.origin.call != "input":
        fate, reason = "unknown", "the result of a refused operation"
    if not graph.consumers[node.name] and node.name not in graph.outputs:
        unread = "no output needs it" if planned is not None else "only refused operations read it"
        fate, reason = "removed" if planned is not None else fate, unread
    return Row(node.name, name, str(node.origin), fate, reason)
