"""Where everything in a YAML text begins and ends, so that it can be edited in place; knows nothing of values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

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

from scalelite.inventory.parse import events, is_refused_colon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


@dataclass(eq=False, slots=True)
class Node:
    """A value: from the first character of its key (of itself, without one) to its last; `name` is its key."""

    key: int
    start: int
    end: int
    parent: Node | None
    name: str = ""
    is_map: bool = False
    is_flow: bool = False
    is_alias: bool = False
    is_anchored: bool = False
    tag: str = ""
    children: list[Node] = field(default_factory=list)

    @property
    def depth(self) -> int:
        """How many collections it stands in."""
        return 0 if self.parent is None else self.parent.depth + 1

    def child(self, name: str) -> Node | None:
        """Return the value of a key."""
        return next((node for node in self.children if node.name == name), None) if self.is_map else None

    def is_below(self, other: Node) -> bool:
        """Say whether this is the other or stands in it."""
        node: Node | None = self
        while node is not None and node is not other:
            node = node.parent
        return node is other

    def is_shared(self, top: Node) -> bool:
        """Say whether an anchor makes this part of something else, too, from here up to `top`."""
        node: Node | None = self
        while node is not None:
            if node.is_anchored or node.is_alias:
                return True
            if node is top:
                return False
            node = node.parent
        return False


class Splice(NamedTuple):
    """What stands in place of a part of a text."""

    start: int
    end: int
    text: str


def spliced(text: str, splices: Iterable[Splice]) -> str:
    """Return a text with its parts replaced; of several insertions at one place, the first given comes first."""
    ordered = sorted(splices, key=lambda splice: (splice.start, splice.end))
    parts, done = [], 0
    for splice in ordered:
        if splice.start < done:  # in what is removed already
            done = max(done, splice.end)
            continue
        parts += [text[done : splice.start], splice.text]
        done = splice.end
    return "".join([*parts, text[done:]])


class Hunk(NamedTuple):
    """Whole lines, from a line (from 1) on, and what stands in their place."""

    line: int
    before: str
    after: str


def hunks(text: str, splices: Iterable[Splice]) -> list[Hunk]:
    """Return the lines that splices change; a general search for differences would take longer than all the rest."""
    groups: list[tuple[int, int, list[Splice]]] = []
    for splice in sorted(splices, key=lambda splice: (splice.start, splice.end)):
        start = text.rfind("\n", 0, splice.start) + 1
        end = splice.end if splice.end > start and text[splice.end - 1] == "\n" else _line_end(text, splice.end)
        if splice.start == splice.end == start and splice.text.endswith("\n"):
            end = start  # whole lines that are added
        if groups and start <= groups[-1][1] and start < end:
            first, last, parts = groups.pop()
            groups.append((first, max(last, end), [*parts, splice]))
        else:
            groups.append((start, end, [splice]))
    return list(_hunks(text, groups))


def _hunks(text: str, groups: Iterable[tuple[int, int, list[Splice]]]) -> Iterator[Hunk]:
    line, counted = 1, 0
    for start, end, splices in groups:
        line += text.count("\n", counted, start)
        counted = start
        moved = [Splice(splice.start - start, splice.end - start, splice.text) for splice in splices]
        yield Hunk(line, text[start:end], spliced(text[start:end], moved))


def _line_end(text: str, offset: int) -> int:
    end = text.find("\n", offset)
    return len(text) if end < 0 else end + 1


class Layout:
    """The nodes of one file."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.newline = "\r\n" if "\r\n" in text else "\n"
        self.by_key: dict[int, Node] = {}
        self.items: dict[int, Node] = {}  # what has no key: an item of a list begins where its own first key does
        try:
            self.root = self._document(events(text))
        except YAMLError as error:
            if not is_refused_colon(error):
                raise
            self.by_key.clear()
            self.items.clear()
            self.root = self._document(events(text, hide_colons=True))

    def _document(self, following: Callable[[], Any]) -> Node | None:
        following()
        return None if following().__class__ is StreamEndEvent else self._node(following, following(), None, None, "")

    def _node(self, following: Callable[[], Any], event: Any, parent: Node | None, key: int | None, name: str) -> Node:
        start, end = event.start_mark.index, event.end_mark.index
        node = Node(start if key is None else key, start, start + len(self.text[start:end].rstrip()), parent, name)
        if key is None:
            self.items[node.key] = node
        else:
            self.by_key[node.key] = node
        if isinstance(event, AliasEvent):
            node.is_alias = True
            return node
        node.is_anchored = event.anchor is not None
        node.tag = str(event.ctag or "")
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            node.is_flow, node.is_map = bool(event.flow_style), isinstance(event, MappingStartEvent)
            node.end = self._children(following, node)
        return node

    def _children(self, following: Callable[[], Any], node: Node) -> int:
        """Read what a collection holds; returns where it ends."""
        while not isinstance(event := following(), MappingEndEvent | SequenceEndEvent):
            if node.is_map:
                name = event.value if isinstance(event, ScalarEvent) else ""
                child = self._node(following, following(), node, event.start_mark.index, name)
            else:
                child = self._node(following, event, node, None, "")
            node.children.append(child)
        if node.is_flow or not node.children:
            return int(event.end_mark.index)
        return node.children[-1].end

    def at_path(self, path: Iterable[str]) -> Node | None:
        """Return the value below these keys."""
        node = self.root
        for name in path:
            node = node.child(name) if node is not None else None
        return node

    # --- edits --------------------------------------------------------------------------------------------------------

    def column(self, offset: int) -> int:
        """Return in which column, from 0, a character stands."""
        return offset - (self.text.rfind("\n", 0, offset) + 1)

    def replace(self, node: Node, text: str) -> Splice:
        """Put another value in place of a node's."""
        gap = " " if node.start > node.key and self.text[node.start - 1] == ":" else ""
        return Splice(node.start, node.end, gap + text)

    def remove(self, node: Node) -> Splice:
        """Take a key with its value away: of a block its lines, with the comments above and beside."""
        if node.parent is not None and node.parent.is_flow:
            return self._remove_from_flow(node, node.parent.children)
        start = self.text.rfind("\n", 0, node.key) + 1
        in_list = node.parent is not None and not node.parent.is_map
        indent = self.column(self.text.rfind("-", 0, node.key) if in_list else node.key)
        while start:
            above = self.text.rfind("\n", 0, start - 1) + 1
            line = self.text[above:start]
            if not line.lstrip().startswith("#") or len(line) - len(line.lstrip()) != indent:
                break
            start = above
        return Splice(start, _line_end(self.text, node.end), "")

    def _remove_from_flow(self, node: Node, siblings: list[Node]) -> Splice:
        at = siblings.index(node)
        if at + 1 < len(siblings):
            return Splice(node.key, siblings[at + 1].key, "")
        return Splice(siblings[at - 1].end if at else node.key, node.end, "")

    def add_item(self, node: Node, at: int, text: str) -> Splice:
        """Add an item to a list that has some, before the one at a place, or at its end."""
        is_last = at >= len(node.children)
        item = node.children[-1 if is_last else at]
        if node.is_flow:
            return Splice(item.end, item.end, f", {text}") if is_last else Splice(item.key, item.key, f"{text}, ")
        dash = self.text.rfind("-", 0, item.start)
        line = f"{' ' * self.column(dash)}- {text}{self.newline}"
        where = _line_end(self.text, item.end) if is_last else self.text.rfind("\n", 0, dash) + 1
        if where == len(self.text) and not self.text.endswith("\n"):
            line = self.newline + line.rstrip("\r\n")
        return Splice(where, where, line)

    def insert(self, into: Node, text: str) -> Splice:
        """Add lines of YAML (in block style, not indented) at the end of a mapping; in a flow one, a line."""
        if into.is_flow and into.children:
            return Splice(into.children[-1].end, into.children[-1].end, f", {text.strip()}")
        if into.is_flow:
            indent = self.column(into.key) + 2 if into.parent is not None else 0
            start = len(self.text[: into.start].rstrip(" "))
            return Splice(start, into.end, self.newline + self._indented(text, indent).rstrip("\r\n"))
        indent = self.column(into.children[0].key)
        at = _line_end(self.text, into.end)
        lines = self._indented(text, indent)
        if at == len(self.text) and not self.text.endswith("\n"):
            return Splice(at, at, self.newline + lines.rstrip("\r\n"))
        return Splice(at, at, lines)

    def _indented(self, text: str, indent: int) -> str:
        lines = text.splitlines()
        return "".join(f"{' ' * indent}{line}".rstrip(" ") + self.newline for line in lines)
