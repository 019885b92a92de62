"""The part of a larger model that becomes spiking, with everything around it as it is."""

from spikemorph.parts.part import Part

__all__ = ["Part"]
