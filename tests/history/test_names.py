"""Names of tenants that pass from one to another in one apply, and the way back; on a real Postgres."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING

import pytest

from scalelite.core.model import Key, Kind, LrsBasic, LrsSpec, Secret, TenantSpec
from scalelite.errors import GuardRefused
from scalelite.flows import reconcile
from scalelite.flows.acting import Acting
from scalelite.flows.history import plan_rollback
from scalelite.store.seal import Sealer
from tests.history.conftest import INVENTORY, server, setting, tenant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.history.conftest import Cluster, Entry

IDS = {letter: uuid.UUID(int=number, version=4) for number, letter in enumerate("xyz", 1)}
LRS = LrsSpec(endpoint="https://lrs/", basic=LrsBasic(username="u", password=Secret("p")))
SERVER = (server("bbb1"),)
Bearers = dict[str, str]  # who (a letter of IDS) has which name


def entries(bearers: Bearers) -> Iterator[Entry]:
    """Each tenant with a setting that they all have, one that tells it apart, and one of them with an LRS."""
    for who, name in bearers.items():
        yield tenant(name, id=IDS[who], secrets=(Secret(who),), hosts=(f"{name}.example.com",))
        yield setting(name, "record", who)
        yield setting(name, f"meta_{who}", who)
        if who == "x":
            yield Key(Kind.LRS, name), LRS


def all_bearers() -> Iterator[Bearers]:
    """Every way in which two tenants can have two names, or have none."""
    for count in range(3):
        for who in itertools.combinations("xy", count):
            for names in itertools.permutations("ab", count):
                yield dict(zip(who, names, strict=True))


async def become(cluster: Cluster, bearers: Bearers) -> None:
    """Apply; a tenant whose name a new one takes is removed by an apply of its own."""
    try:
        await cluster.apply(*entries(bearers))
    except GuardRefused as refused:
        assert "identity" in str(refused)  # noqa: PT017 - the rest is how it goes on
        await cluster.apply()
        await cluster.apply(*entries(bearers))


async def roll_back(cluster: Cluster, number: int) -> None:
    way = await plan_rollback(cluster.connection, number, None)
    request = reconcile.Request(way.request.wanted, allow={g.id: g.actual for g in way.planned.guards}, replaces=True)
    planned = await reconcile.compare(cluster.connection, request)
    await reconcile.carry_out(cluster.connection, request, planned, Acting(INVENTORY, uuid.uuid4))


async def revision(cluster: Cluster) -> int:
    return (await reconcile.plan(cluster.connection, await cluster.live(), "cordon")).plan.revision


@pytest.mark.shows("plan: rollback", "plan: apply", "issue C")
@pytest.mark.parametrize("before", list(all_bearers()), ids=str)
async def test_names_pass_between_tenants_in_one_apply_and_back(cluster: Cluster, before: Bearers) -> None:
    cluster.connection.sealer = Sealer(["k" * 32])
    for after in all_bearers():
        await become(cluster, before)
        first, number = await cluster.live(), await revision(cluster)
        await become(cluster, after)
        second, newest = await cluster.live(), await revision(cluster)
        assert second.objects == dict(entries(after))
        await roll_back(cluster, number)
        assert (await cluster.live()).objects == first.objects == dict(entries(before))
        await roll_back(cluster, newest)
        assert (await cluster.live()).objects == second.objects
        assert await cluster.pasts() == {}


@pytest.mark.shows("plan: tenants that the inventory lacks")
async def test_a_tenant_that_loses_its_name_keeps_its_guards(cluster: Cluster) -> None:
    await cluster.apply(*entries({"x": "a", "y": "b"}), *SERVER)
    await cluster.connection.execute(
        "INSERT INTO meeting (tenant, meeting_id, server, generation, voice_bridge, reservation)"
        " SELECT id, 'm', 'bbb1', 1, '1', 1 FROM tenant WHERE name = 'a'"
    )
    with pytest.raises(GuardRefused, match="1 meeting of it runs"):
        await cluster.apply(*entries({"y": "a"}), *SERVER)


@pytest.mark.shows("plan: apply")
async def test_a_new_tenant_takes_the_name_that_another_gave_up(cluster: Cluster) -> None:
    await cluster.apply(*entries({"x": "a"}))
    await cluster.apply(*entries({"x": "b"}), tenant("a"), setting("a", "record", "new"))
    live = await cluster.live()
    made = live.objects[Key(Kind.TENANT, "a")]
    assert isinstance(made, TenantSpec)
    assert made.id not in IDS.values()
    assert live.objects[Key(Kind.SETTING, "b", "record")] == setting("b", "record", "x")[1]
