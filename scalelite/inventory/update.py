"""Brings drift home: edits of an inventory's files after which they say what is live; reads and writes no file.

Only what differs is edited, and only where the object itself says it as it stands: a value that comes from a range, a
group, a template, an anchor or a vault is written as the server's own in host_vars, or in the tenant's own mapping.
Rules: spec/inventory.md, Export.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final

from scalelite.core.align import settled
from scalelite.core.model import SECTION_OF, Declared, Key, Kind, Secret, ServerSpec
from scalelite.inventory import dump
from scalelite.inventory.differences import concerned, differences, leaves
from scalelite.inventory.dump import Tree, Written
from scalelite.inventory.extract import Extract, extracts
from scalelite.inventory.layout import Hunk, Layout, Node, Splice, hunks, spliced
from scalelite.inventory.load import without_gc
from scalelite.inventory.places import Places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from scalelite.core.model import AnySpec
    from scalelite.inventory.load import Inventory
    from scalelite.inventory.source import Mark, Source

    Protect = Callable[[Sequence[dump.Placed]], Sequence[str | Written | None]]

Parts = tuple[str, ...]
_HOST_VARS: Final = "host_vars"


@dataclass(frozen=True, slots=True)
class Update:
    """The new texts of files, by path (None: the file goes), and the lines that change.

    `notes` are worth saying, `problems` cannot be written. `extracts` are the texts, before and after, of the entries
    of these servers and tenants, `concerned`, where others were left out of them.
    """

    files: Mapping[str, str | None]
    hunks: Mapping[str, Sequence[Hunk]]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    extracts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    concerned: frozenset[Key] = frozenset()


def update(inventory: Inventory, live: Declared, protect: Protect, folders: Iterable[FilePath]) -> Update:
    """Return the edits after which an inventory says what is live.

    `protect` says how new secrets are written, `folders` which of the inventory's paths are some.
    """
    with without_gc():
        found = differences(inventory.wanted, live)
        entries = None if inventory.is_overlaid else concerned(found)
        editor = _Editor(inventory, live, protect, frozenset(folders), entries)
        for key, before, after in found:
            editor.edit(key, before, after)
        return editor.done()


@dataclass(slots=True)
class _File:
    """A file that is edited: what is laid out of it, and how that stands in the whole."""

    layout: Layout
    extract: Extract
    splices: list[Splice] = field(default_factory=list)
    removed: set[Node] = field(default_factory=set)
    inserts: dict[Node, Tree] = field(default_factory=dict)

    def take_away(self, node: Node) -> None:
        """Remove a key with its value."""
        self.splices.append(self.layout.remove(node))
        self.removed.add(node)

    def at(self, mark: Mark) -> Node | None:
        """Return the node of a mark; None for one in an entry that was left out."""
        if (here := self.extract.here(mark.key)) is None:
            return None
        return (self.layout.items if mark.key == mark.start else self.layout.by_key).get(here)


class _Editor:
    """Collects edits, file by file."""

    def __init__(
        self,
        inventory: Inventory,
        live: Declared,
        protect: Protect,
        folders: frozenset[FilePath],
        entries: frozenset[Key] | None,
    ) -> None:
        if not isinstance(inventory.wanted.places, Places):
            raise TypeError("an inventory that was not read from files")
        self._places = inventory.wanted.places
        self._live = live
        self._protect = protect
        self._folders = folders
        self._files: dict[str, _File] = {}
        self._sources: dict[str, Source] = {}
        self._host_vars: dict[str, Tree] = {}
        self._gone: list[str] = []
        self._notes: list[str] = []
        self._problems: list[str] = []
        for source in inventory.sources:
            self._sources.setdefault(source.path, source)
        self._is_overlaid = inventory.is_overlaid
        self._concerned = entries or frozenset()
        self._extracts = extracts(inventory.sources, self._places, entries)

    # --- what an edit is ------------------------------------------------------------------------------------------

    def edit(self, key: Key, before: AnySpec | None, after: AnySpec | None) -> None:
        """Make the inventory say of one object what is live."""
        if after is None:
            self._remove(key)
        elif before is None:
            self._add(key, after)
        else:
            self._change(key, leaves(settled(before, after)), leaves(after))

    def _file(self, source: Source) -> _File:
        if source.path not in self._files:
            extract = self._extracts[source]
            self._files[source.path] = _File(Layout(extract.text), extract)
        return self._files[source.path]

    def _entry(self, key: Key) -> tuple[Source, _File, Node, Mapping[str, Mark]]:
        mark, fields = self._places.marks_of(key)
        file = self._file(mark.source)
        node = file.at(mark)
        if node is None:
            raise LookupError(f"{key.address} is not laid out")
        return mark.source, file, node, fields

    def _remove(self, key: Key) -> None:
        source, file, node, _ = self._entry(key)
        if key.kind is Kind.SERVER and _is_ranged(node, key.name):
            at = self._places[key, ""]
            self._problems.append(f"{key.address} comes from the range {node.name} at {at}")
            return
        if source.vaulted:
            self._problems.append(f"{key.address} stands in the vaulted file {source.path}")
            return
        file.take_away(node)
        for other in self._sources.values() if self._is_overlaid else ():
            file = self._file(other)
            again = None if other.root or other is source else file.layout.at_path(_path(key))
            if again is not None:
                file.take_away(again)
        if key.kind is Kind.SERVER:
            self._gone += [path for path, each in self._sources.items() if each.root == (_HOST_VARS, key.name)]

    def _add(self, key: Key, spec: AnySpec) -> None:
        """A server or tenant goes to the file that has most of them, a part of a tenant to its tenant."""
        tree = self._whole(key, spec)
        if key.kind in {Kind.SETTING, Kind.LRS}:
            _, file, node, _ = self._entry(Key(Kind.TENANT, key.name))
            parts = ("settings", key.param) if key.kind is Kind.SETTING else ("lrs",)
            return self._put(file, node, parts, tree)
        section = SECTION_OF[key.kind]
        found = [(file, node) for file, node in self._sections(section)]
        if not found:
            self._problems.append(f"{key.address}: no file has the section {section}")
            return None
        file, node = max(found, key=lambda pair: len(pair[1].children))
        if not node.is_map and isinstance(spec, ServerSpec):
            item = _flow({"url": spec.url, **tree})
            return file.splices.append(file.layout.add_item(node, len(node.children), item))
        return self._put(file, node, (key.name,) if key.kind is not Kind.CLUSTER else (), tree)

    def _sections(self, section: str) -> Iterator[tuple[_File, Node]]:
        for source in self._sources.values():
            if source.root or source.vaulted:
                continue
            file = self._file(source)
            node = file.layout.root.child(section) if file.layout.root else None
            if node is not None and (node.is_map or node.children):
                yield file, node

    def _whole(self, key: Key, spec: AnySpec) -> Any:
        """Return an object as an export writes it, its secrets protected."""
        if isinstance(spec, ServerSpec):
            return self._protected(("servers", key.name), dump.server_tree(spec))
        objects = {each: self._live.objects[each] for each in self._live.objects if each.name == key.name}
        tree = dump.trees(Declared(objects), ["tenants"])["tenants"]["tenants"][key.name]
        match key.kind:
            case Kind.SETTING:
                return tree["settings"][key.param]
            case Kind.LRS:
                return self._protected(_path(key), tree["lrs"])
        return self._protected(_path(key), tree)

    def _protected(self, path: Parts, tree: Any) -> Any:
        whole: Any = {name: list(value) if isinstance(value, tuple) else value for name, value in tree.items()}
        for part in reversed(path):
            whole = {part: whole}
        dump.protect(whole, self._protect)
        for part in path:
            whole = whole[part]
        return whole

    # --- fields ---------------------------------------------------------------------------------------------------

    def _change(self, key: Key, before: dict[Parts, Any], after: dict[Parts, Any]) -> None:
        if key.kind is Kind.LRS and (("basic", "username") in before) != (("basic", "username") in after):
            self._remove(key)
            return self._add(key, self._live.objects[key])
        for parts in dict.fromkeys([*before, *after]):
            if before.get(parts) != after.get(parts):
                self._field(key, parts, before.get(parts), after.get(parts))
        return None

    def _field(self, key: Key, parts: Parts, old: Any, value: Any) -> None:
        source, file, entry, fields = self._entry(key)
        if key.kind is Kind.SETTING and not entry.is_map:
            file.splices.append(file.layout.replace(entry, _flow(self._whole(key, self._live.objects[key]))))
            return
        if parts == ("state",) and "enabled" in fields:
            parts, value = ("enabled",), value == "enabled"
        mark = fields.get(".".join(parts))
        node = self._file(mark.source).at(mark) if mark else None
        if (
            mark is not None
            and node is not None
            and self._is_literal(node, mark.source)
            and self._owns(key, mark, node)
        ):
            self._set(self._file(mark.source), node, (*_path(key), *parts), old, value)
            return
        is_server = key.kind is Kind.SERVER
        ranged = is_server and _is_ranged(entry, key.name)
        here = node if mark is not None and node is not None and node.is_below(entry) and not ranged else None
        if value is None and here is None and mark is not None:
            self._problems.append(
                f"{key.address}: {parts[0]} comes from {mark.place}, and cannot be unset from elsewhere"
            )
        elif is_server and (mark is not None or ranged or entry.is_anchored) and source.folder in self._folders:
            if here is not None:
                file.take_away(here)
            self._own_variable(key, parts[0], value, mark, source)
        elif ranged:
            self._problems.append(f"{key.address}: {parts[0]} comes from a range, and one file has no host_vars")
        elif here is not None:
            self._say(key, parts, mark, "its own mapping")
            self._set(file, here, (*_path(key), *parts), old, value)
        else:
            self._say(key, parts, mark, "its own mapping")
            tree = self._protected((*_path(key), *parts[:-1]), {parts[-1]: value})
            self._put(file, entry, parts, tree[parts[-1]])

    def _owns(self, key: Key, mark: Mark, node: Node) -> bool:
        """Say whether a value is the object's alone: in its entry (of any inventory), or in its file of host_vars."""
        if mark.source.root == (_HOST_VARS, key.name):
            return True
        source, _, entry, _ = self._entry(key)
        if mark.source is not source:
            found = self._file(mark.source).layout.at_path(_path(key))
            if found is None:
                return False
            entry = found
        ranged = key.kind is Kind.SERVER and _is_ranged(entry, key.name)
        return node.is_below(entry) and not node.is_shared(entry) and not ranged

    def _is_literal(self, node: Node, source: Source) -> bool:
        """Say whether a value stands as it is: no template, vault, alias or anchor; items of a list may be some."""
        if source.vaulted or node.is_alias or node.is_anchored or node.tag == "!vault":
            return False
        if node.children:
            return True
        return node.tag == "!unsafe" or not dump.is_template(self._file(source).layout.text[node.start : node.end])

    def _own_variable(self, key: Key, name: str, value: Any, mark: Mark | None, source: Source) -> None:
        tree = self._protected(("servers", key.name), {name: value})
        own = next((each for each in self._sources.values() if each.root == (_HOST_VARS, key.name)), None)
        if own is not None and own.vaulted:
            self._problems.append(f"{key.address}: {name} would stand in the vaulted file {own.path}")
            return
        if own is not None and (root := self._file(own).layout.root) is not None:
            if (old := root.child(name)) is not None:
                self._file(own).take_away(old)
            self._put(self._file(own), root, (name,), tree[name])
            self._say(key, (name,), mark, own.path)
            return
        path = str((source.folder or FilePath()) / _HOST_VARS / f"{key.name}.yml")
        self._host_vars.setdefault(path, {})[name] = tree[name]
        self._say(key, (name,), mark, path)

    def _say(self, key: Key, parts: Parts, mark: Mark | None, where: str) -> None:
        if mark is not None:
            self._notes.append(
                f"{key.address}: {'.'.join(parts)} comes from {mark.place}; it is its own in {where} now"
            )

    def _set(self, file: _File, node: Node, path: Parts, old: Any, value: Any) -> None:
        """Put a value in place of a literal; None takes its key away."""
        if value is None:
            file.take_away(node)
        elif isinstance(value, tuple) and not node.is_map and node.children:
            self._set_list(file, node, path, old, value)
        elif isinstance(value, tuple) and file.layout.text[node.start] != "[" and node.name == "secrets":
            self._set(file, node, path, old, Secret(":".join(secret.reveal() for secret in value)))
        else:
            indent = file.layout.column(node.key) + 2
            in_flow = node.parent is not None and node.parent.is_flow
            text = self._text(path, value, None if in_flow else indent)
            file.splices.append(file.layout.replace(node, text))

    def _set_list(self, file: _File, node: Node, path: Parts, old: tuple[Any, ...], value: tuple[Any, ...]) -> None:
        """Edit the items that differ; the others stay as they are written, as templates or vaults, say."""
        if not value:
            file.splices.append(Splice(node.key, node.end, f"{dump.quoted(node.name)}: []"))
            return
        for action, i, j, k, m in SequenceMatcher(None, old, value, autojunk=False).get_opcodes():
            if action == "equal":
                continue
            pairs = min(j - i, m - k)
            texts = [self._text((*path, str(at)), value[at], None) for at in range(k, m)]
            for item, text in zip(node.children[i : i + pairs], texts, strict=False):
                file.splices.append(file.layout.replace(item, text))
            file.splices += [file.layout.remove(item) for item in node.children[i + pairs : j]]
            file.splices += [file.layout.add_item(node, i + pairs, text) for text in texts[pairs:]]

    def _text(self, path: Parts, value: Any, indent: int | None) -> str:
        """Return a scalar as YAML; a vault in its lines where there is an indent for them."""
        if isinstance(value, Secret):
            value = self._protected(path[:-1], {path[-1]: value}).get(path[-1], "")
        elif path[:1] == ("tenants",) and path[2:3] == ("settings",) and path[-1] == "value":
            value = dump.param_value(value)
        if isinstance(value, Written) and "\n" in value.yaml and indent is not None:
            return value.yaml.replace("\n", "\n" + " " * indent)
        return _flow(value)

    # --- the end --------------------------------------------------------------------------------------------------

    def _put(self, file: _File, node: Node, parts: Parts, value: Any) -> None:
        """Add a value below a node, making the mappings that are not there."""
        while len(parts) > 1 and (child := node.child(parts[0])) is not None and child.is_map:
            node, parts = child, parts[1:]
        tree = file.inserts.setdefault(node, {})
        if not parts:
            tree.update(value)
            return
        for part in parts[:-1]:
            tree = tree.setdefault(part, {})
        tree[parts[-1]] = value

    def done(self) -> Update:
        """Return the new texts."""
        texts: dict[str, str | None] = {}
        changed: dict[str, Sequence[Hunk]] = {}
        after: dict[str, str] = {}
        for path, file in self._files.items():
            if splices := [*file.splices, *self._inserted(file), *_emptied(file)]:
                after[path] = spliced(file.layout.text, splices)
                splices = [file.extract.in_whole(splice) for splice in splices]
                texts[path] = spliced(self._sources[path].text, splices)
                changed[path] = hunks(self._sources[path].text, splices)
        for path, tree in self._host_vars.items():
            texts[path] = dump.yaml(tree)
            changed[path] = [Hunk(1, "", dump.yaml(tree))]
        for path in self._gone:
            texts[path] = None
            changed[path] = [Hunk(1, self._sources[path].text, "")]
        parts = {
            source.path: (extract.text, after.get(source.path, extract.text))
            for source, extract in self._extracts.items()
            if not extract.is_whole
        }
        return Update(texts, changed, tuple(self._notes), tuple(self._problems), parts, self._concerned)

    def _inserted(self, file: _File) -> Iterator[Splice]:
        for node, tree in sorted(file.inserts.items(), key=lambda pair: -pair[0].depth):
            if node.is_alias:
                alias = file.layout.text[node.start : node.end]
                yield file.layout.replace(node, f"{{<<: {alias}, {_flow(tree)[1:]}")
            elif node.is_flow and node.children:
                yield file.layout.insert(node, _flow(tree)[1:-1])
            else:
                yield file.layout.insert(node, dump.yaml(tree))


