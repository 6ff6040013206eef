"""YAML text to a tree of plain values with marks, through libyaml's events; says nothing of what the values mean.

Events and not libyaml's composed nodes: they bound depth and aliases while reading, allow an anchor to be defined
again, and need no second tree in memory.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from scalelite.inventory.problems import SECRET_KEYS
from scalelite.inventory.scalars import plain
from scalelite.inventory.source import Mark
from scalelite.inventory.tree import BROKEN, Map, Seq, Unsafe, Vaulted

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalelite.inventory.problems import Path, Report
    from scalelite.inventory.source import Source

# A named tuple made the short way: there are tens of thousands of marks.
_mark: Final[Callable[[tuple[Source, int, int, int]], Mark]] = partial(tuple.__new__, Mark)

# Nodes of a document: those that are written, and with aliases counted as what they stand for.
MAX_WRITTEN: Final = 250_000
MAX_NODES: Final = 1_000_000
MAX_DEPTH: Final = 100
MAX_SCALAR: Final = 1_000_000  # characters, with blanks and comments around

_CORE: Final = "tag:yaml.org,2002:"
_TYPES: Final[dict[str, type]] = {
    f"{_CORE}int": int, f"{_CORE}float": float, f"{_CORE}bool": bool, f"{_CORE}null": type(None),
}  # fmt: skip
_KNOWN_TAG: Final = re.compile(r"int|float|bool|null|str|map|seq|binary|timestamp|set|omap|pairs|python/[a-z/]+:[\w.]+")
_TEXT_TAGS: Final = frozenset({"!", f"{_CORE}str"})
# A colon that YAML 1.2 takes for a part of the text around it, also in a flow mapping: `{url: https://...}`.
_COLON_IN_TEXT: Final = re.compile(r"""(?<=[^\s"'\]}]):(?=[^\s,\[\]{}])""")
_STAND_INS: Final = "\xac\xa6\ue000"


class _Unusable(Exception):
    """The rest of the file cannot be read; the problem was reported."""


class _TooLong(Exception):
    """No value ended for MAX_SCALAR characters from an offset on."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


class _Pieces:
    """A text as libyaml reads it, which would gather a value of any length in memory; raises _TooLong instead."""

    def __init__(self, text: str, progress: Callable[[], int]) -> None:
        self._text = text
        self._progress = progress
        self._at = 0
        self._done = -1
        self._done_at = 0

    def read(self, size: int) -> str:
        """Return the next characters."""
        if (done := self._progress()) != self._done:
            self._done, self._done_at = done, self._at
        elif self._at - self._done_at > MAX_SCALAR:
            raise _TooLong(self._done_at)
        piece = self._text[self._at : self._at + size]
        self._at += size
        return piece


def events(text: str, *, hide_colons: bool = False, progress: Callable[[], int] | None = None) -> Callable[[], Any]:
    """Return a function that gives one event of a text after the other.

    `hide_colons`: from libyaml those that it refuses; `progress`: how many values were read, to bound their length.
    """
    from ruamel.yaml.cyaml import CParser  # noqa: PLC0415

    stand_in = next((sign for sign in _STAND_INS if sign not in text), "") if hide_colons else ""
    if stand_in:
        text = _COLON_IN_TEXT.sub(stand_in, text)
    get_event: Callable[[], Any] = CParser(_Pieces(text, progress) if progress else text.encode()).get_event
    return partial(_with_colons, get_event, stand_in) if stand_in else get_event


def _with_colons(get_event: Callable[[], Any], stand_in: str) -> Any:
    event = get_event()
    if event.__class__ is ScalarEvent and stand_in in event.value:
        event.value = event.value.replace(stand_in, ":")
    return event


def is_refused_colon(error: YAMLError) -> bool:
    """Tell whether libyaml refuses what YAML 1.2 allows: `{url: https://...}` unquoted."""
    return isinstance(error, MarkedYAMLError) and "found unexpected ':'" in (error.problem or "")


def parse(source: Source, report: Report) -> Any:
    """Return the value of the one document of a source; BROKEN where it cannot be read, None where it is empty."""
    try:
        try:
            return _Builder(source, report).document()
        except YAMLError as error:
            if not is_refused_colon(error):
                raise
        return _Builder(source, report, hide_colons=True).document()
    except _Unusable:
        return BROKEN
    except _TooLong as error:
        source.is_costly = True
        message = f"a value or a comment here is longer than {MAX_SCALAR:,} characters. Shorten it."
        report("SL103", (), message, Mark(source, error.offset, error.offset, error.offset))
        return BROKEN
    except YAMLError as error:
        return _not_yaml(error, source, report)


def _not_yaml(error: YAMLError, source: Source, report: Report) -> Any:
    message, offset = f"not valid YAML: {type(error).__name__}.", 0
    if isinstance(error, MarkedYAMLError):
        message = _syntax_message(error)
        # Of an open quote or bracket, the beginning tells more than the end of the file.
        at = error.context_mark if "end of stream" in (error.problem or "") else error.problem_mark
        offset = min((at or error.context_mark).index, len(source.text))
    report("SL105", (), message, Mark(source, offset, offset, offset))
    return BROKEN


def _syntax_message(error: MarkedYAMLError) -> str:
    problem = (error.problem or "cannot be read").strip()
    context = f" {error.context.strip()}" if error.context else ""
    remedies = {
        "cannot start any token": "Put the value in quotes, and indent with spaces, not tabs.",
        "mapping values are not allowed": "Put a value that holds ': ' in quotes, and check the indentation.",
        "end of stream": "Close the quote or the bracket that opens here.",
        "expected <block end>": "Check the indentation: keys of one mapping begin in the same column.",
        "found unexpected ':'": "Put a value that holds ':' in quotes.",
        "could not find expected ':'": "Write 'key: value', with a space after the colon.",
    }
    remedy = next((advice for part, advice in remedies.items() if part in problem), "Correct the YAML here.")
    return f"not valid YAML: {problem}{context}. {remedy}"


class _Builder:
    """Builds the tree of one document; recursion is bounded by MAX_DEPTH."""

    def __init__(self, source: Source, report: Report, *, hide_colons: bool = False) -> None:
        self.source = source
        self.report = report
        self.next = events(source.text, hide_colons=hide_colons, progress=lambda: self.written + self.expanded)
        self.anchors: dict[str, tuple[Any, Mark, int]] = {}
        self.open_anchors: set[str] = set()
        self.text_keys: set[str] = set()  # keys that are text also without quotes: most are of a few words
        self.written = 0
        self.expanded = 0

    def document(self) -> Any:
        self.next()  # the stream's start
        if self.next().__class__ is StreamEndEvent:
            return None
        value, _ = self.node(self.next(), self.source.root)
        self.next()  # the document's end
        after = self.next()
        if after.__class__ is not StreamEndEvent:
            self.report("SL106", (), "a second document begins here. Keep one document in a file.", self.mark(after))
        return value

    def mark(self, event: Any, key: int | None = None) -> Mark:
        start = event.start_mark.index
        return Mark(self.source, start if key is None else key, start, event.end_mark.index)

    def node(self, event: Any, path: Path, key: int | None = None) -> tuple[Any, Mark]:
        """Return the value that begins with an event, and its mark."""
        kind = event.__class__
        mark = self.mark(event, key)
        if kind is AliasEvent:
            return self.alias(event, mark, path)
        self.written += 1
        if self.written > MAX_WRITTEN:
            self.too_many(path, mark)
        before = self.written + self.expanded
        if event.anchor is not None:
            self.open_anchors.add(event.anchor)
        read = self.scalar if kind is ScalarEvent else self.collection
        value = read(event, mark, path)
        if event.anchor is not None:
            self.open_anchors.discard(event.anchor)
            self.anchors[event.anchor] = value, mark, self.written + self.expanded - before + 1
        return value, mark

    def too_many(self, path: Path, mark: Mark) -> NoReturn:
        """End the document, before its nodes fill the memory."""
        self.source.is_costly = True
        limits = f"{MAX_WRITTEN:,} nodes, or {MAX_NODES:,} with what aliases stand for"
        self.report(
            "SL109", path[:5], f"the document has more than {limits}. Write values out, or split the file.", mark
        )
        raise _Unusable

    def scalar(self, event: Any, mark: Mark, path: Path) -> Any:
        tag = event.ctag
        if tag is None:
            return plain(event.value) if not event.style else event.value
        return self.tagged(str(tag), event, mark, path)

    def tagged(self, tag: str, event: Any, mark: Mark, path: Path) -> Any:
        if tag in _TEXT_TAGS:
            return event.value
        if tag == "!unsafe":
            return Unsafe(event.value)
        if tag == "!vault":
            return Vaulted(event.value)
        if tag in _TYPES:
            value = plain(event.value)
            if type(value) is _TYPES[tag]:
                return value
        self.unknown_tag(tag, mark, path)
        return BROKEN

    def unknown_tag(self, tag: str, mark: Mark, path: Path) -> None:
        name = tag.removeprefix(_CORE)
        # Of others nothing is shown: it may be a secret that begins with '!'.
        shown = f"the tag !!{name}" if tag.startswith(_CORE) and _KNOWN_TAG.fullmatch(name) else "this tag"
        what = "does not fit this value" if tag in _TYPES else "is not allowed; only !vault and !unsafe are"
        self.report("SL108", path, f"{shown} {what}. Remove it, or put a text that begins with '!' in quotes.", mark)

    def collection(self, event: Any, mark: Mark, path: Path) -> Any:
        if len(path) >= MAX_DEPTH:
            self.report("SL110", path[:5], f"nested more than {MAX_DEPTH} levels deep. Make it flatter.", mark)
            raise _Unusable
        is_map = event.__class__ is MappingStartEvent
        value = self.mapping(mark, path) if is_map else self.sequence(mark, path)
        tag = None if event.ctag is None else str(event.ctag)
        if tag is None or tag == ("tag:yaml.org,2002:map" if is_map else "tag:yaml.org,2002:seq"):
            return value
        self.unknown_tag(tag, mark, path)
        return BROKEN

    def sequence(self, mark: Mark, path: Path) -> Seq:
        result = Seq(mark)
        while (event := self.next()).__class__ is not SequenceEndEvent:
            value, at = self.node(event, (*path, len(result)))
            result.append(value)
            result.marks.append(at)
        return result

    def mapping(self, mark: Mark, path: Path) -> Map:
        result = Map(mark)
        marks, following, text_keys = result.marks, self.next, self.text_keys
        merges: list[tuple[Any, Mark]] = []
        while (event := following()).__class__ is not MappingEndEvent:
            if event.__class__ is ScalarEvent and event.value in text_keys and event.ctag is None:
                key = event.value
            else:
                key = self.key(event, path)
            if key is None:
                self.node(following(), (*path, "?"))
                continue
            value, at = self.value(following(), path, key, event.start_mark.index)
            if key == "<<" and not event.style:
                merges.append((value, at))
            elif key in result:
                self.duplicate(key, marks[key], at, path)
            else:
                result[key] = value
                marks[key] = at
        for value, at in merges:
            self.merge(result, value, at, path)
        return result

    def value(self, event: Any, path: Path, key: str, key_start: int) -> tuple[Any, Mark]:
        """Return the value of a key and its mark; the short way for what most values are."""
        if event.__class__ is ScalarEvent and event.anchor is None and event.ctag is None:
            at = _mark((self.source, key_start, event.start_mark.index, event.end_mark.index))
            self.written += 1
            if self.written > MAX_WRITTEN:
                self.too_many((*path, key), at)
            return event.value if event.style else plain(event.value), at
        return self.node(event, (*path, key), key_start)

    def key(self, event: Any, path: Path) -> str | None:
        """Return a key, or None where it is none that can be used (reported)."""
        if event.__class__ is ScalarEvent and event.ctag is None:
            name: str = event.value
            if type(plain(name)) is str:
                self.text_keys.add(name)
                return name
            if event.style:
                return name
        mark = self.mark(event)
        if event.__class__ is ScalarEvent:
            if event.ctag is None:
                self.report("SL111", path, "a key must be text. Put it in quotes.", mark)
            else:
                self.unknown_tag(str(event.ctag), mark, path)
            return None
        self.report("SL111", path, "a key must be text, not a list, a mapping or an alias.", mark)
        self.node(event, (*path, "?"))
        return None

    def duplicate(self, key: str, first: Mark, second: Mark, path: Path) -> None:
        name = "a key" if any(part in SECRET_KEYS for part in path) else f"'{key}'"
        self.report(
            "SL107",
            (*path, key),
            f"{name} is given twice; first at {first.key_place}. Remove one of the two.",
            second,
            at_key=True,
        )

    def merge(self, result: Map, value: Any, at: Mark, path: Path) -> None:
        """Take the keys of `<<: *other` that the mapping does not have itself."""
        for other in value if isinstance(value, Seq) else [value]:
            if not isinstance(other, Map):
                if other is not BROKEN:
                    self.report("SL114", (*path, "<<"), "must be a mapping, or a list of mappings.", at)
                continue
            for key, item in other.items():
                if key not in result:
                    result[key] = item
                    result.marks[key] = other.marks[key]

    def alias(self, event: Any, mark: Mark, path: Path) -> tuple[Any, Mark]:
        name = event.anchor
        if name in self.open_anchors or name not in self.anchors:
            what = "stands inside of what it refers to" if name in self.open_anchors else "refers to no anchor above"
            self.report("SL109", path, f"the alias *{name} {what}. Correct its name, or write the value out.", mark)
            raise _Unusable
        value, at, weight = self.anchors[name]
        self.expanded += weight
        if self.written + self.expanded > MAX_NODES:
            self.too_many(path, mark)
        return value, Mark(self.source, mark.key, at.start, at.end)
