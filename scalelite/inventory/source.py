"""The text of a file of an inventory and the places in it; knows nothing of YAML."""

from __future__ import annotations

import re
from bisect import bisect_right
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from scalelite.core.model import Place

if TYPE_CHECKING:
    from pathlib import Path as FilePath

_LINE_END = re.compile(r"\r\n?|\n")


class SourceFile(NamedTuple):
    """A file that an inventory was read from, as plans name it."""

    path: str
    sha256: str


class Origin(NamedTuple):
    """What a file is to its inventory: `('group_vars', 'large')`, or nothing for one with sections."""

    root: tuple[str, ...] = ()
    folder: FilePath | None = None


class Source:
    """A file's text; offsets count characters from 0, places lines and columns from 1.

    `root` is the path in the inventory of what the file holds, `folder` that of the inventory, `vaulted` says that the
    file was encrypted, so that none of its values is ever shown.
    """

    def __init__(
        self, path: str, data: bytes, text: str, *, origin: Origin | None = None, vaulted: bool = False
    ) -> None:
        self.path = path
        self.text = text
        self.file = SourceFile(path, sha256(data).hexdigest())
        self.root, self.folder = origin or Origin()
        self.vaulted = vaulted
        # Said by who has read it: reading it once more, for the lines of problems, would take as long again.
        self.is_costly = False
        self._line_starts = [0]
        self._line_ends = _LINE_END.finditer(text)
        self._counted = (0, 0)

    def __repr__(self) -> str:
        return f"Source({self.path!r})"

    def _read_to(self, offset: int) -> None:
        """Find the line ends up to a character, and no further: a text may have millions."""
        while self._line_starts[-1] <= offset and (end := next(self._line_ends, None)) is not None:
            self._line_starts.append(end.end())

    def place(self, offset: int) -> Place:
        """Return the place of a character."""
        self._read_to(offset)
        line = bisect_right(self._line_starts, offset)
        return Place(self.path, line, offset - self._line_starts[line - 1] + 1)

    def line_span(self, offset: int) -> tuple[int, int]:
        """Return where the line of a character begins and where it ends, without its line end."""
        line = self.place(offset).line
        start = self._line_starts[line - 1]
        if line == len(self._line_starts):
            return start, len(self.text)
        end = self._line_starts[line]
        return start, end - (2 if self.text.startswith("\r\n", end - 2) else 1)

    def byte(self, offset: int) -> int:
        """Return how many bytes of the file stand before a character; quick for one behind the other."""
        if self.text.isascii():
            return offset
        at, count = self._counted if self._counted[0] <= offset else (0, 0)
        count += len(self.text[at:offset].encode(errors="replace"))
        self._counted = offset, count
        return count


class Mark(NamedTuple):
    """Where a value stands: the offsets of its key (of itself, without one), its first and its last character."""

    source: Source
    key: int
    start: int
    end: int

    @property
    def place(self) -> Place:
        """The place of the value."""
        return self.source.place(self.start)

    @property
    def byte(self) -> int:
        """How many bytes of the file stand before the value."""
        return self.source.byte(self.start)

    @property
    def key_place(self) -> Place:
        """The place of the key."""
        return self.source.place(self.key)

    @property
    def written(self) -> str:
        """The value as it is written, quotes and all."""
        return self.source.text[self.start : self.end]
