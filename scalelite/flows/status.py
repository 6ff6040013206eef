"""What is known of the cluster's servers, from Postgres alone: asks no server (PO-5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scalelite.core.balance import effective_state
from scalelite.core.model import ServerStatus
from scalelite.store import runtime, specs

if TYPE_CHECKING:
    from scalelite.core.model import Health, ServerSpec, State
    from scalelite.store.db import Connection


@dataclass(frozen=True, slots=True)
class ServerRow:
    """One server; `load` has the server's multiplier and what was placed since the last poll in it."""

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


async def server_rows(connection: Connection) -> list[ServerRow]:
    """Return a row a server, in the order of their ids."""
    return [row for _, row in await servers_with_rows(connection)]


async def servers_with_rows(connection: Connection) -> list[tuple[ServerSpec, ServerRow]]:
    """Return each server as it is declared, with its row, in the order of their ids."""
    servers = await specs.load_servers(connection)
    holds = await runtime.load_holds(connection)
    _, statuses = await runtime.load_statuses(connection)
    reserved = await runtime.reserved_loads(connection)
    by_server = {status.server: status for status in statuses}
    return [
        (
            server,
            _row(
                server,
                by_server.get(server.id, ServerStatus(server.id)),
                holds.get(server.id),
                reserved.get(server.id, (0.0, 0)),
            ),
        )
        for server in servers
    ]


def _row(server: ServerSpec, status: ServerStatus, held: State | None, reserved: tuple[float, int]) -> ServerRow:
    load, meetings = reserved
    return ServerRow(
        id=server.id,
        hostname=urlsplit(server.url).netloc,
        state="disabled" if server.state == "not enabled" else effective_state(server.state, held),
        health=status.health,
        meetings=status.meetings + meetings,
        users=status.users,
        largest_meeting=status.largest_meeting,
        videos=status.videos,
        load=server.load_multiplier * (status.load + load),
        tag=server.tag,
        bbb_version=status.bbb_version,
        polled_at=status.polled_at.isoformat() if status.polled_at else None,
    )
