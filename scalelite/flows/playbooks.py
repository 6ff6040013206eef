"""What playbooks ask of the cluster: their journal and locks, what is known of servers, and the ends of meetings."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from scalelite.core import commands
from scalelite.core.model import Kind, secrets_of
from scalelite.edge.programs import execute, exists, request
from scalelite.errors import NotDeclared, ServersBusy, UsageError
from scalelite.flows import admin
from scalelite.flows.cluster import cluster_view
from scalelite.flows.poll import Poll
from scalelite.flows.status import servers_with_rows
from scalelite.store import plans, runtime, specs
from scalelite.store import playbooks as store
from scalelite.store.db import snapshot
from scalelite.store.playbooks import PlayTargets, Step
from scalelite.store.seal import CLEAR
from scalelite.store.specs import Author

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scalelite.core.commands import Known
    from scalelite.core.model import Meeting, ServerSpec
    from scalelite.flows.admin import MeetingEnd
    from scalelite.flows.services import Services
    from scalelite.flows.status import ServerRow
    from scalelite.store.db import Connection
    from scalelite.store.playbooks import RunRow

# What playbooks ask of the outside world, which they do not import themselves.
__all__ = [
    "Journal",
    "PlayTargets",
    "Seen",
    "Step",
    "author",
    "end_meetings",
    "execute",
    "exists",
    "look",
    "meetings_that",
    "request",
]

_USE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """The cluster at one moment: what is declared, facts, and a row a server."""

    known: Known
    rows: Mapping[str, ServerRow]


async def look(services: Services) -> Seen:
    """Read the cluster in one snapshot."""
    async with services.database.use(_USE_S) as connection, snapshot(connection):
        live = await specs.load_live(connection)
        facts = await plans.load_facts(connection)
        rows = {row.id: row for _, row in await servers_with_rows(connection)}
    return Seen(commands.Known(live.declared, facts), rows)


async def poll_some(services: Services, servers: Iterable[str]) -> frozenset[str]:
    """Ask servers what runs on them, whatever their state, and keep that; returns those that answered."""
    poll = Poll(services)
    outcome = await poll.round(await poll.begin(frozenset(servers)), versions=True, whole=False)
    return frozenset(outcome.statuses).difference(outcome.failed)


def seals(connection: Connection) -> bool:
    """Say whether secrets are sealed in Postgres: whether SCALELITE_ENCRYPTION_KEY is set."""
    return connection.sealer.key_id != CLEAR


def author(actor: str, message: str, source: dict[str, Any] | None = None) -> Author:
    """Return who changes something, for the history."""
    return Author(actor, message, source)


async def holds_by(services: Services, actor: str) -> dict[str, str]:
    """Return the servers that somebody holds, each with the state that it is held in."""
    async with services.database.use(_USE_S) as connection:
        holds = await runtime.load_holds_in_full(connection)
    return {server: hold.state for server, hold in sorted(holds.items()) if hold.by == actor}


# --- ending meetings -------------------------------------------------------------------------------------------------


async def meetings_that(
    services: Services,
    *,
    server: str | None = None,
    tenant: str | None = None,
    older_than_s: float | None = None,
    empty: bool | None = None,
) -> list[Meeting]:
    """Return the meetings of a server and of a tenant, of that age, without anybody in them; None: whatever it is."""
    async with services.database.use(_USE_S) as connection:
        return await store.meetings_that(connection, store.Which(server, tenant, older_than_s, empty))


async def end_meetings(services: Services, meetings: Sequence[Meeting]) -> list[MeetingEnd]:
    """End meetings on their servers, and forget those that have ended."""
    async with services.database.use(_USE_S) as connection:
        servers: dict[str, ServerSpec] = {server.id: server for server in await specs.load_servers(connection)}
        algorithm = cluster_view(await specs.load_cluster(connection), services.settings).algorithm
    by_server: dict[str, list[Meeting]] = defaultdict(list)
    for meeting in meetings:
        by_server[meeting.server].append(meeting)
    ends: list[MeetingEnd] = []
    for server, on_it in by_server.items():
        ends += await admin.end_meetings(services, servers[server], on_it, algorithm)
    gone = [end.meeting.generation for end in ends if end.outcome == "ended"]
    async with services.database.use(_USE_S) as connection:
        await runtime.forget_meetings(connection, gone)
    return ends


# --- the journal -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run does: its files, by the digest of their texts, and the options that choose among their tasks."""

    playbook: str
    digest: str
    options: str = ""

    @property
    def key(self) -> str:
        """What tells it from other runs of these files."""
        return f"{self.digest}{self.options}"

    def is_meant_by(self, row: RunRow) -> bool:
        """Say whether it is that run's; without options, whatever that one had."""
        return not self.options or row.digest.endswith(self.options)

    def is_unchanged_since(self, row: RunRow) -> bool:
        """Say whether the files are what that run did."""
        return row.digest.startswith(self.digest)


