"""Groups of servers as in Ansible: who is in which, and what the variables of groups and hosts make of a server.

Order, low to high: `all`, then groups (parents before children, then priority, then name), `host_vars`, the server's
own keys; of one group, `group_vars` wins over what the section `groups` says.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Final, NamedTuple

from scalelite.inventory.entries import ServerEntry
from scalelite.inventory.merge import copied, lay_over
from scalelite.inventory.parse import MAX_DEPTH
from scalelite.inventory.patterns import NoMatch, matching
from scalelite.inventory.problems import nearest
from scalelite.inventory.tree import NOTHING, Map

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from scalelite.inventory.entries import GroupEntry
    from scalelite.inventory.problems import Path, Report, Severity
    from scalelite.inventory.source import Mark

ALL: Final = "all"
UNGROUPED: Final = "ungrouped"
# What templates call something else already.
_TAKEN: Final = frozenset({"server", "tenant", "vars", "groups", "group_names", "lookup", "id", "name"})
# Above this likeness to a key of servers, a name is a misspelt key and no free variable.
_LIKE: Final = 0.85


class Group(NamedTuple):
    """A group: the servers and groups that it names itself, and its place in the order of groups."""

    name: str
    servers: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    priority: int = 1
    depth: int = 1


class Level(NamedTuple):
    """Variables of one group or host: defaults for the keys of servers, and free ones for templates."""

    keys: Map
    free: Map


class Groups:
    """The groups of one inventory and what they say, for each of its servers."""

    def __init__(self, groups: Mapping[str, Group], servers: Iterable[str], levels: Levels) -> None:
        self.by_name = groups
        self._levels = levels
        self._direct: dict[str, tuple[str, ...]] = {}
        for group in groups.values():
            for server in group.servers:
                self._direct[server] = (*self._direct.get(server, ()), group.name)
        self._parents = _parents(groups)
        self._orders: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._bases: dict[tuple[str, ...], Level] = {}
        self._servers = servers
        self._members: dict[str, list[str]] | None = None

    @property
    def members(self) -> Mapping[str, Sequence[str]]:
        """The servers of each group, its children's too, in the order of the inventory."""
        if self._members is None:
            self._members = {ALL: [], UNGROUPED: [], **{name: [] for name in self.by_name}}
            for server in self._servers:
                for name in (ALL, *self.of(server)):
                    self._members[name].append(server)
        return self._members

    def of(self, server: str) -> tuple[str, ...]:
        """Return the names of the groups that a server is in, in the order in which a later one wins."""
        direct = self._direct.get(server, ())
        if direct not in self._orders:
            groups = [self.by_name[name] for name in self._with_ancestors(direct)]
            order = sorted(groups, key=lambda group: (group.depth, group.priority, group.name))
            self._orders[direct] = tuple(group.name for group in order) or (UNGROUPED,)
        return self._orders[direct]

    def _with_ancestors(self, names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        open_names = list(names)
        while open_names:
            name = open_names.pop()
            if name not in found:
                found.add(name)
                open_names += self._parents[name]
        return found

    def resolve(self, server: str, own: Map, *, of_range: bool = False) -> Level:
        """Return a server's keys with their defaults, and its free variables.

        The keys of a range are not one server's own: what host_vars say wins over them.
        """
        if not self._levels:
            return Level(own, NOTHING)
        keys, free = self._base(self.of(server))
        host = self._levels.of("host_vars", server)
        if not keys and host is None:
            return Level(own, free)
        keys = copied(keys)
        if of_range:
            lay_over(keys, own)
        if host is not None:
            lay_over(keys, host.keys)
            if host.free:
                free = copied(free)
                lay_over(free, host.free)
        if not of_range:
            lay_over(keys, own)
        return Level(keys, free)

    def variables(self, server: str) -> Mapping[str, Mark]:
        """Return the marks of a server's free variables."""
        host = self._levels.of("host_vars", server)
        return {**self._base(self.of(server)).free.marks, **(host.free.marks if host else {})}

    def unused(self) -> Iterator[Map]:
        """Yield the keys of groups that no server is in, which nothing has checked; after all were resolved."""
        used = {ALL, *(name for order in self._orders.values() for name in order)}
        yield from self._levels.of_others(used)

    def common(self) -> Map:
        """Return the free variables of `all`, which tenants have, too."""
        return self._base(()).free

    def _base(self, order: tuple[str, ...]) -> Level:
        if order not in self._bases:
            base = Level(Map(NOTHING.mark), Map(NOTHING.mark))
            for name in (ALL, *order):
                for kind in ("groups", "group_vars"):
                    if level := self._levels.of(kind, name):
                        lay_over(base.keys, level.keys)
                        lay_over(base.free, level.free)
            self._bases[order] = base
        return self._bases[order]


class Levels:
    """The variables of groups and hosts, by where they stand."""

    def __init__(self, report: Report, paths: dict[Mark, Path]) -> None:
        self._report = report
        self._paths = paths
        self._levels: dict[tuple[str, str], Level] = {}

    def __bool__(self) -> bool:
        return bool(self._levels)

    def of(self, kind: str, name: str) -> Level | None:
        """Return what a section says of a group or host."""
        return self._levels.get((kind, name))

    def of_others(self, names: Collection[str]) -> Iterator[Map]:
        """Yield the keys of groups but those with some names."""
        for (kind, name), level in self._levels.items():
            if kind != "host_vars" and name not in names and level.keys:
                yield level.keys

    def add(self, kind: str, name: str, variables: Map, path: Path) -> None:
        """Part the variables at a path into keys of servers and free ones."""
        level = Level(Map(variables.mark), Map(variables.mark))
        for key, value in variables.items():
            mark = variables.marks[key]
            self._paths[mark] = (*path, key)
            if key in ServerEntry.model_fields:
                level.keys.put(key, value, mark)
            elif self._is_free(key, (*path, key), mark):
                level.free.put(key, value, mark)
        self._levels[kind, name] = level

    def _is_free(self, key: str, path: Path, mark: Mark) -> bool:
        if key in _TAKEN:
            message = "templates have something of this name already. Give the variable another name."
        elif like := nearest(key, _other_keys(key), cutoff=_LIKE):
            message = f"unknown key.{like} A free variable needs a name that is less like a key's."
        else:
            return True
        self._report("SL113", path, message, mark, at_key=True)
        return False


def _other_keys(name: str) -> Iterator[str]:
    """Yield the keys of servers that are no word of a name: `eu_secret` is not misspelt."""
    words = name.split("_")
    return (key for key in ServerEntry.model_fields if key not in words)


def no_groups() -> Groups:
    """Return the groups of an inventory without servers."""
    return Groups({}, (), Levels(lambda *_, **__: None, {}))


def read_groups(tree: Map, entries: Mapping[str, GroupEntry], report: Report, paths: dict[Mark, Path]) -> Groups:
    """Return the groups of a tree, whose entries were checked; `paths` gets the path at which each variable stands."""
    servers: Map = tree.get("servers", NOTHING)
    section: Map = tree.get("groups", NOTHING)
    levels = Levels(report, paths)
    for name in entries:
        if isinstance(variables := section[name].get("vars"), Map):
            levels.add("groups", name, variables, ("groups", name, "vars"))
    for kind, known in (("group_vars", {ALL: 0, UNGROUPED: 0, **section}), ("host_vars", servers)):
        for name, variables in tree.get(kind, NOTHING).items():
            if name in known:
                levels.add(kind, name, variables, (kind, name))
            else:
                what = "group" if kind == "group_vars" else "server"
                message = (
                    f"the inventory has no {what} '{name}'.{nearest(name, known) or ' Remove the file, or add it.'}"
                )
                report("SL142", (kind, name), message, tree[kind].marks[name])
    members = _Members(servers, section, report)
    groups = {name: members.of(name, entry) for name, entry in entries.items() if name not in {ALL, UNGROUPED}}
    return Groups(_with_depths(groups, section, report), servers, levels)


class _Members:
    """Reads whom groups name; who is unknown is reported and left out."""

    def __init__(self, servers: Map, section: Map, report: Report) -> None:
        self._all_servers = servers
        self._section = section
        self._report = report

    def of(self, name: str, entry: GroupEntry) -> Group:
        """Return one group."""
        servers = dict.fromkeys(self._servers(name, entry))
        return Group(name, tuple(servers), tuple(self._children(name, entry)), entry.priority)

    def _servers(self, group: str, entry: GroupEntry) -> Iterator[str]:
        for at, pattern in enumerate(entry.servers):
            try:
                found = matching(pattern, self._all_servers)
            except NoMatch as error:
                self._wrong((group, "servers", at), str(error))
                continue
            if not found:
                message = "no server of the inventory matches it. Correct the pattern, or remove it."
                self._wrong((group, "servers", at), message, severity="warning")
            yield from found

    def _children(self, group: str, entry: GroupEntry) -> Iterator[str]:
        for at, child in enumerate(entry.children):
            if child in self._section and child not in {ALL, UNGROUPED}:
                yield child
            else:
                others = (name for name in self._section if name not in {ALL, UNGROUPED, group})
                remedy = nearest(child, others) or " Add it, or remove this one."
                self._wrong(
                    (group, "children", at), f"the inventory has no group '{child}' that can be a child.{remedy}"
                )

    def _wrong(self, at: tuple[str, str, int], message: str, severity: Severity = "error") -> None:
        group, key, index = at
        self._report("SL142", ("groups", *at), message, self._section[group][key].marks[index], severity=severity)


def _with_depths(groups: dict[str, Group], section: Map, report: Report) -> dict[str, Group]:
    """Return the groups, parents first, each one level below the deepest of its parents."""
    result: dict[str, Group] = {}
    depths: dict[str, int] = {}
    for name in _parents_first(groups, section, report):
        group = groups[name]._replace(depth=depths.get(name, 1))
        if group.depth > MAX_DEPTH:
            message = f"groups are nested more than {MAX_DEPTH} levels deep. Make them flatter."
            report("SL110", ("groups", name), message, section.marks[name], at_key=True)
            break
        for child in group.children:
            depths[child] = max(depths.get(child, 1), group.depth + 1)
        result[name] = group
    return {name: result[name] for name in groups if name in result}


def _parents_first(groups: dict[str, Group], section: Map, report: Report) -> list[str]:
    """Return the names in order; each circle is reported where it closes, and cut there."""
    while True:
        order = TopologicalSorter(dict.fromkeys(groups, ()))
        for name, group in groups.items():
            known = tuple(child for child in group.children if child in groups)
            groups[name] = group._replace(children=known)
            for child in known:
                order.add(child, name)
        try:
            return list(order.static_order())
        except CycleError as error:
            circle: list[str] = error.args[1]
        parent, child = circle[-2:]
        children = section[parent]["children"]
        message = f"the groups contain each other: {' → '.join(circle)}. Take one of them out."
        at = children.index(child)
        report("SL143", ("groups", parent, "children", at), message, children.marks[at])
        rest = tuple(name for name in groups[parent].children if name != child)
        groups[parent] = groups[parent]._replace(children=rest)


def _parents(groups: Mapping[str, Group]) -> dict[str, list[str]]:
    parents: dict[str, list[str]] = {name: [] for name in groups}
    for group in groups.values():
        for child in group.children:
            if child in parents:
                parents[child].append(group.name)
    return parents
