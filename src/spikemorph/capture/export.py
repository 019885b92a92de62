"""torch.export with a dynamic batch, functional and as high-level as it comes."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import final

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export

from spikemorph.capture import program as reading
from spikemorph.capture.batch import Batch
from spikemorph.capture.failed import export_failed
from spikemorph.capture.inputs import checked_inputs, drawn_inputs, input_values, repeated
from spikemorph.capture.loops import check_loops
from spikemorph.capture.refusals import layer_refused
from spikemorph.capture.values import Ints
from spikemorph.errors import CaptureError, Offence, UnsupportedOps
from spikemorph.ir.structure import Structure

LARGEST_BATCH = 2**20
"""Without a bound, torch guards against a batch of 2**63 - 1 and then calls its own guard a violation."""

UNUSUAL_BATCH = 13
"""Samples that torch takes for no constant, as it may take two where a recurrent layer copies its input."""


@final
@dataclass(frozen=True)
class Exported:
    """A network as a functional graph of aten operations.

    Args:
        program: after decomposition: no in-place operation is left.
        raw: before it.
        inputs: example inputs as the module takes them, a batch of at least two.
        axes: the batch axis of each.
        expected: what the module itself makes of them, leaf by leaf.
        constants: parameters, buffers and lifted tensors by placeholder name.
        state_names: state-dict names by id() of those tensors.
        outputs: names of the exported operations that are outputs.
    """

    program: ExportedProgram
    raw: ExportedProgram
    inputs: tuple[Tensor, ...]
    axes: Ints
    expected: tuple[Tensor, ...]
    batch: Batch
    constants: Mapping[str, Tensor]
    state_names: Mapping[int, str]
    outputs: tuple[str, ...]
    structure: Structure

    def batch_first(self) -> tuple[Tensor, ...]:
        """The example inputs as spikemorph takes them."""
        return tuple(each.cpu().movedim(axis, 0) for each, axis in zip(self.inputs, self.axes, strict=True))


@final
@dataclass(frozen=True)
class _Traced:
    """A program before and after decomposition, and the batch that it had before.

    Args:
        pinned: decomposition made the batch a constant.
    """

    raw: ExportedProgram
    program: ExportedProgram
    batch: Batch
    axes: Ints

    @property
    def pinned(self) -> bool:
        return None in map(self.batch.form, input_values(self.program).values())


def exported(model: object, example_inputs: object, batch_axis: int | Ints = 0) -> Exported:
    """Export a module, or take an exported program as it is.

    Raises:
        CaptureError: the module is in training mode, not finite, or torch cannot export it.
        UnsupportedOps: torch cannot export it because of a layer that is refused anyway.
        DataError: the example inputs do not fit.
    """
    match model:
        case ExportedProgram():
            inputs = drawn_inputs(model) if example_inputs is None else example_inputs
            return _read(_traced(model), inputs, None)
        case nn.Module():
            check_eval(model)
            samples, axes = checked_inputs(example_inputs, batch_axis)
            traced = _traced(_export(model, samples, axes))
            if traced.pinned:
                traced = _traced(_export(model, repeated(samples, axes, UNUSUAL_BATCH), axes))
            return _read(traced, samples, model)
        case _:
            raise CaptureError(
                where="model",
                got=f"a value of type {type(model).__name__}",
                known="a torch.nn.Module in eval mode, or a torch.export.ExportedProgram",
                do="pass the module itself, not its class, state dict or scripted form",
            )


def _traced(raw: ExportedProgram) -> _Traced:
    batch, axes = reading.batch_of(raw)
    check_loops(raw)
    with _quiet():
        return _Traced(raw, raw.run_decompositions({}), batch, axes)


def _read(traced: _Traced, example_inputs: object, model: nn.Module | None) -> Exported:
    program, axes = traced.program, traced.axes
    if traced.pinned:
        raise reading.batch_pinned(program)
    count = len(example_inputs) if isinstance(example_inputs, tuple) else 1
    if count != len(axes):
        raise CaptureError(
            where="example_inputs",
            got=f"{count} tensors",
            known=f"{len(axes)} inputs: {', '.join(input_values(program))}",
            do="pass one tensor for every input",
        )
    inputs, _ = checked_inputs(example_inputs, axes)
    constants = reading.constants_of(program)
    reading.check_finite(program, constants)
    outputs = reading.outputs_of(program)
    structure = reading.structure_of(program)
    return Exported(
        program=program,
        raw=traced.raw,
        inputs=inputs,
        axes=axes,
        expected=_module_outputs(model, inputs) if model else interpreted(program, constants, inputs),
        batch=traced.batch,
        constants=constants,
        state_names=reading.state_names_of(program, constants),
        outputs=outputs,
        structure=structure,
    )


def check_eval(model: nn.Module) -> None:
    """Nothing, where the model and all of its modules are at rest.

    Raises:
        CaptureError: training mode.
    """
    training = [name or "the model" for name, module in model.named_modules() if module.training]
    if training:
        more = f" and {len(training) - 3} more" if len(training) > 3 else ""
        raise CaptureError(
            where=", ".join(training[:3]) + more,
            got="training mode",
            known="networks at rest: stored batch statistics, no dropout",
            do="call model.eval() before capture",
        )


def _export(model: nn.Module, inputs: tuple[Tensor, ...], axes: Ints) -> ExportedProgram:
    batch = Dim("batch", min=1, max=LARGEST_BATCH)
    try:
        with _quiet():
            return export(model, inputs, dynamic_shapes=_dynamic(model, axes, batch), strict=False)
    except Exception as error:
        offences = tuple(_layers_without_form(model))
        if offences:
            raise UnsupportedOps(offences) from error
        raise export_failed(error, model) from error


def _layers_without_form(model: nn.Module) -> Iterator[Offence]:
    """Layers that are refused anyway; some versions of torch cannot even export them."""
    for path, layer in model.named_modules():
        match layer:
            case nn.LSTM() | nn.GRU():
                yield layer_refused(path, type(layer).__name__, "gru")
            case nn.InstanceNorm1d() | nn.InstanceNorm2d():
                yield layer_refused(path, type(layer).__name__, "instance_norm")
            case nn.BatchNorm1d(running_mean=None) | nn.BatchNorm2d(running_mean=None):
                yield layer_refused(path, type(layer).__name__, "native_batch_norm")


def _dynamic(model: nn.Module, axes: Ints, batch: object) -> object:
    """The batch of every input; forward(*args) takes them as one argument more deeply nested."""
    shapes = tuple({axis: batch} for axis in axes)
    kinds = [each.kind for each in inspect.signature(model.forward).parameters.values()]
    variadic = inspect.Parameter.VAR_POSITIONAL
    named = kinds.index(variadic) if variadic in kinds else len(shapes)
    return (*shapes[:named], shapes[named:]) if len(shapes) > named else shapes


def _module_outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return tuple(pytree.tree_leaves(model(*(each.clone() for each in inputs))))


def placed(
    program: ExportedProgram, constants: Mapping[str, Tensor], inputs: tuple[Tensor, ...]
) -> list[Tensor]:
    """The arguments of the program's graph, in order."""
    given = dict(zip(input_values(program), inputs, strict=True))
    return [
        given[node.name] if node.name in given else constants[node.name]
        for node in program.graph.nodes
        if node.op == "placeholder"
    ]


def interpreted(
    program: ExportedProgram, constants: Mapping[str, Tensor], inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """What the program computes, its outputs leaf by leaf."""
    with torch.no_grad():
        found = fx.Interpreter(program.graph_module).run(*placed(program, constants, inputs))
    count = len(reading.outputs_of(program))
    return tuple(found)[len(found) - count :]


@contextmanager
def _quiet() -> Iterator[None]:
    """Export warns, logs and prints graphs about what our own messages say better."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
