"""What operators do with meetings, whosesoever: find, list, ask their servers about them, end them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalelite.core import commands
from scalelite.errors import Ambiguous, NotDeclared, UpstreamFailed
from scalelite.flows import admin
from scalelite.flows.cluster import cluster_view
from scalelite.store import observed, polls, runtime, specs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from scalelite.core import wire
    from scalelite.core.model import ServerSpec
    from scalelite.flows.admin import MeetingEnd, Tell
    from scalelite.flows.services import Services
    from scalelite.store.db import Connection
    from scalelite.store.observed import RunningMeeting


def find(running: Iterable[RunningMeeting], text: str, tenant: str = "") -> RunningMeeting:
    """Return the meeting that a person means: by id, or its unique beginning; raises NotDeclared, Ambiguous."""
    among = [meeting for meeting in running if not tenant or meeting.tenant == tenant]
    exact = [meeting for meeting in among if meeting.meeting_id == text]
    found = exact or [meeting for meeting in among if text and meeting.meeting_id.startswith(text)]
    if not found:
        raise NotDeclared("meeting", text)
    if len(found) > 1:
        raise Ambiguous("meeting", text, [named(meeting) for meeting in found])
    return found[0]


def named(meeting: RunningMeeting) -> str:
    """Return a meeting's id, behind its tenant where there are tenants."""
    return f"{meeting.tenant}/{meeting.meeting_id}" if meeting.tenant else meeting.meeting_id


async def running(connection: Connection, texts: Sequence[str] = (), tenant: str = "") -> list[RunningMeeting]:
    """Return the meetings that are named, or all, of a tenant or of all; raises NotDeclared, Ambiguous."""
    if tenant:
        tenant = commands.find_tenant((await admin.read_live(connection)).declared, tenant).name
    every = await observed.running_meetings(connection)
    if not texts:
        return [meeting for meeting in every if not tenant or meeting.tenant == tenant]
    return [find(every, text, tenant) for text in texts]


async def unknown(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Return by server the meetings that run there though Postgres does not know them, as last polled."""
    return await polls.unknown_meetings(connection)


async def end(services: Services, wanted: Iterable[RunningMeeting], tell: Tell) -> list[MeetingEnd]:
    """Ask their servers to end these meetings; those that have ended meanwhile are left out."""
    generations = {meeting.generation for meeting in wanted}
    async with services.database.dedicated() as connection:
        servers = [server.id for server in await specs.load_servers(connection)]
        every = await runtime.meetings_to_end(connection, servers, [])
        chosen = [meeting for meeting in every if meeting.generation in generations]
        return await admin.end_each(services, connection, chosen, tell=tell)


# --- what servers say ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listing:
    """The ids of the meetings that a server has, or why it says nothing."""

    server: ServerSpec
    meetings: tuple[str, ...] = ()
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """What a server says of one meeting, or why it says nothing."""

    meeting: RunningMeeting
    server: ServerSpec
    reply: wire.Reply | None = None
    failure: str = ""


async def listed_by_servers(services: Services, texts: Sequence[str] = ()) -> list[Listing]:
    """Ask the servers that are named, or all, what runs on them; raises NotDeclared, Ambiguous."""
    async with services.database.use() as connection:
        declared = (await admin.read_live(connection)).declared
        algorithm = cluster_view(await specs.load_cluster(connection), services.settings).algorithm
    servers = [commands.find_server(declared, text) for text in texts] or commands.servers(declared)

    async def ask(server: ServerSpec) -> Listing:
        reply, failure = await _ask(lambda: services.bbb.call(server, "getMeetings", {}, algorithm))
        if reply is None:
            return Listing(server, failure=failure)
        ids = (meeting.findtext("meetingID") or "" for meeting in reply.root.iterfind("meetings/meeting"))
        return Listing(server, tuple(ids))

    return list(await asyncio.gather(*map(ask, servers)))


async def about(services: Services, meetings: Iterable[RunningMeeting]) -> list[Said]:
    """Ask the servers of these meetings for getMeetingInfo."""
    async with services.database.use() as connection:
        servers = {server.id: server for server in await specs.load_servers(connection)}
        algorithm = cluster_view(await specs.load_cluster(connection), services.settings).algorithm

    async def ask(meeting: RunningMeeting) -> Said:
        server, params = servers[meeting.server], {"meetingID": meeting.meeting_id}
        reply, failure = await _ask(lambda: services.bbb.call(server, "getMeetingInfo", params, algorithm))
        return Said(meeting, server, reply, failure)

    return list(await asyncio.gather(*map(ask, meetings)))


async def _ask(call: Callable[[], Awaitable[wire.Reply]]) -> tuple[wire.Reply | None, str]:
    """Return a good answer, or why there is none."""
    try:
        reply = await call()
    except UpstreamFailed as error:
        return None, error.cause
    if not reply.succeeded:
        return None, f"{reply.message_key}: {reply.root.findtext('message') or ''}"
    return reply, ""