@dataclass(slots=True)
class Journal:
    """What a run has done so far; a run that goes on finds there what the one before it did.

    `connection` is the run's own, and holds its lock: when it goes, others may have its servers. `options` are those of
    `Asked`, `given` is what it keeps besides.
    """

    services: Services
    connection: Connection
    run: int
    actor: str
    options: str = ""
    given: str = ""
    steps: dict[tuple[str, str], Step] = field(default_factory=dict)
    targets: dict[int, PlayTargets] = field(default_factory=dict)

    @classmethod
    async def begin(cls, services: Services, connection: Connection, asked: Asked, given: str = "") -> Journal:
        """Begin a new run; `given` is kept with it, sealed where there is a key."""
        actor = services.settings.actor
        run = await store.begin(connection, asked.playbook, asked.key, actor, given)
        return cls(services, connection, run, actor, asked.options, given)

    @classmethod
    async def resume(cls, services: Services, connection: Connection, asked: Asked) -> Journal:
        """Take up the playbook's last run, if it was interrupted or has failed; raises UsageError, ServersBusy."""
        latest = await _latest(connection, asked)
        if latest.alive or not await store.hold_run(connection, latest.id):
            raise ServersBusy("of this playbook", holder(latest))
        if not asked.is_unchanged_since(latest):
            raise UsageError(
                f"{asked.playbook} is no longer what run {latest.id} did",
                hint="run it without --resume; --start-at-task and --limit leave out what is done",
            )
        steps = {(step.step, step.target): step for step in await store.steps_of(connection, latest.id)}
        targets = await store.targets_of(connection, latest.id)
        given = await store.given_of(connection, latest.id)
        options = latest.digest[len(asked.digest) :]
        return cls(services, connection, latest.id, latest.actor, options, given, steps, targets)

    def done(self, step: str, target: str) -> Step | None:
        """Return what was done before the run was interrupted, or failed."""
        return self.steps.get((step, target))

    async def keep(self, steps: Iterable[Step]) -> None:
        """Keep what was just done."""
        async with self.services.database.use(_USE_S) as connection:
            await store.keep_steps(connection, self.run, steps)

    async def forget(self, steps: Sequence[tuple[str, str]]) -> None:
        """Take out results, by step and target: a run that goes on does them again."""
        if steps:
            async with self.services.database.use(_USE_S) as connection:
                await store.forget_steps(connection, self.run, *zip(*steps, strict=True))

    async def lock(self, play: int, found: PlayTargets, *, servers: bool) -> None:
        """Lock what a play is about, where that is servers; raises ServersBusy, naming who has one."""
        if taken := await store.lock_servers(self.connection, self.run, found.targets if servers else []):
            server, other = min(taken.items())
            raise ServersBusy(server, holder(other))
        await store.keep_targets(self.connection, self.run, play, found)

    async def end(self, state: str) -> None:
        """End the run."""
        await store.end(self.connection, self.run, state)

    async def drop(self) -> None:
        """End a run that has begun nothing: one that goes on stays as it was, a new one never was."""
        if self.steps:
            await self.end("interrupted")
        else:
            await store.drop(self.connection, self.run)


