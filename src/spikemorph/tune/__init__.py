"""Levels, spike kind and method searched for a network: the cheapest within a bound, and the trade-off."""

from __future__ import annotations

from spikemorph.tune.candidates import Counts, Rates
from spikemorph.tune.config import Prefer, Search
from spikemorph.tune.search import tune
from spikemorph.tune.tuned import Point, Tuned

__all__ = ["Counts", "Point", "Prefer", "Rates", "Search", "tune", "Tuned"]
