"""What commands and API calls change: by wishes, under the apply lock, with a revision; and panic."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from scalelite.core import commands
from scalelite.core.model import Declared, Key, Kind, Secret, ServerSpec, TenantSpec
from scalelite.core.plan import diff
from scalelite.errors import AlreadyDeclared, Ambiguous, GuardRefused, NotDeclared, ScaleliteError, SpecRefused
from scalelite.flows import admin
from scalelite.flows.acting import Acting
from scalelite.store.specs import Author
from tests.web.conftest import NO_SERVER, eventually

if TYPE_CHECKING:
    from scalelite.core.commands import Wish
    from scalelite.core.model import AnySpec
    from scalelite.store.db import Connection
    from tests.web.conftest import Cluster

URL = "https://bbb9.example.com/bigbluebutton/api"
OPS = Author("ops@lb1", "audio crackles")


async def change(connection: Connection, wish: Wish) -> admin.Changed:
    return await admin.change(connection, Acting(OPS, uuid.uuid4, lock_timeout_s=5), wish)


async def declared(connection: Connection) -> dict[Key, AnySpec]:
    objects = dict((await admin.read_live(connection)).declared.objects)
    objects.pop(Key(Kind.TENANT), None)  # the sentinel
    return objects


async def one_of_each(connection: Connection) -> None:
    """Server bbb1, tenant acme with a setting."""
    for wish in (
        commands.add_server({"id": "bbb1", "url": "https://bbb1.example.com/bigbluebutton/api", "secret": "s"}),
        commands.add_tenant({"name": "acme", "secrets": (Secret("a"),), "hosts": ("meet.acme.example",)}),
        commands.put_setting("acme", {"param": "record", "value": "true"}),
    ):
        await change(connection, wish)


# --- servers and tenants ---------------------------------------------------------------------------------------------


@pytest.mark.shows("cli: servers add", "plan: servers added by command start disabled")
async def test_a_server_that_is_added_starts_disabled_and_is_a_revision_of_its_actor(connection: Connection) -> None:
    changed = await change(connection, commands.add_server({"id": "bbb9", "url": URL, "secret": "s", "tag": "gpu"}))
    assert (await declared(connection))[Key(Kind.SERVER, "bbb9")] == ServerSpec(
        id="bbb9", url=URL, secret=Secret("s"), tag="gpu", state="disabled"
    )
    cursor = await connection.execute("SELECT number, actor, message, changes FROM revision")
    revision = await cursor.fetchone()
    assert revision is not None
    assert (revision["number"], revision["actor"], revision["message"]) == (changed.revision, OPS.actor, OPS.message)
    assert revision["changes"][0]["address"] == "server/bbb9"


@pytest.mark.shows("issue D: management API", "cli: exceptions")
@pytest.mark.parametrize(
    ("wish", "error", "says"),
    [
        (commands.add_server({"id": "b", "url": "https://b/x", "secret": "s"}), SpecRefused, "end with /api"),
        (commands.add_server({"id": "b", "url": "b.example.com", "secret": "s"}), SpecRefused, "http"),
        (commands.add_server({"id": "b", "url": URL, "secret": ""}), SpecRefused, "secret"),
        (commands.add_server({"id": "a b", "url": URL, "secret": "s"}), SpecRefused, "id"),
        (commands.add_server({"id": "bbb1", "url": URL, "secret": "s"}), AlreadyDeclared, "bbb1"),
        (
            commands.add_server({"id": "b", "url": "HTTPS://BBB1.example.com:443/bigbluebutton/api/", "secret": "s"}),
            AlreadyDeclared,
            "bbb1",
        ),
        (commands.update_server("bbb1", {"load_multiplier": 0}), SpecRefused, "load_multiplier"),
        (commands.update_server("bbb1", {"load_multiplier": float("nan")}), SpecRefused, "load_multiplier"),
        (commands.update_server("nope", {"tag": "t"}), NotDeclared, "nope"),
        (commands.remove_server("nope"), NotDeclared, "nope"),
        (commands.set_state("nope", "cordoned"), NotDeclared, "nope"),
        (commands.add_tenant({"name": "acme", "secrets": (Secret("x"),)}), AlreadyDeclared, "acme"),
        (commands.add_tenant({"name": "UPPER", "secrets": (Secret("x"),)}), SpecRefused, "name"),
        (commands.add_tenant({"name": "b", "secrets": ()}), SpecRefused, "secrets"),
        (
            commands.add_tenant({"name": "b", "secrets": (Secret("x"),), "hosts": ("meet.acme.example",)}),
            AlreadyDeclared,
            "meet.acme.example",
        ),
        (commands.update_tenant("nope", {}), NotDeclared, "nope"),
        (commands.put_setting("nope", {"param": "record", "value": "true"}), NotDeclared, "nope"),
        (commands.put_setting("acme", {"param": "moderatorPW", "value": "x"}), SpecRefused, "moderatorPW"),
        (commands.remove_setting("acme", "welcome"), NotDeclared, "welcome"),
        (commands.put_lrs("acme", {"endpoint": "https://lrs.example.com"}), SpecRefused, "exactly one"),
        (commands.remove_lrs("acme"), NotDeclared, "acme"),
    ],
)
async def test_what_an_inventory_could_not_say_is_refused_and_nothing_is_written(
    connection: Connection, wish: Wish, error: type[ScaleliteError], says: str
) -> None:
    await one_of_each(connection)
    before = await admin.read_live(connection)
    with pytest.raises(error, match=says):
        await change(connection, wish)
    assert await admin.read_live(connection) == before


@pytest.mark.shows("issue D: secrets")
def test_a_refusal_does_not_show_the_secret() -> None:
    wish = commands.add_server({"id": "b", "url": URL, "secret": "top\x00secret"})
    with pytest.raises(SpecRefused) as refused:
        list(wish(commands.Known(Declared({}))))
    assert "top" not in refused.value.message


@pytest.mark.shows("cli: servers update", "DE-12")
async def test_updates_change_what_they_name_and_a_second_one_nothing(connection: Connection) -> None:
    await one_of_each(connection)
    wishes = [
        commands.update_server("bbb1", {"load_multiplier": 2.5, "tag": "gpu"}),
        commands.update_tenant("acme", {"name": "acme2", "secrets": commands.secrets_of("a:b")}),
        commands.put_lrs(
            "acme2", {"endpoint": "https://lrs.example.com", "basic": {"username": "u", "password": Secret("p")}}
        ),
        commands.put_setting("acme2", {"param": "record", "value": "false", "override": True}),
    ]
    before = await declared(connection)
    for wish in wishes:
        assert await change(connection, wish)
    after = await declared(connection)
    tenant, was = after[Key(Kind.TENANT, "acme2")], before[Key(Kind.TENANT, "acme")]
    assert isinstance(tenant, TenantSpec)
    assert isinstance(was, TenantSpec)
    assert (tenant.id, tenant.secrets, tenant.hosts) == (was.id, (Secret("a"), Secret("b")), was.hosts)
    assert {key.address for key in after} == {
        "server/bbb1", "tenant/acme2", "tenant/acme2/setting/record", "tenant/acme2/lrs",
    }  # fmt: skip
    for wish in (wishes[0], *wishes[2:]):
        assert not await change(connection, wish)


@pytest.mark.shows("XA-1")
async def test_an_lrs_switched_to_oidc_has_no_basic_left_and_is_removed_whole(connection: Connection) -> None:
    await one_of_each(connection)
    oidc: dict[str, Any] = {
        "token_url": "https://kc.example.com/token", "client_id": "c", "client_secret": Secret("s"),
        "username": "u", "password": Secret("p"),
    }  # fmt: skip
    basic = {"username": "u", "password": Secret("p")}
    await change(connection, commands.put_lrs("acme", {"endpoint": "https://lrs.example.com", "basic": basic}))
    await change(connection, commands.put_lrs("acme", {"endpoint": "https://lrs.example.com", "oidc": oidc}))
    lrs: Any = (await declared(connection))[Key(Kind.LRS, "acme")]
    assert lrs.basic is None
    assert lrs.oidc is not None
    await change(connection, commands.remove_lrs("acme"))
    assert Key(Kind.LRS, "acme") not in await declared(connection)


@pytest.mark.shows("cli: tenants remove")
async def test_a_removed_tenant_takes_its_settings_along(connection: Connection) -> None:
    await one_of_each(connection)
    changed = await change(connection, commands.remove_tenant("acme"))
    assert [part.key.address for part in changed.changes] == ["tenant/acme/setting/record", "tenant/acme"]
    assert [key.address for key in await declared(connection)] == ["server/bbb1"]


@pytest.mark.shows("cli: ids")
def test_people_name_servers_and_tenants_by_id_host_or_unique_prefix() -> None:
    specs: list[ServerSpec] = [
        ServerSpec(id=name, url=f"https://{name}.example.com:8443/bigbluebutton/api", secret=Secret("s"))
        for name in ("bbb1", "bbb10", "alpha")
    ]
    tenant = TenantSpec(id=uuid.UUID(int=7), name="acme", secrets=(Secret("a"),), hosts=("meet.acme.example",))
    known = Declared({**{Key(Kind.SERVER, spec.id): spec for spec in specs}, Key(Kind.TENANT, "acme"): tenant})
    for text in ("alpha", "al", "alpha.example.com", "alpha.example.com:8443"):
        assert commands.find_server(known, text).id == "alpha"
    assert commands.find_server(known, "bbb1").id == "bbb1"
    with pytest.raises(Ambiguous, match="bbb1, bbb10"):
        commands.find_server(known, "bb")
    with pytest.raises(NotDeclared):
        commands.find_server(known, "")
    for text in ("acme", "ACME", str(tenant.id), "meet.acme", "00000000-"):
        assert commands.find_tenant(known, text) is tenant


# --- states and holds ------------------------------------------------------------------------------------------------


@pytest.mark.shows("data: hold", "cli: cordon, disable, enable")
async def test_a_hold_outlives_an_apply_and_enable_lifts_it(cluster: Cluster) -> None:
    service = await cluster.start(1)
    name = cluster.servers[0].name
    await change(cluster.connection, commands.set_state(name, "cordoned", "audio crackles"))
    cluster.server(0, tag="x")
    await cluster.apply()
    assert (await cluster.rows())[name].state == "cordoned"
    assert not await change(cluster.connection, commands.set_state(name, "cordoned"))
    assert (await service.create("room")).failure == NO_SERVER
    await change(cluster.connection, commands.set_state(name, "enabled"))
    assert (await cluster.rows())[name].state == "enabled"
    assert not diff((await admin.read_live(cluster.connection)).declared, Declared(dict(cluster.specs))).changes


@pytest.mark.shows("operations: enabling makes health unknown", "PO-6")
async def test_an_enabled_server_gets_meetings_after_a_good_poll_only(cluster: Cluster) -> None:
    service = await cluster.start(1)
    name = cluster.servers[0].name
    await change(cluster.connection, commands.set_state(name, "disabled"))
    await change(cluster.connection, commands.set_state(name, "enabled"))

    async def unknown() -> bool:
        return bool(service.app.ctx.proxy.snapshot.health(name) == "unknown")

    await eventually(unknown, 3)
    assert (await service.create("room")).failure == NO_SERVER
    await cluster.poll()
    assert (await service.create("room")).succeeded


@pytest.mark.shows("data: hold")
async def test_enable_loosens_what_was_declared_stricter(connection: Connection) -> None:
    await one_of_each(connection)
    await change(connection, commands.set_state("bbb1", "enabled"))
    server: Any = (await declared(connection))[Key(Kind.SERVER, "bbb1")]
    assert server.state == "enabled"


@pytest.mark.shows("plan: every change is a revision", "DE-11")
async def test_a_hold_is_a_revision_too(connection: Connection) -> None:
    await one_of_each(connection)
    await change(connection, commands.set_state("bbb1", "enabled"))
    await change(connection, commands.set_state("bbb1", "cordoned", "audio crackles"))
    cursor = await connection.execute("SELECT changes FROM revision ORDER BY number DESC LIMIT 1")
    [entry] = (await cursor.fetchone() or {})["changes"]
    assert (entry["address"], entry["action"], entry["after"], entry["why"]) == (
        "server/bbb1", "hold", "cordoned", "audio crackles",
    )  # fmt: skip


@pytest.mark.shows("PO-14", "MT-6")
async def test_what_has_meetings_is_not_removed(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await service.create("room")
    with pytest.raises(GuardRefused, match="1 meeting"):
        await change(cluster.connection, commands.remove_server(cluster.servers[0].name))
    with pytest.raises(GuardRefused, match="1 meeting"):
        await change(cluster.connection, commands.remove_tenant("tenant1"))
    with pytest.raises(GuardRefused, match="url"):
        await change(cluster.connection, commands.update_server(cluster.servers[0].name, {"url": URL}))


@pytest.mark.shows("MT-6")
async def test_a_tenant_that_has_recordings_is_not_removed(connection: Connection) -> None:
    await one_of_each(connection)
    await connection.execute(
        """
        INSERT INTO recording (record_id, tenant, meeting_id, name, state, published, start_ms, end_ms)
        SELECT 'r1', id, 'm1', 'Room', 'published', true, 0, 1 FROM tenant WHERE name = 'acme'
        """
    )
    with pytest.raises(GuardRefused, match="1 recording"):
        await change(connection, commands.remove_tenant("acme"))


@pytest.mark.shows("DE-3")
async def test_commands_at_once_are_all_written_one_after_another(cluster: Cluster, database: str) -> None:
    await cluster.start(1)
    services = await cluster.poller()

    async def add(number: int) -> int:
        async with services.database.dedicated() as connection:
            fields = {"id": f"n{number}", "url": f"https://n{number}.example.com/bigbluebutton/api", "secret": "s"}
            return (await change(connection, commands.add_server(fields))).revision

    revisions = await asyncio.gather(*(add(number) for number in range(8)))
    assert len(set(revisions)) == 8


# --- panic -----------------------------------------------------------------------------------------------------------


@pytest.mark.shows("DR-5", "DR-7", "cli: panic")
async def test_panic_ends_the_meetings_of_all_tenants_and_a_second_run_does_nothing(cluster: Cluster) -> None:
    service = await cluster.start(1)
    for tenant in ("tenant1", "tenant2"):
        await service.create(f"of-{tenant}", tenant=tenant)
    services = await cluster.poller()
    name = cluster.servers[0].name
    done = await admin.panic(services, OPS, name)
    assert [end.outcome for end in done.meetings] == ["ended", "ended"]
    assert not done.partial
    assert await cluster.meetings() == []
    assert not cluster.servers[0].meetings
    assert (await cluster.rows())[name].state == "disabled"
    again = await admin.panic(services, OPS, name)
    assert not again.changed
    assert again.meetings == ()


@pytest.mark.shows("DR-4", "PO-11")
async def test_panic_of_a_hung_server_forgets_a_hundred_meetings_and_ends_them_when_it_returns(
    cluster: Cluster,
) -> None:
    await cluster.start(1)
    server, services = cluster.servers[0], await cluster.poller()
    await cluster.connection.execute(
        """
        INSERT INTO meeting (tenant, meeting_id, server, phase, generation, voice_bridge, reservation)
        SELECT t.id, 'm' || n, %s, 'running', nextval('claim_sequence'), n::text, 1
          FROM tenant t, generate_series(1, 100) n WHERE t.name = 'tenant1'
        """,
        (server.name,),
    )
    server.fail("hang")
    began = asyncio.get_running_loop().time()
    done = await admin.panic(services, OPS, server.name)
    assert asyncio.get_running_loop().time() - began < 10
    assert [end.outcome for end in done.meetings] == ["unknown"] * 100
    assert done.partial
    assert await cluster.meetings() == []
    cursor = await cluster.connection.execute("SELECT count(*) AS count FROM tombstone")
    assert await cursor.fetchone() == {"count": 100}


@pytest.mark.shows("DR-4")
async def test_panic_ends_what_a_service_placed_before_it_knew_of_the_hold(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await service.create("early")
    server = cluster.servers[0]
    panicking = asyncio.create_task(admin.panic(await cluster.poller(), OPS, server.name))

    async def ended() -> bool:
        return not await cluster.meetings()

    await eventually(ended, 5)
    server.create_meeting("late")
    await cluster.connection.execute(
        """
        INSERT INTO meeting (tenant, meeting_id, server, generation, voice_bridge, reservation)
        SELECT id, 'late', %s, nextval('claim_sequence'), '7', 1 FROM tenant WHERE name = 'tenant1'
        """,
        (server.name,),
    )
    done = await panicking
    assert [(end.meeting.meeting_id, end.outcome) for end in done.meetings] == [("early", "ended"), ("late", "ended")]
    assert await cluster.meetings() == []


@pytest.mark.shows("cli: panic")
async def test_panic_that_keeps_the_state_and_skips_the_calls_only_forgets(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await service.create("room")
    name = cluster.servers[0].name
    done = await admin.panic(await cluster.poller(), OPS, name, keep_state=True, skip_end_calls=True)
    assert [end.outcome for end in done.meetings] == ["unknown"]
    assert (await cluster.rows())[name].state == "enabled"
    assert await cluster.meetings() == []
    assert "room" in cluster.servers[0].meetings
    with pytest.raises(NotDeclared):
        await admin.panic(await cluster.poller(), OPS, "nope")
