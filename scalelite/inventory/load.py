"""Loads an inventory: files, trees, one tree, rendered and checked; gives specs or all problems of the run."""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO

from scalelite.core.model import Declared, Kind
from scalelite.errors import InventoryInvalid
from scalelite.inventory.check import Checker
from scalelite.inventory.documents import MANAGED, document, expanded
from scalelite.inventory.entries import Safety
from scalelite.inventory.files import Reader
from scalelite.inventory.groups import Groups, no_groups
from scalelite.inventory.merge import join, overlay
from scalelite.inventory.render import Renderer
from scalelite.inventory.reports import Problems, TooMany
from scalelite.inventory.templates import Lookups
from scalelite.inventory.tree import NOTHING, Map
from scalelite.inventory.vault import Vaults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from scalelite.inventory.files import InventoryPath
    from scalelite.inventory.problems import Problem
    from scalelite.inventory.source import Source, SourceFile
    from scalelite.inventory.vault import Password


@dataclass(frozen=True)
class Inventory:
    """What an inventory wants, and where it says so."""

    wanted: Declared
    safety: Safety = field(default_factory=Safety)
    files: tuple[SourceFile, ...] = ()
    warnings: tuple[Problem, ...] = ()
    # Ids of servers that were made of their url (list form): the live server with that url is meant, if there is one.
    ids_from_urls: frozenset[str] = frozenset()
    groups: Groups = field(default_factory=no_groups)
    # Where each bound of the section `safety` is written.
    safety_places: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[Source, ...] = field(default=(), repr=False)
    # Whether there are several, of which a later one wins: an object may then have an entry in each.
    is_overlaid: bool = False

    @property
    def counts(self) -> Mapping[Kind, int]:
        """How many objects of each kind are declared."""
        return Counter(key.kind for key in self.wanted.objects)


def load_inventory(
    paths: Sequence[InventoryPath],
    *,
    environment: Mapping[str, str],
    stdin: BinaryIO | None = None,
    passwords: Callable[[], Sequence[Password]] = tuple,
) -> Inventory:
    """Load the inventories at some paths, of which a later one wins; raises InventoryInvalid with all problems.

    The vault's passwords are asked for when the first vault is met.
    """
    problems = Problems()
    vaults = Vaults(passwords)
    inventory = Inventory(Declared({}))
    with without_gc():
        reader = Reader(stdin, vaults, problems)
        loader = _Loader(problems)
        with suppress(TooMany):
            for path in paths:
                loader.add(reader.read(path))
            inventory = loader.inventory(Renderer(Lookups(environment, vaults), vaults, problems, problems.paths))
        found = problems.sorted()
    if any(problem.severity == "error" for problem in found):
        raise InventoryInvalid(found)
    return replace(inventory, warnings=tuple(found), is_overlaid=len(paths) > 1)


class _Loader:
    """Makes one tree of the sources of all inventories, and one inventory of the tree."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._sources: list[Source] = []
        self._tree: Map | None = None
        self._listed: set[str] = set()
        self._ranges: dict[str, str] = {}

    def add(self, sources: Sequence[Source]) -> None:
        """Lay the sources of one path over those before."""
        self._sources += sources
        found = (document(source, self._listed, self._problems) for source in sources)
        documents = [expanded(tree, self._ranges, self._problems) for tree in found if tree is not None]
        if documents:
            one = documents[0] if len(documents) == 1 else join(documents, self._problems)
            self._tree = one if self._tree is None else overlay(self._tree, one)

    def inventory(self, renderer: Renderer) -> Inventory:
        """Check the tree and return what it declares."""
        tree, problems = self._tree, self._problems
        if tree is None:
            return Inventory(Declared({}))
        checker = Checker(renderer, tree.get("vars", NOTHING), problems)
        groups = checker.groups(tree, problems.paths)
        checker.variables()
        if "cluster" in tree:
            checker.cluster(tree["cluster"], tree.marks["cluster"])
        if "safety" in tree:
            checker.guards(tree["safety"], tree.marks["safety"])
        checker.servers(tree.get("servers", NOTHING), groups, self._ranges)
        checker.unused(groups)
        checker.tenants(tree.get("tenants", NOTHING))
        sections = frozenset(section for section in MANAGED if section in tree)
        if not sections and not problems.found:
            message = (
                "the inventory declares no servers, tenants or cluster: nothing would be managed. Write a section."
            )
            problems("SL102", (), message, tree.mark)
        listed = frozenset(self._listed & tree.get("servers", NOTHING).keys())
        wanted = Declared(checker.objects, sections, checker.places)
        files = tuple(source.file for source in self._sources)
        places, sources = checker.safety_places, tuple(self._sources)
        return Inventory(wanted, checker.safety, files, (), listed, groups, places, sources)


@contextmanager
def without_gc() -> Iterator[None]:
    """Keep the collector from walking a growing tree again and again: it holds no cycles, and takes 0.7 s."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
