"""The event engine: compiled kernels whose work is spikes times fan-out."""

from spikemorph.run.event.engine import Event

__all__ = ["Event"]
