"""Why torch.export failed, in our words."""

from __future__ import annotations

from traceback import walk_tb

from torch import nn
from torch.nn.utils.rnn import PackedSequence

from spikemorph.capture.refusals import PACKED
from spikemorph.errors import CaptureError


def export_failed(error: Exception, model: nn.Module) -> CaptureError:
    """Our words in front, torch's behind."""
    if _met_packed(error):
        got, known, do = PACKED
        return CaptureError(where="torch.export", got=f"a failure {got}: {error}", known=known, do=do)
    return CaptureError(
        where="torch.export",
        got=f"{type(error).__name__}: {str(error).strip()}",
        known="models that torch.export takes with a dynamic batch size",
        do=_advice(error, model),
    )


def _advice(error: Exception, model: nn.Module) -> str:
    message = str(error)
    if "data-dependent" in message or "DataDependent" in type(error).__name__:
        return "remove branches on values (`if x.sum() > 0`, .item(), masks) from forward"
    recurrent = [name or "the model" for name, layer in model.named_modules() if isinstance(layer, nn.RNN)]
    if "Expected hidden" in message:
        return (
            "give the initial state as [layers * directions, batch, units]; where it is an input of the "
            "model, say that its batch is on axis 1: batch_axis=(0, 1)"
        )
    if "Constraints violated" in message or "specialized" in message:
        do = "do not fix the batch size in forward: use x.shape[0], or -1 for the batch in view"
        if recurrent:
            do += (
                f"; {recurrent[0]} takes [batch, elements, features] with batch_first=True, and else "
                "[elements, batch, features]: then say batch_axis=1 (--batch-axis 1), or permute in forward"
            )
        return do
    return "make `torch.export.export(model, inputs, strict=False)` work first; its message is above"


def _met_packed(error: Exception) -> bool:
    """Whether a packed sequence was about where it failed."""
    return any(
        isinstance(value, PackedSequence)
        for frame, _ in walk_tb(error.__traceback__)
        for value in frame.f_locals.values()
    )
