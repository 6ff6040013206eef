"""One source to its sections, each a mapping: the list form of servers by id, ranges as the servers they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from scalelite.inventory.entries import InventoryFile
from scalelite.inventory.parse import parse
from scalelite.inventory.problems import nearest
from scalelite.inventory.ranges import BadRange, expand, is_range
from scalelite.inventory.source import Mark
from scalelite.inventory.tree import BROKEN, Map, Seq

if TYPE_CHECKING:
    from scalelite.core.model import Section
    from scalelite.inventory.problems import Path, Report
    from scalelite.inventory.source import Source

MANAGED: Final[tuple[Section, ...]] = ("cluster", "servers", "tenants")


def document(source: Source, listed: set[str], problems: Report) -> Map | None:
    """Return what a source says, as sections that are mappings; everything else is reported and taken out."""
    value = parse(source, problems)
    start = Mark(source, 0, 0, 0)
    if value is BROKEN:
        return None
    if value is None:
        what = "a variable" if source.root else "a section such as servers:"
        problems("SL102", (), f"the file is empty. Write {what}, or remove the file.", start)
        return None
    if not isinstance(value, Map):
        what = "variables must be a mapping of names" if source.root else "an inventory must be a mapping of sections"
        problems("SL114", (), f"{what}. Write 'name: value'.", start)
        return None
    if source.root:
        return _at(source.root, value, start)
    sections = Map(value.mark)
    for name, section in value.items():
        mark = value.marks[name]
        if name == "servers" and isinstance(section, Seq):
            section = _by_host(section, mark, listed, problems)  # noqa: PLW2901
        if _is_section(name, section, mark, problems):
            sections.put(name, section, mark)
    return sections


def _at(root: Path, value: Map, start: Mark) -> Map:
    """Return a mapping below the path that it has in the inventory: variables of a group or a host."""
    for name in reversed(root):
        above = Map(start)
        above.put(str(name), value, start)
        value = above
    return value


def _is_section(name: str, section: Any, mark: Mark, problems: Report) -> bool:
    known = InventoryFile.model_fields
    if name not in known:
        remedy = nearest(name, known) or " Put free values, and anchors, below vars:."
        message = f"unknown section.{remedy} Known: {', '.join(known)}."
        problems("SL113", (name,), message, mark, at_key=True)
    elif section is None:
        none = "'{}' if there are none" if name in MANAGED else "its keys below it"
        message = f"has no value. Write {none}, or remove the section, which is then not managed."
        problems("SL125", (name,), message, mark, at_key=True)
    elif not isinstance(section, Map):
        if section is not BROKEN:
            problems("SL114", (name,), "must be a mapping. Write 'key: value' below it.", mark)
    else:
        return True
    return False


def _by_host(servers: Seq, mark: Mark, listed: set[str], problems: Report) -> Map:
    """Return the list form (servers:addAll) as a mapping by id, which is the host of the url."""
    result = Map(mark)
    for at, entry in enumerate(servers):
        path: Path = ("servers", at)
        where = servers.marks[at]
        if not isinstance(entry, Map):
            if entry is not BROKEN:
                problems("SL114", path, "must be a mapping with url and secret.", where)
            continue
        url = entry.get("url")
        if not isinstance(url, str) or not url or "{{" in url:
            if url is not BROKEN:
                message = "is required in the list form, as text without a template. Or write servers as a mapping."
                problems("SL115", (*path, "url"), message, entry.marks.get("url", where))
            continue
        named = Map(entry.mark)
        named.update(entry)
        named.marks.update(entry.marks)
        named["url"] = url if "/" in url else f"https://{url}/bigbluebutton/api"
        host = _host(named["url"]) or url
        if host in result:
            message = f"the same host as at {result.marks[host].place}. Write servers as a mapping, with an id each."
            problems("SL120", (*path, "url"), message, entry.marks["url"])
            continue
        result.put(host, named, where)
        listed.add(host)
    return result


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def expanded(tree: Map, ranges: dict[str, str], problems: Report) -> Map:
    """Return a document with each range as the servers it stands for; `ranges` gets the range of each of them."""
    servers: Map | None = tree.get("servers")
    if servers is None or not any("[" in name for name in servers):
        return tree
    result = Map(servers.mark)
    for name, entry in servers.items():
        mark = servers.marks[name]
        for server in _ids(name, mark, problems):
            if server in result:
                message = f"{server} is declared at {result.marks[server].key_place}, too. Keep one of the two."
                problems("SL121", ("servers", name), message, mark, at_key=True)
                break
            result.put(server, entry, mark)
            if server != name:
                ranges[server] = name
    tree["servers"] = result
    return tree


def _ids(name: str, mark: Mark, problems: Report) -> list[str]:
    if not is_range(name):
        return [name]
    try:
        return expand(name)
    except BadRange as error:
        problems("SL145", ("servers", name), str(error), mark, at_key=True)
        return []
