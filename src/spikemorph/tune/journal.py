"""What was judged before, as JSON lines: a search that was interrupted goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spikemorph.errors import FileError
from spikemorph.files import check_target

JSON = Mapping[str, Any]


class Journal:
    """Answers by key, each appended as one line as soon as it is known.

    A line that is damaged, as by a crash while it was written, is left out and noted; its question is
    answered again.

    Args:
        path: of the file, new or of an earlier search of any network; None: nothing is kept.
        about: enters every key: what all answers depend on.

    Raises:
        FileError: the file cannot be read or written.
    """

    def __init__(self, path: Path | None, about: object) -> None:
        self.path, self.about = path, about
        self.known: dict[str, Any] = {}
        self.notes: list[str] = []
        self.asked, self.found = 0, 0
        if path is not None:
            check_target(path)
            self._read(path)

    def answer(self, question: object, think: Callable[[], Any], fits: Callable[[Any], bool]) -> Any:
        """What the journal says, where it fits; else what `think` finds, which is written down."""
        key = hashlib.sha256(
            json.dumps([self.about, question], sort_keys=True, default=str).encode()
        ).hexdigest()
        if key in self.known and fits(self.known[key]):
            self.found += 1
            return self.known[key]
        answer = think()
        self.asked += 1
        self.known[key] = answer
        if self.path is not None:
            self._append(self.path, {"key": key, "question": question, "answer": answer})
        return answer

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_bytes().split(b"\n") if path.exists() else []
        except OSError as error:
            raise self._refused(path, error) from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                self.known[entry["key"]] = entry["answer"]
            except (ValueError, TypeError, KeyError, RecursionError):
                self.notes.append(f"{path}, line {number} is damaged and was left out")

    def _append(self, path: Path, entry: JSON) -> None:
        try:
            whole = not path.exists() or not path.stat().st_size or path.read_bytes()[-1:] == b"\n"
            with path.open("ab", buffering=0) as file:
                file.write((b"" if whole else b"\n") + json.dumps(entry, sort_keys=True).encode() + b"\n")
                os.fsync(file.fileno())
        except OSError as error:
            raise self._refused(path, error) from error

    @staticmethod
    def _refused(path: Path, error: OSError) -> FileError:
        return FileError(
            where=str(path),
            got=str(error),
            known="the journal of a search, a file that may be read and added to",
            do="choose another file, or leave it out",
        )
