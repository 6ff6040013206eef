"""Mode force: cordon, end the meetings, remove; with a result for each meeting, and nothing ended twice."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import pytest

from scalelite.core.model import Declared, Key, Kind, TenantSpec
from scalelite.flows import force, reconcile
from scalelite.flows.acting import Acting
from scalelite.flows.reconcile import Request
from scalelite.inventory import dump, protect
from scalelite.store import specs
from scalelite.store.specs import Author
from tests.history.interrupt import start_apply
from tests.web.conftest import cluster as cluster  # noqa: PLC0414 - a fixture
from tests.web.conftest import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from scalelite.flows.force import Forced
    from tests.web.conftest import Cluster, Service

ALLOW = {"removals": 1}


async def with_meetings(cluster: Cluster, count: int = 6) -> Service:
    """Three servers, and meetings of both tenants on all of them."""
    service = await cluster.start(3)
    for number in range(count):
        assert (await service.create(f"m{number}", tenant=f"tenant{number % 2 + 1}")).succeeded
    await cluster.poll()
    return service


async def forced(cluster: Cluster, *, without: int = 0, disable: bool = False) -> Forced:
    """Apply an inventory that lacks a server, or has it disabled, in mode force."""
    key = Key(Kind.SERVER, cluster.servers[without].name)
    specs = {name: spec for name, spec in cluster.specs.items() if name != key}
    if disable:
        specs[key] = cluster.specs[key].model_copy(update={"state": "disabled"})
    request = Request(Declared(specs), mode="force", allow=ALLOW)
    planned = await reconcile.compare(cluster.connection, request)
    assert planned.applyable
    assert [ending.key for ending in planned.plan.endings] == [key]
    acting = Acting(Author("t"), uuid.uuid4)
    return await force.carry_out(await cluster.poller(), cluster.connection, request, planned, acting)


@pytest.mark.shows("plan: mode force")
async def test_force_ends_the_meetings_of_all_tenants_and_removes_the_server(cluster: Cluster) -> None:
    await with_meetings(cluster)
    gone = cluster.servers[0]
    mine = sorted(meeting_id for meeting_id, server, _ in await cluster.meetings() if server == gone.name)
    done = await forced(cluster)
    assert sorted(end.meeting.meeting_id for end in done.ends) == mine
    assert {end.outcome for end in done.ends} == {"ended"}
    assert not done.applied.left
    assert not gone.meetings
    assert gone.request_counts["end"] == len(mine), "nothing is ended twice"
    assert gone.name not in await cluster.rows()
    assert {server for _, server, _ in await cluster.meetings()} == {server.name for server in cluster.servers[1:]}
    cursor = await cluster.connection.execute("SELECT count(*) AS count FROM revision")
    numbers = await cursor.fetchone()
    assert numbers == {"count": 3}, "the inventory, the cordon, the removal"


@pytest.mark.shows("plan: mode force, a server that cannot be reached")
async def test_meetings_of_a_server_that_cannot_be_reached_are_forgotten_and_unknown(cluster: Cluster) -> None:
    await with_meetings(cluster)
    cluster.servers[0].fail("refuse")
    done = await forced(cluster)
    assert {end.outcome for end in done.ends} == {"unknown"}
    assert not done.applied.left
    assert cluster.servers[0].name not in await cluster.rows()


@pytest.mark.shows("plan: something left")
async def test_what_a_server_refuses_to_end_is_left_and_named_and_the_server_stays_cordoned(cluster: Cluster) -> None:
    await with_meetings(cluster)
    server = cluster.servers[0]
    server.fail("checksum_error", calls=("end",))
    done = await forced(cluster)
    assert {end.outcome for end in done.ends} == {"refused"}
    assert done.applied.left == (f"server/{server.name}",)
    assert (await cluster.rows())[server.name].state == "cordoned"
    server.heal()
    again = await forced(cluster)
    assert {end.outcome for end in again.ends} == {"ended"}
    assert server.name not in await cluster.rows()


@pytest.mark.shows("plan: state disabled with meetings")
async def test_force_disables_a_server_after_its_meetings_have_ended(cluster: Cluster) -> None:
    await with_meetings(cluster)
    done = await forced(cluster, disable=True)
    assert {end.outcome for end in done.ends} == {"ended"}
    assert (await cluster.rows())[cluster.servers[0].name].state == "disabled"


@pytest.mark.shows("plan: mode force", "plan: tenants that the inventory lacks")
@pytest.mark.parametrize("to", ["new", "tenant2"], ids=["removed", "its name goes to another"])
async def test_force_ends_the_meetings_of_a_tenant_that_goes(cluster: Cluster, to: str) -> None:
    await with_meetings(cluster)
    live = (await specs.load_live(cluster.connection)).declared.objects
    other = live[Key(Kind.TENANT, "tenant2")]
    assert isinstance(other, TenantSpec)
    wanted = {key: spec for key, spec in cluster.specs.items() if key.kind is Kind.SERVER}
    name = "tenant2" if to == "new" else "tenant1"
    wanted[Key(Kind.TENANT, name)] = other.model_copy(update={"name": name})
    request = Request(Declared(wanted))
    stopped = (await reconcile.compare(cluster.connection, request)).plan.blocked
    assert [stop.reason for stop in stopped] == ["3 meetings of it run"]
    request = Request(Declared(wanted), mode="force")
    planned = await reconcile.compare(cluster.connection, request)
    acting = Acting(Author("t"), uuid.uuid4)
    done = await force.carry_out(await cluster.poller(), cluster.connection, request, planned, acting)
    assert sorted(end.meeting.meeting_id for end in done.ends) == ["m0", "m2", "m4"]
    assert {end.outcome for end in done.ends} == {"ended"}
    assert not done.applied.left
    tenants = (await specs.load_live(cluster.connection)).declared.of_kind(Kind.TENANT)
    assert [(key.name, spec.id) for key, spec in tenants if key.name] == [(name, other.id)]
    assert sorted(meeting_id for meeting_id, _, _ in await cluster.meetings()) == ["m1", "m3", "m5"]
    revisions = await cluster.connection.execute("SELECT changes::text AS changes FROM revision ORDER BY number")
    assert not any("~" in row["changes"] for row in await revisions.fetchall()), "addresses are those of live tenants"


@pytest.mark.shows("plan: mode force, killed in between")
async def test_a_force_that_is_killed_half_way_goes_on_where_it_was(cluster: Cluster, tmp_path: Path) -> None:
    await with_meetings(cluster)
    server = cluster.servers[0]
    mine = {meeting_id for meeting_id, name, _ in await cluster.meetings() if name == server.name}
    assert len(mine) > 1
    rest = {key: spec for key, spec in cluster.specs.items() if key != Key(Kind.SERVER, server.name)}
    tree = dump.trees(Declared(rest), ["servers"])["servers"]
    dump.protect(tree, protect.in_clear)
    (tmp_path / "inv.yml").write_text(dump.yaml(tree))
    server.fail("hang", calls=("end",), times=1)  # of one meeting it is not known whether it has ended
    killed = start_apply(tmp_path, cluster.conninfo, "inv.yml", "--mode", "force", "--allow", "removals=1")

    async def one_is_left() -> bool:
        left = [name for _, name, _ in await cluster.meetings() if name == server.name]
        return server.request_counts["end"] == len(mine) and len(left) == 1

    await eventually(one_is_left, 30)
    killed.kill()
    await asyncio.to_thread(killed.join, 30)
    assert (await cluster.rows())[server.name].state == "cordoned"
    done = await forced(cluster)
    assert [end.outcome for end in done.ends] == ["ended"], "the one that was left"
    assert not done.applied.left
    assert not server.meetings
    assert server.request_counts["end"] == len(mine) + 1, "nothing that has ended is ended again"
    assert server.name not in await cluster.rows()
