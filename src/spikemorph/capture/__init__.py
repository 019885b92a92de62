"""Trained torch modules as float graphs. The only place that knows aten names."""

from spikemorph.capture.capture import Captured, Vanished, capture, capture_with_notes

__all__ = ["Captured", "Vanished", "capture", "capture_with_notes"]
