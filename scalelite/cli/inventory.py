"""inventory: list, graph and show, which say what an inventory makes of its files; they need no database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from scalelite.cli.listing import format_option, json_format_option, print_document
from scalelite.cli.session import inventory_options, read_inventory, settings_of_process
from scalelite.core import show as words
from scalelite.core.model import Key, Kind
from scalelite.errors import UsageError
from scalelite.inventory.groups import ALL, UNGROUPED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from scalelite.cli.listing import Style
    from scalelite.core.model import AnySpec, Place
    from scalelite.inventory.groups import Groups
    from scalelite.inventory.load import Inventory

_BUILT_IN = "default"
_NOT_SHOWN = "(not shown)"
# Fields that are the key above an object.
_NAMES = frozenset({"id", "name", "param"})


@click.group()
def inventory() -> None:
    """Show what an inventory makes of its files; secrets are not shown.

    \b
    Example: scalelite inventory show bbb1.example.com --explain -i inventories/production
    """


@inventory.command("list")
@inventory_options
@json_format_option
def list_all(paths: tuple[str, ...], inventory: tuple[str, ...], style: Style) -> None:
    """Print all servers, groups and tenants with their values; as a table, servers and tenants alone.

    \b
    Example: scalelite inventory list inventories/production
    """
    loaded = read_inventory(settings_of_process(), [*paths, *inventory])
    listed = _listed(loaded)
    print_document(style, listed, lambda: words.table(("address", "what", "groups"), list(_listed_rows(listed))))


@inventory.command()
@inventory_options
def graph(paths: tuple[str, ...], inventory: tuple[str, ...]) -> None:
    """Print the tree of groups and their servers.

    \b
    Example: scalelite inventory graph inventories/production
    """
    loaded = read_inventory(settings_of_process(), [*paths, *inventory])
    click.echo("\n".join(_tree(loaded.groups)))


@inventory.command("show")
@click.argument("name", metavar="ID")
@inventory_options
@click.option("--explain", is_flag=True, help="Say in which file and line each value stands.")
@format_option
def show_one(name: str, paths: tuple[str, ...], inventory: tuple[str, ...], explain: bool, style: Style) -> None:
    """Print the values of a server or tenant, or of `cluster`, as they are after groups, variables and templates.

    ID is the id of a server or the name of a tenant, or so much of its beginning that only one begins so.

    \b
    Example: scalelite inventory show bbb1.example.com --explain
    """
    loaded = read_inventory(settings_of_process(), [*paths, *inventory])
    key = _key(loaded, name)
    rows = list(_rows(loaded, key))
    heads = ("key", "value", "from") if explain else ("key", "value")

    def text() -> str:
        groups = f"\nGroups: {', '.join(loaded.groups.of(key.name))}\n" if key.kind is Kind.SERVER else ""
        return words.table(heads, [row.cells()[: len(heads)] for row in rows]) + groups

    print_document(style, _as_json(key, rows, explain=explain), text)


# --- list ------------------------------------------------------------------------------------------------------------


def _listed(loaded: Inventory) -> dict[str, Any]:
    objects, groups = loaded.wanted.objects, loaded.groups
    result: dict[str, Any] = {"servers": {}, "groups": {}, "tenants": {}}
    for key, spec in objects.items():
        match key.kind:
            case Kind.SERVER:
                result["servers"][key.name] = {**_values(spec), "groups": list(groups.of(key.name))}
            case Kind.TENANT:
                result["tenants"][key.name] = {**_values(spec), "settings": {}, "lrs": None}
            case Kind.SETTING:
                result["tenants"][key.name]["settings"][key.param] = _values(spec)
            case Kind.LRS:
                result["tenants"][key.name]["lrs"] = _values(spec)
            case Kind.CLUSTER:
                result["cluster"] = _values(spec)
    for name, members in groups.members.items():
        children = groups.by_name[name].children if name in groups.by_name else ()
        result["groups"][name] = {"servers": list(members), "children": list(children)}
    return result


def _listed_rows(listed: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, values in listed["servers"].items():
        yield f"server/{name}", values["url"], " ".join(values["groups"])
    for name, values in listed["tenants"].items():
        yield f"tenant/{name}", words.counted(len(values["settings"]), "setting"), ""


def _values(spec: AnySpec) -> dict[str, Any]:
    """Return a spec as JSON; secrets are masked."""
    return spec.model_dump(mode="json")


# --- graph -----------------------------------------------------------------------------------------------------------


def _tree(groups: Groups) -> Iterator[str]:
    """Yield the lines of the tree, as `ansible-inventory --graph` draws it; what a group holds is drawn once."""
    top = _Node({UNGROUPED, *groups.by_name} - {child for group in groups.by_name.values() for child in group.children})
    nodes = {name: _Node(group.children, group.servers) for name, group in groups.by_name.items()}
    nodes |= {ALL: top, UNGROUPED: _Node(servers=groups.members[UNGROUPED])}
    drawn: set[str] = set()
    open_lines = [(0, ALL, True)]
    while open_lines:
        depth, name, is_group = open_lines.pop()
        again = is_group and name in drawn
        label = f"@{name}:{' (as above)' if again else ''}" if is_group else name
        yield f"{'  |' * depth}{'--' if depth else ''}{label}"
        if is_group and not again:
            drawn.add(name)
            open_lines += [(depth + 1, server, False) for server in reversed(nodes[name].servers)]
            open_lines += [(depth + 1, child, True) for child in sorted(nodes[name].children, reverse=True)]


class _Node(NamedTuple):
    """What the tree shows below a group."""

    children: Collection[str] = ()
    servers: Sequence[str] = ()


# --- show ------------------------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    """One value of an object, and where it stands; no place: it is the built-in default."""

    key: str
    value: Any
    place: Place | None

    def cells(self) -> tuple[str, str, str]:
        """Return the row as it is shown."""
        value = self.value if isinstance(self.value, str) and self.value else json.dumps(self.value, ensure_ascii=False)
        return self.key, value, str(self.place) if self.place else _BUILT_IN


def _key(loaded: Inventory, name: str) -> Key:
    """Find a server, a tenant or the cluster by its address, its name or a unique beginning of it."""
    keys = [key for key in loaded.wanted.objects if key.kind in {Kind.SERVER, Kind.TENANT, Kind.CLUSTER}]
    exact = [key for key in keys if name in {key.address, key.name}]
    found = exact or [key for key in keys if key.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"the inventory has no server or tenant '{name}'", hint="see `scalelite inventory list`")
    listed = ", ".join(key.address for key in found[:10])
    raise UsageError(f"'{name}' may be {listed}{' or others' if len(found) > 10 else ''}", hint="write more of it")


def _rows(loaded: Inventory, key: Key) -> Iterator[_Row]:
    yield from _fields(loaded, key, "")
    if key.kind is Kind.TENANT:
        for other in loaded.wanted.objects:
            if other.name == key.name and other.kind in {Kind.SETTING, Kind.LRS}:
                yield from _fields(loaded, other, f"settings.{other.param}." if other.kind is Kind.SETTING else "lrs.")
    if key.kind is Kind.SERVER:
        for name, mark in sorted(loaded.groups.variables(key.name).items()):
            yield _Row(f"vars.{name}", _NOT_SHOWN, mark.place)


def _fields(loaded: Inventory, key: Key, prefix: str) -> Iterator[_Row]:
    places = loaded.wanted.places
    for field, value in _flat(_values(loaded.wanted.objects[key]), ""):
        written = "" if field in _NAMES and value in {key.name, key.param} else field
        place = places.get((key, written)) or places.get((key, field.partition(".")[0]))
        yield _Row(f"{prefix}{field}", value, place)


def _flat(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _as_json(key: Key, rows: Sequence[_Row], *, explain: bool) -> dict[str, Any]:
    values = {row.key: row.value for row in rows}
    if not explain:
        return {"address": key.address, "values": values}
    places = {row.key: row.place._asdict() if row.place else None for row in rows}
    return {"address": key.address, "values": values, "places": places}