async def _latest(connection: Connection, asked: Asked) -> RunRow:
    """Return the run that --resume means; raises UsageError."""
    rows = await store.latest_runs(connection, asked.playbook)
    if not rows:
        raise UsageError(f"{asked.playbook} was never run here", hint="run it without --resume")
    latest = next((row for row in rows if asked.is_meant_by(row)), None)
    if latest is None:
        raise UsageError(
            f"what is asked of {asked.playbook} is not what run {rows[0].id} did",
            hint="leave out the options: --resume has those of the run",
        )
    if latest.state == "done":
        raise UsageError(f"run {latest.id} of {asked.playbook} has ended well", hint="run it without --resume")
    return latest


def holder(run: RunRow) -> str:
    """Say which run somebody is waiting for."""
    return f"run {run.id} of {run.playbook} by {run.actor} since {run.started_at:%Y-%m-%d %H:%M} UTC"


async def recent_runs(services: Services) -> list[RunRow]:
    """Return the latest runs of all playbooks."""
    async with services.database.use(_USE_S) as connection:
        return await store.latest_runs(connection)


def server_facts(seen: Seen, server: str) -> dict[str, Any]:
    """Return what templates may know of a server; no secrets. Raises NotDeclared."""
    spec = commands.server_of(seen.known.declared, server)
    row = seen.rows.get(server)
    if row is None:
        raise NotDeclared("server", server)
    hold = seen.known.facts.holds.get(server)
    state = commands.state_in(seen.known, server)
    drained = state == "cordoned" and row.state == "disabled"
    return {
        "id": spec.id,
        "url": spec.url,
        "hostname": row.hostname,
        "state": "disabled" if drained else state,
        "declared_state": spec.state,
        "held": hold.state if hold else "",
        "load_multiplier": spec.load_multiplier,
        "tag": spec.tag,
        "max_meetings": spec.max_meetings,
        "max_users": spec.max_users,
        "protect": spec.protect,
        "health": row.health,
        "online": row.health == "online",
        "meetings": max(row.meetings, seen.known.facts.server_meetings.get(server, 0)),
        "users": row.users,
        "largest_meeting": row.largest_meeting,
        "load": row.load,
        "version": row.bbb_version,
    }


def tenant_facts(seen: Seen, name: str) -> dict[str, Any]:
    """Return what templates may know of a tenant; no secrets. Raises NotDeclared."""
    spec = commands.tenant_of(seen.known.declared, name)
    return {
        "id": str(spec.id),
        "name": spec.name,
        "enabled": spec.enabled,
        "hosts": list(spec.hosts),
        "secrets": len(spec.secrets),
        "public_url": spec.public_url or "",
        "protect": spec.protect,
        "meetings": seen.known.facts.tenant_meetings.get(name, 0),
        "recordings": seen.known.facts.tenant_recordings.get(name, 0),
    }


def available(known: Known, servers: Iterable[str]) -> int:
    """Count the servers that are enabled and online."""
    return sum(server in known.facts.online and commands.state_in(known, server) == "enabled" for server in servers)


def silent(known: Known, servers: Iterable[str]) -> frozenset[str]:
    """Return the servers that are enabled, and not known to be online."""
    enabled = {server for server in servers if commands.state_in(known, server) == "enabled"}
    return frozenset(enabled - known.facts.online)


def declared_secrets(seen: Seen) -> set[str]:
    """Return all secrets of servers and tenants, so that no output shows one."""
    found: set[str] = set()
    for key, spec in seen.known.declared.objects.items():
        if key.kind in {Kind.SERVER, Kind.TENANT, Kind.LRS}:
            found.update(secret.reveal() for secret in secrets_of(spec) if secret)
    return found