def _emptied(file: _File) -> Iterator[Splice]:
    """Mappings of which nothing is left are written as empty ones: without a value they would be errors."""
    for node in {node.parent for node in file.removed if node.parent is not None}:
        if node.children and file.removed.issuperset(node.children) and node not in file.inserts and not node.is_flow:
            yield Splice(node.key, node.key, f"{dump.quoted(node.name)}: {{}}{file.layout.newline}")
            yield Splice(node.key, node.children[0].key, "")


def _path(key: Key) -> Parts:
    match key.kind:
        case Kind.SERVER:
            return "servers", key.name
        case Kind.TENANT:
            return "tenants", key.name
        case Kind.SETTING:
            return "tenants", key.name, "settings", key.param
        case Kind.LRS:
            return "tenants", key.name, "lrs"
    return ("cluster",)


def _is_ranged(entry: Node, name: str) -> bool:
    """Say whether the entry of a server is a range's; one of a list has no name."""
    return entry.name not in {"", name}


def _flow(value: Any) -> str:
    """Return a value in flow style, on one line."""
    match value:
        case Written(yaml) if "\n" in yaml:
            tag, _, body = yaml.partition(" |\n")
            return f'{tag} "{body.rstrip()}\\n"'.replace("\n", "\\n")
        case Written(yaml):
            return yaml
        case dict():
            return "{" + ", ".join(f"{dump.quoted(str(name))}: {_flow(item)}" for name, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(_flow(item) for item in value) + "]"
        case str():
            text = dump.form(value)
            return f"'{value}'" if text == value and set(value) & set(",[]{}") else text
    return dump.form(value)
