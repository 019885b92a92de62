"""`python -m spikemorph`."""

from spikemorph.cli import main

main()
