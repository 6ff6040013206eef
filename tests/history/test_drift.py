"""Three-way comparison: what an inventory applied, what people made of it, what the inventory wants now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalelite.core.drift import YOUR_CHANGE, causes, drift
from scalelite.core.model import Declared, Key, Kind, Secret
from scalelite.core.plan import diff
from scalelite.flows.drift import find_drift
from tests.history.conftest import Cluster, declared, server, setting, tenant

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scalelite.core.drift import Cause
    from tests.history.conftest import Entry

BBB1, BBB2 = Key(Kind.SERVER, "bbb1"), Key(Kind.SERVER, "bbb2")


async def causes_of(cluster: Cluster, objects: Iterable[Entry]) -> dict[tuple[str, str], Cause]:
    """Return why each field of the plan of an inventory differs, by address and field."""
    pasts = await cluster.pasts()
    plan = diff(await cluster.live(), declared(objects))
    return {
        (change.key.address, name): cause
        for change in plan.changes
        for name, cause in causes(change, pasts.get(change.key)).items()
    }


@pytest.mark.shows("DE-10", "plan: three-way")
async def test_a_field_is_your_change_or_drift_or_both(cluster: Cluster) -> None:
    await cluster.apply(server("bbb1"), server("bbb2"))
    await cluster.change(dict([server("bbb1", tag="gpu", load_multiplier=3.0), server("bbb2", tag="x")]))
    await cluster.change(dict([server("bbb1", tag="gpu", load_multiplier=4.0)]), actor="eva@lb2")
    found = await causes_of(cluster, [server("bbb1", load_multiplier=2.0, max_users=7), server("bbb2", tag="x")])
    assert {name: (cause.origin, cause.touch and cause.touch[:2]) for name, cause in found.items()} == {
        ("server/bbb1", "tag"): ("drift", (2, "ops@lb1")),
        ("server/bbb1", "load_multiplier"): ("both", (3, "eva@lb2")),
        ("server/bbb1", "max_users"): ("change", None),
    }


@pytest.mark.shows("DE-10", "plan: three-way")
async def test_what_was_made_or_removed_by_hand_is_drift(cluster: Cluster) -> None:
    inventory = [server("bbb1"), tenant("school"), setting("school", "record", "true")]
    await cluster.apply(*inventory)
    await cluster.change({BBB1: None, **dict([server("bbb2"), setting("school", "welcome", "Hi")])})
    found = await causes_of(cluster, [*inventory, server("bbb3")])
    assert {name[0]: cause.origin for name, cause in found.items()} == {
        "server/bbb1": "drift",
        "server/bbb2": "drift",
        "server/bbb3": "change",
        "tenant/school/setting/welcome": "drift",
    }
    seen = drift(await cluster.live(), await cluster.pasts())
    assert [(each.key.address, each.action) for each in seen] == [
        ("server/bbb1", "removed"),
        ("server/bbb2", "made"),
        ("tenant/school/setting/welcome", "made"),
    ]


@pytest.mark.shows("plan: three-way")
async def test_a_changed_secret_is_drift_though_its_value_was_not_kept(cluster: Cluster) -> None:
    await cluster.apply(server("bbb1"))
    await cluster.change(dict([server("bbb1", secret=Secret("other"))]))
    found = await causes_of(cluster, [server("bbb1")])
    assert found["server/bbb1", "secret"].origin == "drift"
    assert set(found) == {("server/bbb1", "secret")}


@pytest.mark.shows("plan: drift", "data: applied")
async def test_what_the_inventory_says_by_now_is_no_drift_any_more(cluster: Cluster) -> None:
    await cluster.apply(server("bbb1"), server("bbb2"))
    await cluster.change({BBB2: None, **dict([server("bbb1", tag="gpu")])})
    brought_home = [server("bbb1", tag="gpu")]
    live = await cluster.live()
    assert [each.key for each in drift(live, await cluster.pasts())] == [BBB1, BBB2]
    assert drift(live, await cluster.pasts(), declared(brought_home)) == ()
    assert await cluster.apply(*brought_home) == 0
    assert await cluster.pasts() == {}


@pytest.mark.shows("plan: drift", "inventory: list form")
async def test_an_entry_of_a_list_is_the_live_server_with_its_url(cluster: Cluster) -> None:
    _, listed = server("bbb1")
    key = Key(Kind.SERVER, "9a870f45")
    live = listed.model_copy(update={"id": "9a870f45"})
    await cluster.apply((key, live))
    await cluster.change({key: live.model_copy(update={"tag": "gpu"})})
    now = declared([(BBB1, listed.model_copy(update={"tag": "gpu"}))])
    assert await find_drift(cluster.connection, now, frozenset({"bbb1"})) == ()
    (found,) = await find_drift(cluster.connection, declared([(BBB1, listed)]), frozenset({"bbb1"}))
    assert list(found.fields) == ["tag"]


@pytest.mark.shows("plan: drift")
async def test_objects_of_a_section_that_no_inventory_applied_are_no_drift(cluster: Cluster) -> None:
    await cluster.change(dict([server("bbb1")]))
    assert await cluster.pasts() == {}
    await cluster.apply(server("bbb1", tag="new"))
    await cluster.change(dict([server("bbb1", tag="other"), tenant("school")]))
    live, pasts = await cluster.live(), await cluster.pasts()
    assert [each.key for each in drift(live, pasts)] == [BBB1]
    assert drift(live, pasts, Declared({}, frozenset({"tenants"}))) == ()


@pytest.mark.shows("data: versions")
async def test_the_settings_of_a_renamed_tenant_keep_their_history(cluster: Cluster) -> None:
    await cluster.apply(tenant("old"), setting("old", "record", "true"))
    spec = (await cluster.live()).objects[Key(Kind.TENANT, "old")]
    renamed = spec.model_copy(update={"name": "new"})
    await cluster.apply((Key(Kind.TENANT, "new"), renamed), setting("new", "record", "true"))
    assert await cluster.pasts() == {}
    cursor = await cluster.connection.execute("SELECT kind, name, param, from_rev, to_rev FROM version ORDER BY kind")
    assert [tuple(row.values()) for row in await cursor.fetchall()] == [
        ("setting", "old", "record", 1, 2),
        ("tenant", "old", "", 1, 2),
    ]


def test_a_change_of_an_object_that_nobody_touched_is_yours() -> None:
    (change,) = diff(declared([server("bbb1")]), declared([server("bbb1", tag="x")])).changes
    assert causes(change, None) == {"tag": YOUR_CHANGE}
