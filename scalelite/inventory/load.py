"""Loads an inventory: files, trees, one tree, rendered and checked; gives specs or all problems of the run."""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import urlsplit

from scalelite.core.model import Declared, Kind, Section
from scalelite.errors import InventoryInvalid
from scalelite.inventory.check import Checker
from scalelite.inventory.entries import InventoryFile, Safety
from scalelite.inventory.files import read
from scalelite.inventory.merge import join, overlay
from scalelite.inventory.parse import parse
from scalelite.inventory.problems import Path, Problem, nearest, path_text, printable
from scalelite.inventory.render import Renderer, Variables
from scalelite.inventory.source import Mark, SourceFile
from scalelite.inventory.tree import BROKEN, Map, Seq

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from scalelite.core.model import Place
    from scalelite.inventory.excerpt import Excerpts
    from scalelite.inventory.files import InventoryPath
    from scalelite.inventory.source import Source

_MANAGED: Final[tuple[Section, ...]] = ("cluster", "servers", "tenants")


@dataclass(frozen=True)
class Inventory:
    """What an inventory wants, and where it says so."""

    wanted: Declared
    safety: Safety = field(default_factory=Safety)
    files: tuple[SourceFile, ...] = ()
    warnings: tuple[Problem, ...] = ()
    # Ids of servers that were made of their url (list form): the live server with that url is meant, if there is one.
    ids_from_urls: frozenset[str] = frozenset()

    @property
    def counts(self) -> Mapping[Kind, int]:
        """How many objects of each kind are declared."""
        return Counter(key.kind for key in self.wanted.objects)


def load_inventory(
    paths: Sequence[InventoryPath], *, environment: Mapping[str, str], stdin: BinaryIO | None = None
) -> Inventory:
    """Load the inventories at some paths, of which a later one wins; raises InventoryInvalid with all problems."""
    problems = _Problems()
    with _without_gc():
        inventory = _load(paths, environment, stdin, problems)
        found = problems.sorted()
    if any(problem.severity == "error" for problem in found):
        raise InventoryInvalid(found)
    return inventory


def _load(
    paths: Sequence[InventoryPath], environment: Mapping[str, str], stdin: BinaryIO | None, problems: _Problems
) -> Inventory:
    files: list[SourceFile] = []
    listed: set[str] = set()
    tree: Map | None = None
    for path in paths:
        sources = read(path, stdin, problems)
        files += [source.file for source in sources]
        documents = [document for source in sources if (document := _document(source, listed, problems)) is not None]
        if documents:
            one = documents[0] if len(documents) == 1 else join(documents, problems)
            tree = one if tree is None else overlay(tree, one)
    if tree is None:
        return Inventory(Declared({}))
    checker = _check(tree, environment, problems)
    sections = frozenset(section for section in _MANAGED if section in tree)
    if not sections and not problems.found:
        message = "the inventory declares no servers, tenants or cluster, so nothing would be managed. Write a section."
        problems("SL102", (), message, tree.mark)
    wanted = Declared(checker.objects, sections, checker.places)
    return Inventory(wanted, checker.safety, tuple(files), (), frozenset(listed & tree.get("servers", {}).keys()))


def _check(tree: Map, environment: Mapping[str, str], problems: _Problems) -> Checker:
    renderer = Renderer(environment, problems)
    variables = Variables(tree.get("vars"), renderer)
    variables.render_all()
    checker = Checker(renderer, variables, problems)
    if "cluster" in tree:
        checker.cluster(tree["cluster"], tree.marks["cluster"])
    if "safety" in tree:
        checker.guards(tree["safety"], tree.marks["safety"])
    if "servers" in tree:
        checker.servers(tree["servers"])
    if "tenants" in tree:
        checker.tenants(tree["tenants"])
    return checker


# --- documents -------------------------------------------------------------------------------------------------------


def _document(source: Source, listed: set[str], problems: _Problems) -> Map | None:
    """Return a document whose sections are mappings; everything else is reported and taken out."""
    value = parse(source, problems)
    start = Mark(source, 0, 0, 0)
    if value is BROKEN:
        return None
    if value is None:
        problems("SL102", (), "the file is empty. Write a section such as servers:, or remove the file.", start)
        return None
    if not isinstance(value, Map):
        problems("SL114", (), "an inventory must be a mapping of sections such as servers: and tenants:.", start)
        return None
    document = Map(value.mark)
    for name, section in value.items():
        mark = value.marks[name]
        if name == "servers" and isinstance(section, Seq):
            section = _by_host(section, mark, listed, problems)  # noqa: PLW2901
        if _is_section(name, section, mark, problems):
            document.put(name, section, mark)
    return document


def _is_section(name: str, section: Any, mark: Mark, problems: _Problems) -> bool:
    known = InventoryFile.model_fields
    if name == "groups":
        message = "groups are not supported yet. Write the values at the servers."
        problems("SL190", (name,), message, mark, at_key=True)
    elif name not in known:
        message = f"unknown section.{nearest(name, known) or ' Remove it.'} Known: {', '.join(known)}."
        problems("SL113", (name,), message, mark, at_key=True)
    elif section is None:
        none = "'{}' if there are none" if name in _MANAGED else "its keys below it"
        message = f"has no value. Write {none}, or remove the section, which is then not managed."
        problems("SL125", (name,), message, mark, at_key=True)
    elif not isinstance(section, Map):
        if section is not BROKEN:
            problems("SL114", (name,), "must be a mapping. Write 'key: value' below it.", mark)
    else:
        return True
    return False


def _by_host(servers: Seq, mark: Mark, listed: set[str], problems: _Problems) -> Map:
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


# --- problems --------------------------------------------------------------------------------------------------------


class _Problems:
    """Collects what is reported, and gives each problem its line when all is read."""

    def __init__(self) -> None:
        self.found: list[tuple[Place, Mark, Problem]] = []

    def __call__(
        self,
        code: str,
        path: Path,
        message: str,
        mark: Mark,
        *,
        at_key: bool = False,
        rendered_from: Mark | None = None,
    ) -> None:
        place = mark.key_place if at_key else mark.place
        at = Mark(mark.source, mark.key, mark.key if at_key else mark.start, mark.end)
        origin = rendered_from.place if rendered_from is not None else None
        problem = Problem(place, code, path_text(path), printable(message), rendered_from=origin)
        self.found.append((place, at, problem))

    def sorted(self) -> list[Problem]:
        """Return the problems by place, each once, with their source lines."""
        if not self.found:
            return []
        from scalelite.inventory.excerpt import Excerpts  # noqa: PLC0415

        excerpts: dict[Source, Excerpts] = {}
        seen: dict[Problem, None] = {}
        for _, at, problem in sorted(self.found, key=lambda found: (found[0], found[2].code, found[2].path)):
            seen[_with_line(problem, at, excerpts, Excerpts)] = None
        return list(seen)


def _with_line(problem: Problem, at: Mark, excerpts: dict[Source, Excerpts], make: type[Excerpts]) -> Problem:
    from dataclasses import replace  # noqa: PLC0415

    if not at.source.text:
        return problem
    if at.source not in excerpts:
        excerpts[at.source] = make(at.source)
    line, caret = excerpts[at.source].line(at.start)
    return replace(problem, source_line=line, caret=caret, byte=at.byte)


@contextmanager
def _without_gc() -> Iterator[None]:
    """Keep the collector from walking a growing tree again and again: it holds no cycles, and takes 0.7 s."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
