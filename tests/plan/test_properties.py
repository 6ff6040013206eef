"""What must hold for every cluster and every inventory: of apply, of the rows it writes, and of two in a row."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalelite.core.align import renamed
from scalelite.core.model import Declared, Key, Kind, ServerSpec, TenantSpec, url_key
from scalelite.flows import reconcile
from scalelite.flows.acting import Acting
from scalelite.flows.reconcile import Request
from scalelite.store import specs
from scalelite.store.db import connect
from scalelite.store.specs import Author
from tests.export.states import declared
from tests.export.test_round_trip import become

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalelite.core.model import AnySpec
    from scalelite.flows.reconcile import Planned
    from scalelite.store.db import Connection

EVERY_EXAMPLE = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
WHICH = st.sets(st.integers(0, 3), min_size=1)
AUTHOR = Author("tests", "", {"inventory": []})
ALL_SECTIONS = Declared({}).sections


def unprotected(state: Declared) -> Declared:
    """Protection needs two applies, on purpose."""
    objects = {
        key: spec.model_copy(update={"protect": False}) if isinstance(spec, ServerSpec | TenantSpec) else spec
        for key, spec in state.objects.items()
    }
    return replace(state, objects=objects)


def with_ids_of(live: Declared, wanted: Declared) -> Declared:
    """A tenant that is live under another id is refused, on purpose: take the live one's; the others keep theirs."""
    ids = {key: spec.id for key, spec in live.of_kind(Kind.TENANT) if key in wanted.objects}
    objects: dict[Key, AnySpec] = {}
    for number, (key, spec) in enumerate(wanted.objects.items()):
        objects[key] = spec
        if isinstance(spec, TenantSpec):
            free = spec.id if spec.id not in ids.values() else uuid.UUID(int=(1 << 64) + number)
            objects[key] = spec.model_copy(update={"id": ids.get(key, free)})
    return replace(wanted, objects=objects)


def onto(first: Declared, second: Declared, which: set[int]) -> Declared:
    """Give objects of the second state the names that the first has, so that there is something to update.

    Two states that are drawn apart have hardly a name in common.
    """
    names = {kind: dict(_pairs(first, second, kind, which)) for kind in (Kind.SERVER, Kind.TENANT)}
    objects: dict[Key, AnySpec] = {}
    for key, spec in second.objects.items():
        of = names[Kind.SERVER if key.kind is Kind.SERVER else Kind.TENANT]
        moved = key if key.kind is Kind.CLUSTER else key._replace(name=of.get(key.name, key.name))
        field = {Kind.SERVER: "id", Kind.TENANT: "name"}.get(key.kind)
        objects[moved] = spec.model_copy(update={field: moved.name}) if field else spec
    for name in names[Kind.TENANT].values():
        mine, theirs = ([key for key in state if key[:2] == (Kind.SETTING, name)] for state in (objects, first.objects))
        for number, (own, other) in enumerate(zip(mine, theirs, strict=False)):
            if other not in objects:
                spec = objects.pop(own).model_copy(update={"param": other.param})
                objects[other] = spec if number in which else first.objects[other]
    for number, (key, spec) in enumerate(first.objects.items()):
        if number % 4 not in which and key not in objects and _fits(key, spec, objects):
            objects[key] = spec
    return replace(second, objects=objects)


def _fits(key: Key, spec: AnySpec, objects: dict[Key, AnySpec]) -> bool:
    """Say whether an object can stay as it is among others."""
    others = [each for each in objects.values() if type(each) is type(spec)]
    match spec:
        case ServerSpec():
            return url_key(spec.url) not in {url_key(each.url) for each in others if isinstance(each, ServerSpec)}
        case TenantSpec():
            return not any(set(spec.hosts) & set(each.hosts) for each in others if isinstance(each, TenantSpec))
    return key.kind is Kind.CLUSTER or Key(Kind.TENANT, key.name) in objects


def _pairs(first: Declared, second: Declared, kind: Kind, which: set[int]) -> Iterator[tuple[str, str]]:
    old, new = ([key.name for key, _ in state.of_kind(kind)] for state in (first, second))
    for number, pair in enumerate(zip(new, old, strict=False)):
        if number in which and pair[1] not in new:
            yield pair


