"""The source line of a problem, with everything masked that is, or may be, a secret.

What is shown is chosen, not what is hidden: keys, punctuation, and the values of keys that are known to hold none.
Comments are left out: old secrets live there.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from scalelite.core.model import MASK, RESERVED_PARAMS
from scalelite.inventory.entries import OPEN_KEYS, ServerEntry
from scalelite.inventory.parse import MAX_DEPTH, events, is_refused_colon
from scalelite.inventory.problems import SECRET_KEYS, is_free, is_secret, printable
from scalelite.inventory.templates import names_env

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from scalelite.inventory.problems import Path
    from scalelite.inventory.source import Mark, Source

_WIDTH: Final = 110
# Reading a longer source once more would take seconds, and as much memory as it took before.
_LONGEST_LINE: Final = 20_000
_LONGEST: Final = 16 * 1024 * 1024
_COMMENT: Final = re.compile(r"(?:^|(?<=\s))#.*")
_USER_IN_URL: Final = re.compile(r"://[^/\s]*@|[?&]\S*=")
_FREE_KEYS: Final = frozenset({"settings", "default", "override"})
_FIRST_KEY: Final = re.compile(r"(\s*(?:- +)*)([A-Za-z_]\w*)(\s*:\s+)(\S.*)")


class _TooDeep(Exception):
    """What is nested deeper was not read, so nobody knows what it is."""


class _Span(NamedTuple):
    start: int
    end: int
    shown: bool


def is_open(path: Path, text: str) -> bool:
    """Tell whether a value may be shown: its key is known, and known to hold no secret."""
    if names_env(text):
        return True
    names = [part for part in path if isinstance(part, str)]
    if len(names) < 2 or _USER_IN_URL.search(text):
        return False
    if is_free(path):
        # Of variables, what a server's key says is open, and nothing in a mapping.
        depth = 4 if path[0] == "groups" else 3
        return len(path) == depth and path[-1] in ServerEntry.model_fields and path[-1] not in SECRET_KEYS
    if is_secret(path):
        return False
    if names[-1].lower() in RESERVED_PARAMS:
        return False
    return names[-1] in OPEN_KEYS or not _FREE_KEYS.isdisjoint(names[1:-1])


def shown_value(path: Path, mark: Mark) -> str:
    """Return `, got X` with the value as it is written; nothing for secrets, templates and long texts."""
    written = mark.written
    if mark.source.vaulted or len(written) > 60 or "\n" in written or "{{" in written or not is_open(path, written):
        return ""
    return f", got {printable(written)}"


class _Masked:
    """A line in the making: pieces of it, and where in it each piece of the source went."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._starts: list[int] = []
        self._columns: list[int] = []
        self._shown: list[bool] = []
        self._length = 0

    def add(self, start: int, piece: str, *, shown: bool) -> None:
        """Take the piece of the source that begins at a character."""
        if piece:
            text = piece if shown else MASK
            self._pieces.append(text)
            self._starts.append(start)
            self._columns.append(self._length + 1)
            self._shown.append(shown)
            self._length += len(text)

    def column(self, offset: int) -> int:
        """Return the column (from 1) of a character of the source."""
        at = bisect_right(self._starts, offset) - 1
        if at < 0:
            return 1
        return self._columns[at] + (offset - self._starts[at] if self._shown[at] else 0)

    @cached_property
    def text(self) -> str:
        """The line as it is shown, without comments."""
        return printable(_COMMENT.sub("", "".join(self._pieces)).rstrip().replace("\t", " "))


