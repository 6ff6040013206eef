"""What a call costs Postgres, as Postgres's own log has it: one statement at most, none for what a worker has seen."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pytest
from psycopg.conninfo import make_conninfo

from scalelite.store.db import conninfo_of
from tests.web.conftest import API, DOMAIN, Answer, Cluster, Service, eventually
from tests.web.test_dialin import PASSWORD, ask

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

SLIDES: Final[dict[str, Any]] = {
    "method": "POST",
    "headers": {"Content-Type": "application/xml"},
    "body": b"<modules/>",
}
# Of the pool's check of a connection; what is written of many creates at once, after they were answered; and what a
# worker does beside the calls.
_NOT_COUNTED: Final = re.compile(
    r"$|UPDATE meeting SET phase = 'running' WHERE generation = ANY|SELECT r\.record_id, r\.pending,"
)


class Log:
    """Postgres's log from here on: the statements of whoever connects with `options`."""

    options: Final = "-c log_statement=all"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = path.stat().st_size

    def statements(self) -> list[str]:
        """What was asked since the last time."""
        added = self._path.read_bytes()[self._read :]
        self._read += len(added)
        found = re.findall(r" LOG:  (?:statement|execute [^:]*): (?:\n\s+)?(.*)", added.decode(errors="replace"))
        return [statement for statement in found if not _NOT_COUNTED.match(statement)]


async def logged_service(cluster: Cluster) -> Service:
    """One whose statements are logged, but not those of its listener."""
    conninfo = conninfo_of(cluster.connection)
    return await cluster.serve(make_conninfo(conninfo, options=Log.options), LISTEN_DATABASE_URL=conninfo, **PASSWORD)


def calls_of(service: Service) -> dict[str, Callable[[str], Awaitable[Answer]]]:
    """Each call about a meeting, by name."""
    return {
        "isMeetingRunning": lambda room: service.about("isMeetingRunning", room),
        "getMeetingInfo": lambda room: service.about("getMeetingInfo", room),
        "join": service.join,
        "sendChatMessage": lambda room: service.about("sendChatMessage", room, message="hello"),
        "insertDocument": lambda room: service.call("insertDocument", {"meetingID": room}, **SLIDES),
    }


async def confirmed(cluster: Cluster) -> bool:
    return {phase for _, _, phase in await cluster.meetings()} == {"running"}


@pytest.mark.shows("architecture: a request costs at most one statement", "bbb-api: routes")
async def test_a_call_costs_one_statement_at_most(cluster: Cluster, postgres_home: Path) -> None:
    await cluster.start()
    log, cost = Log(postgres_home / "postgres.log"), dict[str, int]()
    seen, other = await logged_service(cluster), await logged_service(cluster)

    async def count(name: str, answer: Awaitable[Answer]) -> None:
        log.statements()
        assert (await answer).status in {200, 302}
        cost[name] = len(log.statements())

    await count("create", seen.create("room-1", meetingEndedURL="https://client.example/ended"))
    cluster.hosts_of("room-1")[0].add_users("room-1")
    await eventually(lambda: confirmed(cluster), 10)
    await count("create again", seen.create("room-1", meetingEndedURL="https://client.example/ended"))
    await count("create elsewhere", other.create("room-1"))
    for name, call in calls_of(seen).items():
        await count(name, call("room-1"))
        await count(f"{name} elsewhere", calls_of(await logged_service(cluster))[name]("room-1"))
        await count(f"{name} of nobody", call("room-9"))
    for name in ("getMeetings", "getSessions", "getRecordings"):
        await count(name, seen.call(name))
    await count("index", seen.send(API))
    await count("without a checksum", seen.send(f"{API}/create?meetingID=room-1"))
    await count("of no tenant", seen.call("getMeetings", host=f"tenant9.{DOMAIN}"))
    await count("dial-in", ask(seen))
    await count("dial-in with a PIN", ask(seen, variable_pin="12345"))
    await count("end", seen.about("end", "room-1"))
    none = {"create again", "index", "without a checksum", "of no tenant", "dial-in", *calls_of(seen)}
    assert cost == {name: 0 if name in none else 1 for name in cost}
