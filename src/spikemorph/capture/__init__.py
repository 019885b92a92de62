"""Trained torch modules as float graphs. The only place that knows aten names."""

from spikemorph.capture.captured import Captured, capture, capture_with_notes
from spikemorph.capture.fates import Vanished

__all__ = ["Captured", "Vanished", "capture", "capture_with_notes"]
