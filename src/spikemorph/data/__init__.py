"""Named data sets with checksums, and the user's own arrays. Nothing here knows networks."""

from spikemorph.data.dataset import Dataset, Split
from spikemorph.data.loading import SourceRow, fetch, load, sources
from spikemorph.data.named import NAMED
from spikemorph.data.user import load_file

__all__ = ["NAMED", "Dataset", "SourceRow", "Split", "fetch", "load", "load_file", "sources"]
