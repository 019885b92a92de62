"""What an exported program says about itself: inputs, constants, outputs; and what must not be in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument

from spikemorph.capture.batch import Batch, dynamic_sizes
from spikemorph.capture.inputs import input_values
from spikemorph.capture.values import Ints
from spikemorph.errors import CaptureError
from spikemorph.ir import structure as nesting
from spikemorph.ir.structure import Structure

_STATE = (InputKind.PARAMETER, InputKind.BUFFER)

HOW_TO_EXPORT = (
    'batch = torch.export.Dim("batch", min=1, max=2**20); '
    "torch.export.export(model.eval(), (x,), dynamic_shapes=({0: batch},)) with three or more samples in x"
)


def batch_of(program: ExportedProgram) -> tuple[Batch, Ints]:
    """The symbols of the batch sizes of all inputs, and the axis of each.

    Raises:
        CaptureError: an input has a fixed batch size, a second dynamic axis, or is no tensor.
    """
    symbols: set[Any] = set()
    axes: list[int] = []
    for name, value in input_values(program).items():
        if not isinstance(value, Tensor):
            raise _input_refused(name, f"a {type(value).__name__}", "bake the value into the model")
        sizes = ", ".join(str(size) for size in value.shape)
        dynamic = dynamic_sizes(value)
        if not dynamic:
            raise _input_refused(name, f"the fixed shape [{sizes}]", HOW_TO_EXPORT)
        if len(dynamic) > 1:
            raise _input_refused(name, f"several dynamic axes [{sizes}]", HOW_TO_EXPORT)
        ((axis, size),) = dynamic.items()
        symbols.add(size.node.expr)
        axes.append(axis)
    if not symbols:
        raise _input_refused("the program", "no input at all", "pass what forward takes")
    return Batch(frozenset(symbols)), tuple(axes)


def batch_pinned(program: ExportedProgram) -> CaptureError:
    """The refusal of a program whose batch torch made a constant on the way to aten operations."""
    sizes = {name: list(value.shape) for name, value in input_values(program).items()}
    return CaptureError(
        where="torch.export",
        got=f"a batch that torch took for a constant: {sizes}",
        known="programs whose batch is dynamic; torch may fix it where the example has two samples only",
        do=HOW_TO_EXPORT,
    )


def _input_refused(name: str, got: str, do: str) -> CaptureError:
    return CaptureError(
        where=f"input {name}",
        got=got,
        known="tensors [batch, ...] whose batch is dynamic, and no other axis",
        do=do,
    )


def constants_of(program: ExportedProgram) -> dict[str, Tensor]:
    """Parameters, buffers and lifted constants by placeholder name, detached; tied ones are one object."""
    state: dict[str, Any] = {**program.constants, **program.state_dict}
    detached: dict[int, Tensor] = {}
    found: dict[str, Tensor] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            continue
        value = None if spec.target is None else state.get(spec.target)
        if not isinstance(value, Tensor):
            raise CaptureError(
                where=f"the exported {spec.target or spec.kind}",
                got="something that is no tensor",
                known="parameters, buffers and constant tensors",
                do="remove script objects and tokens (torch.classes, effects) from the model",
            )
        found[spec.arg.name] = detached.setdefault(id(value), value.detach())
    return found


def state_names_of(program: ExportedProgram, constants: Mapping[str, Tensor]) -> dict[int, str]:
    """State-dict names by id() of the tensor; the first of several names of one tensor."""
    names: dict[int, str] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind in _STATE and spec.target is not None:
            names.setdefault(id(constants[spec.arg.name]), spec.target)
    return names


def check_finite(program: ExportedProgram, constants: Mapping[str, Tensor]) -> None:
    """Every parameter and buffer that is used must be finite."""
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    for spec in program.graph_signature.input_specs:
        tensor = constants.get(spec.arg.name)
        if tensor is None or spec.arg.name not in used or bool(torch.isfinite(tensor).all()):
            continue
        raise CaptureError(
            where=str(spec.target),
            got=f"{int((~torch.isfinite(tensor)).sum())} of {tensor.numel()} values are NaN or infinite",
            known="finite parameters and buffers",
            do="look at the training run: load an earlier checkpoint",
        )


def outputs_of(program: ExportedProgram) -> tuple[str, ...]:
    """Names of the operations that are outputs, leaf by leaf.

    Raises:
        CaptureError: an output is no tensor, or the module writes to its own buffers.
    """
    names: list[str] = []
    for spec in program.graph_signature.output_specs:
        if spec.kind is OutputKind.BUFFER_MUTATION:
            raise CaptureError(
                where=str(spec.target),
                got="a buffer that forward writes to",
                known="modules without memory between calls",
                do="call model.eval(); pass state in and out of forward instead of keeping it in a buffer",
            )
        if spec.kind is not OutputKind.USER_OUTPUT:
            continue
        if not isinstance(spec.arg, TensorArgument):
            value = getattr(spec.arg, "value", spec.arg)
            raise CaptureError(
                where=f"output {len(names)}",
                got=f"{value!r}",
                known="tensors, in tuples, lists and dicts",
                do="leave it out of what forward returns",
            )
        names.append(spec.arg.name)
    if not names:
        raise CaptureError(
            where="outputs",
            got="none",
            known="at least one tensor",
            do="return the result from forward",
        )
    return tuple(names)


def structure_of(program: ExportedProgram) -> Structure:
    """How the outputs are nested."""
    spec = program.call_spec.out_spec
    assert spec is not None
    value = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    try:
        return nesting.parse(value)
    except TypeError as error:
        raise CaptureError(
            where="outputs",
            got=str(error),
            known="tensors, in tuples, lists and dicts with string keys",
            do="return a tuple or a dict, for example with return_dict=False",
        ) from error