def without_taken(wanted: Declared, live: Declared, servers: list[str]) -> Declared:
    """A server that stays for its meetings keeps its url, on purpose: nobody else wants it."""
    kept = {
        url_key(spec.url): key
        for key, spec in live.objects.items()
        if isinstance(spec, ServerSpec) and key.name in servers
    }
    objects = {
        key: spec
        for key, spec in wanted.objects.items()
        if not isinstance(spec, ServerSpec) or kept.get(url_key(spec.url), key) == key
    }
    return replace(wanted, objects=objects)


async def applied(connection: Connection, wanted: Declared) -> Planned:
    """Apply an inventory with whatever allowances it needs."""
    request = Request(wanted)
    planned = await reconcile.compare(connection, request)
    allow = {guard.id: guard.actual for guard in planned.guards if guard.override}
    request = replace(request, allow=allow)
    planned = await reconcile.compare(connection, request)
    assert planned.applyable, planned.guards
    await reconcile.carry_out(connection, request, planned, Acting(AUTHOR, uuid.uuid4))
    return planned


async def live_objects(connection: Connection) -> Declared:
    found = (await specs.load_live(connection)).declared
    return Declared({key: spec for key, spec in found.objects.items() if key != Key(Kind.TENANT)})


@pytest.mark.shows(
    "plan: apply then plan is empty", "plan: the rows written are the changes planned", "DE-4", "issue C"
)
@EVERY_EXAMPLE
@given(first=declared(), second=declared(), which=WHICH, busy=st.sets(st.integers(0, 5)))
def test_an_apply_writes_what_was_planned_and_leaves_nothing_to_do(
    database: str, first: Declared, second: Declared, which: set[int], busy: set[int]
) -> None:
    second = onto(first, second, which)

    async def run() -> None:
        async with connect(database, "tests") as connection:
            await connection.execute("DELETE FROM meeting")
            await become(connection, unprotected(first), {})
            names = sorted(key.name for key in first.objects if key.kind is Kind.SERVER)
            for place, name in enumerate(names):
                if place in busy:
                    await connection.execute(
                        "INSERT INTO meeting (tenant, meeting_id, server, generation, voice_bridge, reservation)"
                        " VALUES ('00000000-0000-0000-0000-000000000000', %s, %s, %s, %s, 1)",
                        (name, name, place, name),
                    )
            before = await live_objects(connection)
            wanted = with_ids_of(before, replace(second, sections=ALL_SECTIONS))
            disabled = {
                key: spec.model_copy(update={"state": "cordoned"})
                if isinstance(spec, ServerSpec) and spec.state == "disabled" and key.name in names
                else spec
                for key, spec in wanted.objects.items()
            }
            wanted = replace(wanted, objects=disabled)
            wanted = without_taken(wanted, before, names)
            planned = await applied(connection, wanted)
            after = (await live_objects(connection)).objects
            moved = renamed(before, wanted).objects
            written = {key for key in moved.keys() | after.keys() if moved.get(key) != after.get(key)}
            assert written == {change.key for change in planned.plan.changes}
            again = await reconcile.compare(connection, Request(wanted))
            assert not again.plan.changes
            assert {keep.key.name for keep in again.plan.keeps} <= set(names)

    asyncio.run(run())


@pytest.mark.shows("plan: apply of A then B equals apply of B", "issue C")
@EVERY_EXAMPLE
@given(first=declared(), second=declared(), which=WHICH)
def test_an_apply_of_one_and_then_another_equals_an_apply_of_the_other(
    database: str, first: Declared, second: Declared, which: set[int]
) -> None:
    second = onto(first, second, which)

    async def run() -> None:
        async with connect(database, "tests") as connection:
            await connection.execute("DELETE FROM meeting")
            await become(connection, unprotected(first), {})
            wanted = with_ids_of(await live_objects(connection), replace(second, sections=ALL_SECTIONS))
            await applied(connection, wanted)
            through_both = (await live_objects(connection)).objects
            await become(connection, Declared({}), {})
            await applied(connection, wanted)
            alone = (await live_objects(connection)).objects
            kept = Key(Kind.CLUSTER)  # what the inventory does not say of the cluster stays
            assert {k: s for k, s in through_both.items() if k != kept or k in wanted.objects} == alone

    asyncio.run(run())
