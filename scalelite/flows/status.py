"""What is known of the cluster's servers, from Postgres alone: asks no server (PO-5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scalelite.core.balance import Counted, state_of
from scalelite.core.model import ServerStatus
from scalelite.flows.cluster import cluster_view
from scalelite.store import polls, runtime, specs

if TYPE_CHECKING:
    from scalelite.core.model import Health, ServerSpec, State
    from scalelite.settings import Settings
    from scalelite.store.db import Connection


@dataclass(frozen=True, slots=True)
class ServerRow:
    """One server; `load` has the server's multiplier and what was placed since the last poll in it.

    `unknown_meetings` run there, and Postgres does not know them.
    """

    id: str
    hostname: str
    state: State
    health: Health
    meetings: int
    users: int
    largest_meeting: int
    videos: int
    load: float
    tag: str
    bbb_version: str
    polled_at: str | None
    unknown_meetings: tuple[str, ...]


async def server_rows(connection: Connection) -> list[ServerRow]:
    """Return a row a server, in the order of their ids."""
    return [row for _, row in await servers_with_rows(connection)]


async def servers_with_rows(connection: Connection, server_id: str = "") -> list[tuple[ServerSpec, ServerRow]]:
    """Return each server as it is declared, or the one of this id, with its row, in the order of their ids."""
    servers = await specs.load_servers(connection, server_id)
    holds = await runtime.load_holds(connection)
    _, statuses = await runtime.load_statuses(connection)
    reserved = await runtime.reserved_loads(connection)
    unknown = await polls.unknown_meetings(connection)
    by_server = {status.server: status for status in statuses}
    return [
        (
            server,
            _row(
                server,
                by_server.get(server.id, ServerStatus(server.id)),
                holds.get(server.id),
                reserved.get(server.id, (0.0, 0)),
                unknown.get(server.id, ()),
            ),
        )
        for server in servers
    ]


def _row(
    server: ServerSpec,
    status: ServerStatus,
    held: State | None,
    reserved: tuple[float, int],
    unknown: tuple[str, ...],
) -> ServerRow:
    load, meetings = reserved
    return ServerRow(
        id=server.id,
        hostname=urlsplit(server.url).netloc,
        state=state_of(server, status, held),
        health=status.health,
        meetings=status.meetings + meetings,
        users=status.users,
        largest_meeting=status.largest_meeting,
        videos=status.videos,
        load=server.load_multiplier * (status.load + load),
        tag=server.tag,
        bbb_version=status.bbb_version,
        polled_at=status.polled_at.isoformat() if status.polled_at else None,
        unknown_meetings=unknown,
    )


@dataclass(frozen=True, slots=True)
class LoadRow:
    """How a server's load came about: what the last good poll counted, what was placed since, weights, multiplier."""

    id: str
    hostname: str
    counted: Counted
    polled: float
    reserved_meetings: int
    reserved: float
    multiplier: float
    load: float
    polled_at: str | None


@dataclass(frozen=True, slots=True)
class LoadsExplained:
    """The formula's parameters, and what they make of each server."""

    weights: dict[str, float]
    min_user_count: int
    join_buffer_minutes: float
    servers: list[LoadRow]


async def explain_loads(connection: Connection, settings: Settings) -> LoadsExplained:
    """Return how each load came about."""
    formula = cluster_view(await specs.load_cluster(connection), settings).load
    statuses = {status.server: status for status in (await runtime.load_statuses(connection))[1]}
    reserved = await runtime.reserved_loads(connection)
    rows = []
    for server, row in await servers_with_rows(connection):
        status = statuses.get(server.id, ServerStatus(server.id))
        counted = Counted(status.meetings, status.counted_users, status.voice, status.videos)
        load, meetings = reserved.get(server.id, (0.0, 0))
        rows.append(
            LoadRow(
                id=server.id,
                hostname=row.hostname,
                counted=counted,
                polled=status.load,
                reserved_meetings=meetings,
                reserved=load,
                multiplier=server.load_multiplier,
                load=row.load,
                polled_at=row.polled_at,
            )
        )
    return LoadsExplained(formula.weights.model_dump(), formula.min_user_count, formula.join_buffer_s / 60, rows)
