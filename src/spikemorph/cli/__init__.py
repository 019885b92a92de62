"""The command line: `spikemorph COMMAND`. Thin; every command calls the library."""

from spikemorph.cli.app import main

__all__ = ["main"]