class Excerpts:
    """Masked lines of one source, those of some characters; it is read again for them, once."""

    def __init__(self, source: Source, offsets: Iterable[int]) -> None:
        self._source = source
        spans = {source.line_span(offset) for offset in offsets}
        self._lines = sorted((start, end) for start, end in spans if end - start <= _LONGEST_LINE)
        self._next_line = 0
        self._made: dict[int, _Masked] = {}
        self._spans: list[_Span] = []
        self._read_to = 0
        if source.is_costly or len(source.text) > _LONGEST:
            self._rest_unread()
            return
        try:
            self._read(events(source.text))
        except _TooDeep:
            self._rest_unread()
        except YAMLError as error:
            if is_refused_colon(error):
                self._read_again()
            else:
                self._rest_unread()
        else:
            self._read_to = len(source.text)

    def _read_again(self) -> None:
        self._spans, self._read_to, self._next_line = [], 0, 0
        try:
            self._read(events(self._source.text, hide_colons=True))
        except (YAMLError, _TooDeep):
            self._rest_unread()
        else:
            self._read_to = len(self._source.text)

    def _rest_unread(self) -> None:
        self._spans.append(_Span(self._read_to, len(self._source.text), shown=False))

    def line(self, offset: int) -> tuple[str, int]:
        """Return the line of a character, masked, and its column (from 1) there; nothing for very long lines.

        Of a line of megabytes, every piece would have to be known, to show a hundred characters.
        """
        start, end = self._source.line_span(offset)
        if end - start > _LONGEST_LINE:
            return "", 0
        if self._unread(start, end):
            return self._unread_line(start, end, offset)
        masked = self._masked(start, end)
        return _fit(masked.text, min(masked.column(offset), len(masked.text) + 1))

    def _masked(self, start: int, end: int) -> _Masked:
        """Return a line with its pieces masked or as they are; made once for all the problems in it."""
        if start not in self._made:
            masked, at = _Masked(), start
            for span in self._between(start, end):
                first, last = max(span.start, start), min(span.end, end)
                masked.add(at, self._source.text[at:first], shown=True)
                masked.add(first, self._source.text[first:last], shown=span.shown)
                at = last
            masked.add(at, self._source.text[at:end], shown=True)
            self._made[start] = masked
        return self._made[start]

    def _between(self, start: int, end: int) -> list[_Span]:
        first = bisect_left(self._spans, start, key=attrgetter("end"))
        found = []
        for span in self._spans[first:]:
            if span.start >= end:
                break
            if span.end > start:
                found.append(span)
        return found

    def _unread(self, start: int, end: int) -> bool:
        """Whether the line holds text after a YAML error, of which nobody knows what it is."""
        return self._read_to < end and not self._source.text[self._read_to : start].strip()

    def _unread_line(self, start: int, end: int, offset: int) -> tuple[str, int]:
        """Show the value of a known key at the beginning of the line, if nothing unread stands before it."""
        match = _FIRST_KEY.fullmatch(self._source.text[start:end])
        if not match or self._read_to > start + len(match[1]):
            return MASK, 1
        # Of what may stand among variables, too, only what is known to be a server's.
        if match[2] not in ServerEntry.model_fields or "," in match[4] or not is_open(("", match[2]), match[4]):
            return MASK, 1
        head = match[1] + match[2] + match[3]
        return _fit(printable((head + _COMMENT.sub("", match[4])).replace("\t", " ")), offset - start + 1)

    def _read(self, get_event: Callable[[], Any]) -> None:
        frames: list[_Frame] = [_Frame(self._source.root, is_map=False, is_root=True)]
        while self._next_line < len(self._lines) and (event := get_event()).__class__ is not StreamEndEvent:
            self._take(event, frames)
            self._read_to = event.end_mark.index

    def _is_needed(self, start: int, end: int) -> bool:
        """Tell whether a span touches one of the lines; spans come in their order."""
        while self._next_line < len(self._lines) and self._lines[self._next_line][1] <= start:
            self._next_line += 1
        return self._next_line < len(self._lines) and end > self._lines[self._next_line][0]

    def _take(self, event: Any, frames: list[_Frame]) -> None:
        frame, kind = frames[-1], event.__class__
        if kind is ScalarEvent:
            start, end = event.start_mark.index, event.end_mark.index
            if self._is_needed(start, end):
                self._spans.append(_Span(start, end, frame.shows(event.value)))
            frame.step(event.value)
        elif kind in {MappingStartEvent, SequenceStartEvent}:
            if len(frames) > MAX_DEPTH:
                raise _TooDeep
            frames.append(_Frame(frame.here, is_map=kind is MappingStartEvent))
            frame.step("?")
        elif kind in {MappingEndEvent, SequenceEndEvent}:
            frames.pop()
        elif kind is AliasEvent:
            frame.step("?")


class _Frame:
    """An open mapping or list, and what comes next in it."""

    def __init__(self, path: Path, *, is_map: bool, is_root: bool = False) -> None:
        self.path = path
        self.is_root = is_root
        self.is_map = is_map
        self.key: str | None = None
        self.index = 0

    @property
    def here(self) -> Path:
        """The path of the value that comes next."""
        if self.is_map:
            return (*self.path, self.key or "?")
        return self.path if self.is_root else (*self.path, self.index)

    def shows(self, text: str) -> bool:
        """Tell whether the scalar that comes next may be shown: a key, or an open value."""
        if self.is_map and self.key is None:
            return SECRET_KEYS.isdisjoint(self.path)
        return is_open(self.here, text)

    def step(self, text: str) -> None:
        """Go on behind a key or a value."""
        if self.is_map:
            self.key = text if self.key is None else None
        self.index += 1


def _fit(line: str, caret: int) -> tuple[str, int]:
    """Cut a long line around its caret."""
    caret = min(caret, len(line) + 1)
    if len(line) <= _WIDTH:
        return line, caret
    first = max(0, min(caret - _WIDTH // 2, len(line) - _WIDTH))
    head = "…" if first else ""
    tail = "…" if first + _WIDTH < len(line) else ""
    return head + line[first : first + _WIDTH] + tail, caret - first + len(head)
