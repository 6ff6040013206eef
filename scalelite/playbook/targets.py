"""Whom a play is about: patterns over ids, groups, states and tags; and how many of them at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from scalelite.core import patterns
from scalelite.core.commands import state_in
from scalelite.core.model import Kind
from scalelite.errors import UsageError
from scalelite.inventory.ranges import BadRange, expand, is_range
from scalelite.playbook.values import of_share
from scalelite.playbook.world import Bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from scalelite.core.model import AnySpec, Key
    from scalelite.flows.playbooks import Seen
    from scalelite.playbook.book import Play

_STATES: Final = ("enabled", "cordoned", "disabled")
_HEALTHS: Final = ("online", "unhealthy", "offline", "unknown")
_ALL: Final = "all"


def select(
    written: Sequence[str],
    kind: Kind,
    seen: Seen,
    groups: Mapping[str, frozenset[str]],
    read: Callable[[str], Iterable[str]],
) -> list[str]:
    """Return the servers or tenants that patterns name, by name; raises UsageError for a term that matches nothing."""
    objects: dict[Key, AnySpec] = {
        key: spec for key, spec in seen.known.declared.objects.items() if key.kind is kind and key.name
    }
    sets = {**_sets(seen), **groups} if kind is Kind.SERVER else {}
    sets |= _ranges(written, {key.name for key in objects})
    among = patterns.population(objects, {}, sets)
    found = patterns.select(written, (), among, read) or frozenset()
    return sorted(key.name for key in found if key.kind is kind)


def _sets(seen: Seen) -> dict[str, frozenset[str]]:
    """Return the names of sets of servers: states, healths and tags; a state that no server is in is a set, too."""
    sets: dict[str, set[str]] = {name: set() for name in (*_STATES, *_HEALTHS)}
    for server, row in seen.rows.items():
        sets[state_in(seen.known, server)].add(server)
        sets[row.health].add(server)
        if row.tag:
            sets.setdefault(row.tag, set()).add(server)
    return {name: frozenset(servers) for name, servers in sets.items()}


def _ranges(written: Sequence[str], ids: set[str]) -> dict[str, frozenset[str]]:
    """Return what each range such as `bbb[01:05]` stands for; every server of it must be there."""
    terms = {term.lstrip("&!") for pattern in written for term in patterns.terms(pattern)}
    return {term: _expanded(term, ids) for term in terms if not term.startswith("~") and is_range(term)}


def _expanded(term: str, ids: set[str]) -> frozenset[str]:
    try:
        names = frozenset(expand(term))
    except BadRange as error:
        raise UsageError(f"{term!r}: {error}") from None
    if missing := sorted(names - ids):
        raise UsageError(f"{term!r}: there is no server {missing[0]!r}", hint="correct the ends of the range")
    return names


def batches(serial: Sequence[str], targets: Sequence[str]) -> Iterator[list[str]]:
    """Yield targets in batches; the last size counts for all that are left, and a share of them is one at least."""
    left = list(targets)
    sizes = list(serial) or ["0"]
    while left:
        size = of_share(sizes[0], len(targets), up=False)
        if not size and sizes[0].endswith("%"):
            size = 1
        yield left[: size or None]
        left = left[size:] if size else []
        if len(sizes) > 1:
            sizes.pop(0)


def bounds(play: Play, meant: Sequence[str]) -> Bounds:
    """Return how many of the servers that a play is about, whatever --limit says, stay enabled and online."""
    words, count = play.words, len(meant)
    least, why = 0, ""
    if words.min_available is not None:
        least, why = of_share(words.min_available, count, up=True), f"min_available: {words.min_available}"
    if words.max_unavailable is not None:
        rest = count - of_share(words.max_unavailable, count, up=False)
        if rest > least:
            least, why = rest, f"max_unavailable: {words.max_unavailable}"
    return Bounds(tuple(meant), least, why) if words.servers else Bounds()
