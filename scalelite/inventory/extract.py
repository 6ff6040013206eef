"""Texts of an inventory without the entries that an edit does not concern; reads no file and edits nothing.

In a large inventory nearly all entries are as they are live: to lay them out and to load them once more for the proof
would take longer than all the rest. An entry is left out by whole lines, from its key to that of the next one; who
uses what is left must check that it means what it meant among the others.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from scalelite.core.model import Kind
from scalelite.inventory.layout import Splice

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from scalelite.core.model import Key
    from scalelite.inventory.places import Places
    from scalelite.inventory.source import Source


class Span(NamedTuple):
    """A part of a text, by the offsets of its first character and of the one behind its last."""

    start: int
    end: int


class Extract:
    """A text with some parts left out; offsets in the whole are found in it, and edits of it in the whole."""

    def __init__(self, text: str, left_out: Iterable[Span] = ()) -> None:
        """`left_out` are in order and do not overlap."""
        kept, at = [], 0
        for start, end in left_out:
            if at < start:
                kept.append(Span(at, start))
            at = end
        kept.append(Span(at, len(text)))
        self.is_whole = kept == [Span(0, len(text))]
        self.text = text if self.is_whole else "".join(text[start:end] for start, end in kept)
        self._kept = kept
        self._starts = [0]
        for start, end in kept[:-1]:
            self._starts.append(self._starts[-1] + end - start)

    def here(self, offset: int) -> int | None:
        """Return where a character of the whole text is here, None for one that was left out."""
        part = max(bisect_right(self._kept, offset, key=lambda span: span.start) - 1, 0)
        start, end = self._kept[part]
        return self._starts[part] + offset - start if start <= offset < end else None

    def in_whole(self, splice: Splice) -> Splice:
        """Return an edit of this text as one of the whole; what is added between two parts goes behind the first."""
        end = self._in_whole(max(bisect_left(self._starts, splice.end) - 1, 0), splice.end)
        if splice.start == splice.end:
            return Splice(end, end, splice.text)
        return Splice(self._in_whole(bisect_right(self._starts, splice.start) - 1, splice.start), end, splice.text)

    def _in_whole(self, part: int, offset: int) -> int:
        return self._kept[part].start + offset - self._starts[part]


def extracts(sources: Iterable[Source], places: Places, concerned: Collection[Key] | None) -> dict[Source, Extract]:
    """Return the texts without the entries of other servers and tenants than the `concerned`; None: the whole texts."""
    if concerned is None:
        return {source: Extract(source.text) for source in sources}
    entries: dict[tuple[Source, Kind], dict[int, bool]] = {}
    for key, mark in places.owners():
        of = entries.setdefault((mark.source, key.kind), {})
        of[mark.key] = of.get(mark.key, False) or key in concerned
    return {
        source: Extract(
            source.text,
            sorted(
                span for kind in (Kind.SERVER, Kind.TENANT) for span in _others(source, entries.get((source, kind)))
            ),
        )
        for source in sources
    }


def _others(source: Source, entries: dict[int, bool] | None) -> Iterator[Span]:
    """Yield the lines of the other entries; the last of a section stays, since its end is not known."""
    text = source.text
    places = [(offset, text.rfind("\n", 0, offset) + 1, stays) for offset, stays in sorted((entries or {}).items())]
    for (offset, start, stays), (after, end, _) in pairwise(places):
        if not stays and text[start:offset] == text[end:after] and not text[start:offset].strip(" "):
            yield Span(start, end)
