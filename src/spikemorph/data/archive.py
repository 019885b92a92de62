"""Data sets that are one file, which a user puts into a folder with data sets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from spikemorph.data.folders import roots
from spikemorph.errors import DataError, MissingData


@final
@dataclass(frozen=True, slots=True)
class Archive:
    """One file with a data set.

    Args:
        name: of the data set.
        file: its name in the folder.
        sha256: of the file.
        do: what to do where it is missing, without the folder.
    """

    name: str
    file: str
    sha256: str
    do: str

    def found(self) -> Path:
        """Where it is.

        Raises:
            MissingData: in none of the folders with data sets.
            DataError: it has another checksum.
        """
        places = [root / self.file for root in roots()]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise MissingData(
                where=f"data set {self.name}",
                got=f"no file {self.file}",
                known=", ".join(str(place.parent) for place in places),
                do=f"{self.do}, or set SPIKEMORPH_DATA to its folder",
            )
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != self.sha256:
            raise DataError(
                where=str(path),
                got=f"sha256 {digest}",
                known=f"sha256 {self.sha256}",
                do="fetch the file again; results on other data do not compare",
            )
        return path

    def pillow(self) -> Any:
        """The module that decodes its images.

        Raises:
            MissingData: Pillow is not installed.
        """
        try:
            from PIL import Image
        except ImportError as error:
            raise MissingData(
                where=f"data set {self.name}",
                got="Pillow is not installed",
                known="Pillow decodes its JPEG files",
                do="pip install 'spikemorph[vision]'",
            ) from error
        return Image
