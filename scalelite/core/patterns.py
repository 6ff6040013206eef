"""Patterns of --limit and --exclude, as Ansible users write them: which servers and tenants a plan is about.

`bbb*`, `large:&online`, `all:!bbb3`, `~regex`, `tag=gpu`, `@file` (the file's lines are terms; who reads it hands them
in). A term that matches nothing is an error with the nearest names, since it is misspelt more often than meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import translate
from typing import TYPE_CHECKING, Final

from scalelite.core.model import ClusterSpec, Key, Kind, ServerSpec
from scalelite.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from scalelite.core.model import AnySpec

_NAMED: Final = {"servers": Kind.SERVER, "tenants": Kind.TENANT, "cluster": Kind.CLUSTER}
_ATTRIBUTES: Final = frozenset({"tag", "state"})
# Between terms: a colon or a comma; not inside of brackets (bbb[01:05]), nor of a regular expression, which goes to the
# end of its pattern.
_BETWEEN: Final = re.compile(r"[:,](?![^\[\]]*\])")


@dataclass(frozen=True, slots=True)
class Population:
    """The servers and tenants (and the cluster) that there are, live or wanted, and the names of sets of servers."""

    objects: Mapping[Key, AnySpec]
    sets: Mapping[str, frozenset[str]] = field(default_factory=dict)


def population(
    live: Mapping[Key, AnySpec], wanted: Mapping[Key, AnySpec], sets: Mapping[str, frozenset[str]]
) -> Population:
    """Return what patterns choose from; where an object is on both sides, its wanted form is looked at."""
    both = {**live, **wanted}
    chosen = {key: spec for key, spec in both.items() if key.kind in {Kind.SERVER, Kind.TENANT} and key.name}
    return Population({Key(Kind.CLUSTER): both.get(Key(Kind.CLUSTER), ClusterSpec()), **chosen}, sets)


def select(
    limit: Sequence[str], exclude: Sequence[str], among: Population, read: Callable[[str], Iterable[str]]
) -> frozenset[Key] | None:
    """Return what --limit names (all, without one) but what --exclude names; None where neither is given.

    `read` returns the lines of the file of a term `@file`. Raises UsageError for a term that matches nothing.
    """
    if not limit and not exclude:
        return None
    chosen = frozenset(among.objects) if not limit else _union(limit, among, read)
    return chosen - _union(exclude, among, read)


def _union(patterns: Sequence[str], among: Population, read: Callable[[str], Iterable[str]]) -> frozenset[Key]:
    found: frozenset[Key] = frozenset()
    for pattern in patterns:
        found |= _evaluate(pattern, among, read)
    return found


def _evaluate(pattern: str, among: Population, read: Callable[[str], Iterable[str]]) -> frozenset[Key]:
    """Union of the plain terms, then the intersections (&), then the exclusions (!), wherever they stand."""
    plain: list[frozenset[Key]] = []
    both: list[frozenset[Key]] = []
    but: list[frozenset[Key]] = []
    for term in terms(pattern):
        into = {"&": both, "!": but}.get(term[0], plain)
        name = term[1:] if into is not plain else term
        into.append(_match(name, among, read))
    found = frozenset().union(*plain) if plain else frozenset(among.objects)
    for others in both:
        found &= others
    return found.difference(*but)


def terms(pattern: str) -> list[str]:
    """Return the terms of a pattern, with their signs; raises UsageError for an empty one."""
    if pattern.lstrip("&!").startswith("~"):
        return [pattern]
    found = [term.strip() for term in _BETWEEN.split(pattern)]
    if not all(term.strip("&!") for term in found):
        raise UsageError(f"the pattern {pattern!r} has an empty term", hint="write it as all:!bbb3 or large:&online")
    return found


def _match(term: str, among: Population, read: Callable[[str], Iterable[str]]) -> frozenset[Key]:
    if term.startswith("@"):
        lines = [line.strip() for line in read(term[1:])]
        names = [line for line in lines if line and not line.startswith("#")]
        if not names:
            raise UsageError(f"{term[1:]} names nothing", hint="one name or pattern a line")
        return _union(names, among, read)
    found = _matching(term, among)
    if not found and term not in {"all", "*", *_NAMED, *among.sets}:
        raise UsageError(f"{term!r} matches no server, tenant or group", hint=_hint(term, among))
    return found


def _matching(term: str, among: Population) -> frozenset[Key]:
    if term in {"all", "*"}:
        return frozenset(among.objects)
    if term in _NAMED:
        return frozenset(key for key in among.objects if key.kind is _NAMED[term])
    if term in among.sets:
        return frozenset(key for name in among.sets[term] if (key := Key(Kind.SERVER, name)) in among.objects)
    attribute, equals, value = term.partition("=")
    if equals and attribute in _ATTRIBUTES:
        return frozenset(
            key
            for key, spec in among.objects.items()
            if isinstance(spec, ServerSpec) and str(getattr(spec, attribute)) == value
        )
    expression = _expression(term)
    return frozenset(key for key in among.objects if key.name and expression(key.name))


def _expression(term: str) -> Callable[[str], object]:
    try:
        return re.compile(term[1:]).search if term.startswith("~") else re.compile(translate(term)).match
    except re.error as error:
        raise UsageError(f"{term!r} is no regular expression: {error}") from None


def _hint(term: str, among: Population) -> str:
    names = [key.name for key in among.objects if key.name] + [*among.sets, *_NAMED, "all"]
    near = get_close_matches(term, names, n=3, cutoff=0.5)
    return f"nearest: {', '.join(near)}" if near else "write a name, bbb*, ~regex, a group, tag=gpu or @file"
