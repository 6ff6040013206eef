"""The shipped playbooks, with meetings made and ended all the while through one service that all of these tests share.

Each test leaves the cluster as it found it: six servers, two tenants, nothing held.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from scalelite.core.model import SENTINEL_TENANT, Secret
from scalelite.errors import ServersBusy, UsageError
from scalelite.store.db import connect
from tests.conftest import fresh_database
from tests.playbook.conftest import SHIPPED, Killed, Stage
from tests.playbook.load import Load, under_load
from tests.web.conftest import TENANTS, Cluster, Service, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from scalelite.sim import RunningServer
    from tests.playbook.conftest import Told

pytestmark = pytest.mark.asyncio(loop_scope="module")
QUICK = {"drain_every": "0.1s", "back_every": "0.1s", "drain_timeout": "60s"}
IN_TIME_S = 60.0
SERVERS = 6
AS_FOUND = """
- servers: all
  tasks:
    - server: {state: enabled, release_holds: true}
    - poll:
      register: polled
      until: polled.online
      retries: 50
      delay: 0.1
"""


@dataclass
class Busy:
    """A cluster that is under load."""

    stage: Stage
    service: Service
    load: Load

    @property
    def cluster(self) -> Cluster:
        return self.stage.cluster

    @property
    def names(self) -> list[str]:
        return [server.name for server in self.cluster.servers]

    def server(self, name: str) -> RunningServer:
        return next(server for server in self.cluster.servers if server.name == name)

    async def run(self, name: str, *, check: bool = False, tags: str = "all", **variables: Any) -> Told:
        return await self.stage.run(
            SHIPPED / f"{name}.yml", check=check, tags=frozenset({tags}), extra_vars={**QUICK, **variables}
        )

    async def meet(self, meeting: str, tenant: str = "tenant1") -> RunningServer:
        """A meeting that lasts; returns its server."""
        created = await self.service.create(meeting, tenant=tenant, moderatorPW="mp")
        assert created.succeeded
        [host] = self.cluster.hosts_of(meeting)
        return host

    async def end(self, meeting: str, tenant: str = "tenant1") -> None:
        ended = await self.service.about("end", meeting, tenant=tenant, password="mp")
        assert ended.succeeded

    async def is_state(self, server: str, state: str) -> None:
        async def is_so() -> bool:
            return (await self.cluster.rows())[server].state == state

        await eventually(is_so, IN_TIME_S)

    async def make_old(self, meeting: str) -> None:
        """Let polls remove it: it is older than their grace period."""
        await self.cluster.connection.execute(
            "UPDATE meeting SET claimed_at = claimed_at - interval '10 minutes' WHERE meeting_id = %s", (meeting,)
        )

    async def revision(self) -> int:
        cursor = await self.cluster.connection.execute("SELECT max(number) AS number FROM revision")
        return int((await cursor.fetchone() or {})["number"])

    async def record(self, *record_ids: str, tenant: str = "") -> None:
        """Have recordings, of a tenant or of nobody."""
        for record_id in record_ids:
            await self.cluster.connection.execute(
                """
                INSERT INTO recording (record_id, tenant, meeting_id, name, state, published, start_ms, end_ms)
                SELECT %s, id, 'm', 'n', 'published', true, 1, 2 FROM tenant WHERE name = %s OR id::text = %s
                """,
                (record_id, tenant, "" if tenant else str(SENTINEL_TENANT)),
            )

    async def owners(self) -> dict[str, str]:
        """Whose each recording is."""
        cursor = await self.cluster.connection.execute(
            "SELECT r.record_id, t.name FROM recording r JOIN tenant t ON t.id = r.tenant ORDER BY 1"
        )
        return {row["record_id"]: row["name"] for row in await cursor.fetchall()}

    async def as_found(self) -> None:
        """Declare all as at first, and let go of what is held."""
        await self.cluster.connection.execute("DELETE FROM recording")
        await self.cluster.connection.execute("DELETE FROM meeting WHERE meeting_id NOT LIKE 'load-%'")
        await self.cluster.apply()
        told = await self.stage.run(AS_FOUND, name="as-found.yml")
        assert not told.ended.failed, told.text


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Busy]:
    with fresh_database(postgres) as conninfo:
        async with connect(conninfo, "tests") as connection, AsyncExitStack() as stack:
            cluster = Cluster(conninfo, connection, stack)
            service = await cluster.start(SERVERS)
            async with under_load(cluster, service) as load:
                yield Busy(Stage(cluster, tmp_path_factory.mktemp("shipped")), service, load)


@pytest_asyncio.fixture(loop_scope="module")
async def busy(shared: Busy) -> AsyncIterator[Busy]:
    shared.load.begin()
    yield shared
    await shared.as_found()


# --- what each promises ----------------------------------------------------------------------------------------------


@pytest.mark.shows("DR-6", "playbooks: rolling-upgrade", "issue H: under load", "DR-1")
async def test_a_rolling_upgrade_of_six_servers_ends_no_meeting_and_fails_no_call(busy: Busy) -> None:
    log = busy.stage.folder / "upgraded"
    upgrade = ["bash", "-c", f"echo {{{{ server.id }}}} >> {log}"]
    predicted = await busy.run("rolling-upgrade", check=True, upgrade=upgrade)
    told = await busy.run("rolling-upgrade", upgrade=upgrade)
    assert not told.ended.failed, told.text
    assert not told.ended.held
    assert log.read_text().split() == busy.names
    assert predicted.counts == told.counts
    assert {row.state for row in (await busy.cluster.rows()).values()} == {"enabled"}
    await busy.load.check()


@pytest.mark.shows("playbooks: drain", "DR-1", "issue H: under load", "issue H: a second run changes nothing")
async def test_a_drain_waits_for_the_last_meeting_and_a_second_run_changes_nothing(busy: Busy) -> None:
    host = await busy.meet("long")
    late = await busy.run("drain", drain=host.name, drain_timeout="0.3s")
    assert late.ended.failed
    assert "meetings is" in late.text
    draining = asyncio.create_task(busy.run("drain", drain=host.name))
    await busy.is_state(host.name, "cordoned")
    assert not draining.done()
    assert busy.cluster.hosts_of("long") == [host]
    await busy.end("long")
    told = await draining
    assert not told.ended.failed, told.text
    assert not host.meetings
    predicted = await busy.run("drain", check=True, drain=host.name)
    again = await busy.run("drain", drain=host.name)
    assert (predicted.changed, again.changed) == (0, 0)
    assert [(await busy.run("drain", tags="undo", drain=host.name)).changed for _ in range(2)] == [1, 0]
    await busy.is_state(host.name, "enabled")
    await busy.load.check()


@pytest.mark.shows("playbooks: panic", "issue H: under load", "issue H: a second run changes nothing")
async def test_panic_ends_the_meetings_of_a_server_and_they_begin_anew_elsewhere(busy: Busy) -> None:
    burning = await busy.meet("burns")
    told = await busy.run("panic", panic=burning.name)
    assert told.ended.held == {burning.name: "disabled"}
    assert not burning.meetings
    assert burning.name not in {server for _, server, _ in await busy.cluster.meetings()}
    assert (await busy.run("panic", panic=burning.name)).changed == 0
    assert await busy.meet("burns") is not burning
    await busy.end("burns")
    its_own = {request.params["meetingID"] for request in burning.requests if request.call == "create"}
    await busy.load.check(but=its_own)


@pytest.mark.shows("playbooks: evacuate-and-remove", "issue H: under load")
async def test_a_server_is_evacuated_and_removed_and_its_meetings_end_only_where_that_was_asked_for(busy: Busy) -> None:
    host = await busy.meet("stays")
    others = [name for name in busy.names if name != host.name][:1]
    told = await busy.run("evacuate-and-remove", remove=others[0])
    assert not told.ended.failed, told.text
    assert others[0] not in await busy.cluster.rows()
    told = await busy.run("evacuate-and-remove", remove=host.name, drain_timeout="0.2s")
    assert told.ended.failed
    assert "still has" in told.text
    assert busy.cluster.hosts_of("stays") == [host]
    await busy.load.check()
    predicted = await busy.run("evacuate-and-remove", check=True, remove=host.name, end_after_drain=True)
    told = await busy.run("evacuate-and-remove", remove=host.name, drain_timeout="2s", end_after_drain=True)
    assert not told.ended.failed, told.text
    assert not predicted.ended.failed, predicted.text
    assert host.name not in await busy.cluster.rows()
    revision = await busy.revision()
    with pytest.raises(UsageError):  # what is gone matches nothing
        await busy.run("evacuate-and-remove", remove=host.name)
    assert await busy.revision() == revision


@pytest.mark.shows("playbooks: retire-tenant", "playbooks: recordings_to_tenant", "issue H: under load")
async def test_a_tenant_retires_after_its_last_meeting_and_its_heir_has_its_recordings(busy: Busy) -> None:
    host = await busy.meet("last", tenant="tenant2")
    await busy.record("a-1", "b-2", tenant="tenant2")
    await busy.record("c-3", tenant="tenant1")
    predicted = await busy.run("retire-tenant", check=True, retire="tenant2", heir="tenant1")
    retiring = asyncio.create_task(busy.run("retire-tenant", retire="tenant2", heir="tenant1"))

    async def refuses() -> bool:
        return not (await busy.service.about("isMeetingRunning", "last", tenant="tenant2")).succeeded

    await eventually(refuses, IN_TIME_S)
    assert not retiring.done()
    host.forget("last")  # the last one leaves
    await busy.make_old("last")
    told = await retiring
    assert not told.ended.failed, told.text
    assert predicted.counts == told.counts
    assert await busy.owners() == {"a-1": "tenant1", "b-2": "tenant1", "c-3": "tenant1"}
    revision = await busy.revision()
    with pytest.raises(UsageError):
        await busy.run("retire-tenant", retire="tenant2", heir="tenant1")
    assert await busy.revision() == revision
    await busy.load.check()


def inventory_of(*more: str) -> str:
    tenants = {**TENANTS, **{name: f"{name}-secret" for name in more}}
    lines = [f"  {name}: {{secrets: [{secret}]}}" for name, secret in tenants.items()]
    return "\n".join(["tenants:", *lines, ""])


@pytest.mark.shows("playbooks: enable-multitenancy", "playbooks: recordings_to_tenant", "issue H: under load")
async def test_multitenancy_is_enabled_and_the_recordings_of_nobody_are_the_first_tenants(busy: Busy) -> None:
    inventory = busy.stage.write(inventory_of("first"), "inventory.yml")
    await busy.record("a-1", "b-2")
    given: dict[str, Any] = {"inventory": str(inventory), "first": "first"}
    predicted = await busy.run("enable-multitenancy", check=True, **given)
    assert set((await busy.owners()).values()) == {""}
    told = await busy.run("enable-multitenancy", **given)
    assert not told.ended.failed, told.text
    assert predicted.changed == told.changed == 2
    assert await busy.owners() == {"a-1": "first", "b-2": "first"}
    assert (await busy.run("enable-multitenancy", **given)).changed == 0
    await busy.load.check()


@pytest.mark.shows("SE-2", "SE-3", "playbooks: secrets")
async def test_a_change_of_secrets_by_two_applies_fails_no_call(busy: Busy) -> None:
    cluster, server = busy.cluster, busy.cluster.servers[0]
    before = Secret(server.secret)
    cluster.server(0, secret=Secret("new-server-secret"), previous_secret=before)
    cluster.tenant("tenant1", secrets=(Secret("tenant1-new"), Secret(TENANTS["tenant1"])))
    await cluster.apply()
    await asyncio.sleep(0.3)
    server.about = replace(server.about, secret="new-server-secret")
    await asyncio.sleep(0.3)
    cluster.server(0, secret=Secret("new-server-secret"), previous_secret=Secret(""))
    await cluster.apply()
    new = {"meetingID": "new", "name": "New", "moderatorPW": "mp"}
    assert (await busy.service.call("create", new, secret="tenant1-new")).succeeded
    await busy.end("new")
    await busy.load.check()


# --- killed at any task ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Story:
    """A playbook with what it is given, how many tasks it begins, and what is so when it has ended well."""

    playbook: str
    tasks: int
    given: Callable[[Busy], Awaitable[dict[str, Any]]]
    is_so: Callable[[Busy], Awaitable[bool]]


async def _is_drained(busy: Busy) -> bool:
    return (await busy.cluster.rows())[busy.names[0]].state == "disabled"


async def _is_gone(busy: Busy) -> bool:
    return busy.names[0] not in await busy.cluster.rows()


async def _are_enabled(busy: Busy) -> bool:
    upgraded = (busy.stage.folder / "kills").read_text().split()
    twice = len(upgraded) - len(set(upgraded))
    rows = await busy.cluster.rows()
    return set(upgraded) == set(busy.names[:2]) and twice <= 1 and {row.state for row in rows.values()} == {"enabled"}


async def _is_retired(busy: Busy) -> bool:
    return set((await busy.owners()).values()) == {"tenant1"}


async def _has_recordings(busy: Busy) -> bool:
    return set((await busy.owners()).values()) == {"first"}


async def _two_servers(busy: Busy) -> dict[str, Any]:
    log = busy.stage.folder / "kills"
    log.unlink(missing_ok=True)
    upgrade = ["bash", "-c", f"echo {{{{ server.id }}}} >> {log}"]
    return {"upgrade": upgrade, "upgrade_servers": busy.names[:2]}


async def _heir(busy: Busy) -> dict[str, Any]:
    await busy.record("a-1", tenant="tenant2")
    return {"retire": "tenant2", "heir": "tenant1"}


async def _first(busy: Busy) -> dict[str, Any]:
    await busy.record("a-1")
    return {"inventory": str(busy.stage.write(inventory_of("first"), "inventory.yml")), "first": "first"}


def _named(name: str) -> Callable[[Busy], Awaitable[dict[str, Any]]]:
    async def given(busy: Busy) -> dict[str, Any]:
        return {name: busy.names[0]}

    return given


STORIES = (
    Story("drain", 2, _named("drain"), _is_drained),
    Story("panic", 2, _named("panic"), _is_drained),
    Story("evacuate-and-remove", 3, _named("remove"), _is_gone),
    Story("rolling-upgrade", 7, _two_servers, _are_enabled),
    Story("retire-tenant", 4, _heir, _is_retired),
    Story("enable-multitenancy", 3, _first, _has_recordings),
)


async def resumed(stage: Stage, path: Path, variables: dict[str, Any]) -> Told:
    """Go on as soon as Postgres has noticed that the connection of the run is gone."""
    for _ in range(200):
        try:
            return await stage.run(path, resume=True, extra_vars=variables)
        except ServersBusy:
            await asyncio.sleep(0.05)
    raise AssertionError("the run's lock is still held")


@pytest.mark.shows("playbooks: resume", "issue H: a run killed at any task resumes")
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.playbook)
async def test_a_shipped_playbook_that_is_killed_at_any_of_its_tasks_goes_on(busy: Busy, story: Story) -> None:
    path = SHIPPED / f"{story.playbook}.yml"
    for task in range(1, story.tasks + 1):
        variables = {**QUICK, **await story.given(busy)}
        with pytest.raises(Killed):
            await busy.stage.run(path, killed_at=task, extra_vars=variables)
        told = await resumed(busy.stage, path, variables)
        assert not told.ended.failed, f"killed at task {task}: {told.text}"
        assert await story.is_so(busy), f"killed at task {task}"
        await busy.as_found()
    if story.playbook != "panic":
        await busy.load.check()
