"""The one place where a command, the management API or a playbook changes declared state or holds; and panic.

A wish (core/commands.py) is decided under the apply lock on what is live then, and written by the same function as an
apply: one revision with its actor, or nothing. Rules: spec/cli.md, spec/data.md (hold).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import psycopg

from scalelite.core import commands
from scalelite.core.plan import Hold
from scalelite.errors import ApplyFailed, ServerUnreachable, UpstreamFailed
from scalelite.flows.acting import LOCK_TIMEOUT_S, Acting
from scalelite.flows.cluster import cluster_view
from scalelite.flows.ending import stopped
from scalelite.store import db, plans, runtime, specs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalelite.core.commands import Wish
    from scalelite.core.model import Meeting, ServerSpec
    from scalelite.core.plan import Change
    from scalelite.flows.services import Services
    from scalelite.store.db import Connection
    from scalelite.store.specs import Author, Live

Outcome = Literal["ended", "unknown", "refused"]

# Panic takes less than 10 s, whatever the server does (DR-4).
_ENDING_S: Final = 7.0
# Services follow a hold within a second; until then one of them may still place a meeting.
_FOLLOWED_S: Final = 1.0
_SERVERS_AT_ONCE: Final = 50


@dataclass(frozen=True, slots=True)
class Changed:
    """What a wish came to; without changes and holds all was so already, and no revision was written."""

    revision: int
    changes: tuple[Change, ...] = ()
    holds: tuple[Hold, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes or self.holds)


async def change(connection: Connection, acting: Acting, wish: Wish) -> Changed:
    """Carry out a wish in one transaction, or nothing.

    Raises what the wish is refused with (NotDeclared, AlreadyDeclared, SpecRefused, GuardRefused), LockTimeout,
    ApplyFailed.
    """
    try:
        async with db.apply_lock(connection, acting.lock_timeout_s, acting.tell):
            live = await specs.load_live(connection)
            known = commands.Known(live.declared, await plans.load_facts(connection))
            decided = tuple(wish(known))
            holds = tuple(part for part in decided if isinstance(part, Hold))
            changes = tuple(part for part in decided if not isinstance(part, Hold))
            if not decided:
                return Changed(live.revision)
            revision = await specs.write(connection, changes, acting.author, acting.new_id, holds=holds)
    except psycopg.Error as error:
        raise ApplyFailed(f"rolled back, nothing was written: {db.first_line(error)}") from None
    return Changed(revision, changes, holds)


async def read_live(connection: Connection) -> Live:
    """Read the declared state in one snapshot: for lists, and to find out whom a command means."""
    async with db.snapshot(connection):
        return await specs.load_live(connection)


# --- ending meetings -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MeetingEnd:
    """What became of a meeting that was to end: unknown if its server did not say, refused if it said no."""

    meeting: Meeting
    outcome: Outcome
    reason: str = ""


Tell = Callable[[MeetingEnd], None]


def _nobody(_: MeetingEnd) -> None:
    """Whoever wants to hear of each meeting as it ends gives another."""


@dataclass(frozen=True, slots=True)
class Panicked:
    """What a panic did; partial if a meeting may still run."""

    server: str
    changed: Changed
    meetings: tuple[MeetingEnd, ...]

    @property
    def partial(self) -> bool:
        """Say whether the fate of a meeting is unknown."""
        return any(end.outcome != "ended" for end in self.meetings)


async def panic(
    services: Services,
    author: Author,
    server_id: str,
    *,
    keep_state: bool = False,
    skip_end_calls: bool = False,
    why: str = "panic",
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    tell: Tell = _nobody,
) -> Panicked:
    """Hold a server disabled, end the meetings of all tenants on it, and forget them, whether or not it answers.

    A meeting whose end is unknown leaves a tombstone: it is ended when the server answers again. A second run finds
    nothing to do. Raises NotDeclared, LockTimeout.
    """
    async with services.database.dedicated() as connection:
        server = commands.server_of((await read_live(connection)).declared, server_id)
        acting = Acting(author, services.new_id, lock_timeout_s)
        wish = commands.set_state(server_id, "disabled", why)
        changed = Changed(0) if keep_state else await change(connection, acting, wish)
    ends = await _end_all(services, server, _ENDING_S, ask=not skip_end_calls, tell=tell)
    if changed.holds:
        await asyncio.sleep(_FOLLOWED_S)
        ends += await _end_all(services, server, _FOLLOWED_S, ask=not skip_end_calls, tell=tell)
    return Panicked(server_id, changed, ends)


async def _end_all(
    services: Services, server: ServerSpec, within_s: float, *, ask: bool, tell: Tell
) -> tuple[MeetingEnd, ...]:
    """End and forget the meetings that are on a server now; without asking it, their fate is unknown."""
    async with services.database.use() as connection:
        meetings = await runtime.meetings_on(connection, server.id)
        algorithm = cluster_view(await specs.load_cluster(connection), services.settings).algorithm
    if ask:
        ends = await end_meetings(services, server, meetings, algorithm, within_s, tell=tell)
    else:
        ends = tuple(MeetingEnd(meeting, "unknown", "it was not asked") for meeting in meetings)
        for end in ends:
            tell(end)
    async with services.database.use() as connection, connection.transaction():
        await runtime.forget_meetings(connection, [meeting.generation for meeting in meetings])
        if ask:
            await runtime.raise_tombstones(connection, [end.meeting for end in ends if end.outcome != "ended"])
    return ends


async def end_meetings(
    services: Services,
    server: ServerSpec,
    meetings: Sequence[Meeting],
    algorithm: str,
    within_s: float = _ENDING_S,
    *,
    tell: Tell = _nobody,
) -> tuple[MeetingEnd, ...]:
    """Ask a server to end these meetings, as many at once as it may have connections, within a time (seconds).

    A server that refuses a connection is not asked again: the others would fail alike.
    """
    from scalelite.edge.bbb import CONNECTIONS_PER_SERVER  # noqa: PLC0415 - 0.05 s to import, and lists need none of it

    unreachable = asyncio.Event()
    reason = ""
    slots = asyncio.Semaphore(CONNECTIONS_PER_SERVER)

    async def ask(meeting: Meeting) -> MeetingEnd:
        nonlocal reason
        if unreachable.is_set():
            return MeetingEnd(meeting, "unknown", reason)
        params = {"meetingID": meeting.meeting_id, "password": meeting.moderator_pw.reveal()}
        try:
            reply = await services.bbb.call(server, "end", params, algorithm)
        except ServerUnreachable as error:
            reason = error.reason
            unreachable.set()
            return MeetingEnd(meeting, "unknown", reason)
        except UpstreamFailed as error:
            return MeetingEnd(meeting, "unknown", f"{error.message_key}: {error.message}")
        if reply.succeeded or reply.message_key == "notFound":
            return MeetingEnd(meeting, "ended")
        return MeetingEnd(meeting, "refused", f"{reply.message_key}: {reply.root.findtext('message') or ''}")

    async def end(meeting: Meeting) -> MeetingEnd:
        async with slots:
            ended = await ask(meeting)
        tell(ended)
        return ended

    tasks = [asyncio.create_task(end(meeting)) for meeting in meetings]
    try:
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)
    finally:
        await stopped(*(task for task in tasks if not task.done()))
    return tuple(
        MeetingEnd(meeting, "unknown", "it did not answer in time") if task.cancelled() else task.result()
        for meeting, task in zip(meetings, tasks, strict=True)
    )


async def _forget_each(connection: Connection, ended: asyncio.Queue[int | None]) -> None:
    """Forget meetings as they end, up to a None: whoever is killed meanwhile leaves those that have not ended."""
    over = False
    while not over:
        found = [await ended.get()]
        while not ended.empty():
            found.append(ended.get_nowait())
        over = None in found
        await runtime.forget_meetings(connection, [generation for generation in found if generation is not None])


async def end_each(
    services: Services,
    connection: Connection,
    meetings: Sequence[Meeting],
    within_s: float = _ENDING_S,
    tell: Tell = _nobody,
) -> list[MeetingEnd]:
    """End these meetings, all servers at once; one whose end is unknown is forgotten, one that was refused stays.

    What is forgotten so is ended when its server answers again.
    """
    algorithm = cluster_view(await specs.load_cluster(connection), services.settings).algorithm
    servers = {server.id: server for server in await specs.load_servers(connection)}
    slots = asyncio.Semaphore(_SERVERS_AT_ONCE)
    ended: asyncio.Queue[int | None] = asyncio.Queue()

    def note(end: MeetingEnd) -> None:
        if end.outcome == "ended":
            ended.put_nowait(end.meeting.generation)
        tell(end)

    async def on(server: str) -> tuple[MeetingEnd, ...]:
        mine = [meeting for meeting in meetings if meeting.server == server]
        async with slots:
            return await end_meetings(services, servers[server], mine, algorithm, within_s, tell=note)

    forgetting = asyncio.create_task(_forget_each(connection, ended))
    try:
        outcomes = await asyncio.gather(*(on(server) for server in sorted({meeting.server for meeting in meetings})))
    finally:
        ended.put_nowait(None)
        await forgetting
    ends = [end for of_server in outcomes for end in of_server]
    gone = [end.meeting.generation for end in ends if end.outcome != "refused"]
    async with connection.transaction():
        await runtime.forget_meetings(connection, gone)
        await runtime.raise_tombstones(connection, [end.meeting for end in ends if end.outcome == "unknown"])
    return ends
