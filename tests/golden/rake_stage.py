"""Where recorded rake tasks begin: servers and a database as the driver left them, and what it did before a task."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg

from scalelite.core.model import Declared, Key, Kind, Secret, ServerSpec, TenantSpec
from scalelite.flows import reconcile
from scalelite.sim import simulate
from scalelite.store.db import connect
from scalelite.store.specs import Author

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from scalelite.core.model import AnySpec, State
    from scalelite.sim import Mode, RunningServer

RECORDS: Final = Path(__file__).parent / "records"
T1: Final = "11111111-1111-4111-8111-111111111111"
T2: Final = "22222222-2222-4222-8222-222222222222"
SERVERS: Final = ("bbb1", "bbb2", "bbb3")
STOPPED_CLOCK_S: Final = 1_700_000_000.0
NOBODY: Final = "down.test"


@contextmanager
def running_servers() -> Iterator[list[RunningServer]]:
    """Run the three servers in a thread of their own, with a clock that stands still."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    secrets = [f"stub-bbb-shared-secret{name[-1]}" for name in SERVERS]
    simulated = simulate(3, secrets=secrets, names=SERVERS, clock=lambda: STOPPED_CLOCK_S)
    try:
        yield asyncio.run_coroutine_threadsafe(simulated.__aenter__(), loop).result(10)
        asyncio.run_coroutine_threadsafe(simulated.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def resolver(servers: list[RunningServer]) -> Callable[..., Any]:
    """Return a getaddrinfo that knows the recorded names, whose ports are others here."""
    ports = {f"{server.name}.test": server.listener.port for server in servers}
    ports[NOBODY] = 1
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host in ports:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", ports[host]))]
        return real(host, port, *arguments, **options)

    return getaddrinfo


class Stage:
    """A database and servers."""

    def __init__(self, conninfo: str, servers: list[RunningServer]) -> None:
        self.conninfo = conninfo
        self.servers = {server.name: server for server in servers}

    # --- what the driver did -----------------------------------------------------------------------------------------

    def sql(self, statement: str, *parameters: object) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(statement.encode(), parameters)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            return connection.execute(statement.encode()).fetchall()

    def polled(self) -> bool:
        return bool(self.query("SELECT 1 FROM poll_round"))

    def reset(
        self,
        servers: tuple[str, ...] = SERVERS,
        tags: Mapping[str, str] | None = None,
        states: Mapping[str, State] | None = None,
        tenants: tuple[str, ...] = (),
    ) -> None:
        """Forget everything; declare servers, polled and online, and tenants."""
        for server in self.servers.values():
            server.reset()
        for table in ("meeting", "hold", "tombstone", "server_status"):
            self.sql(f"DELETE FROM {table}")
        objects: dict[Key, AnySpec] = {
            Key(Kind.SERVER, name): ServerSpec(
                id=name,
                url=f"http://{name}.test:881{name[-1]}/bigbluebutton/api",
                secret=Secret(f"stub-bbb-shared-secret{name[-1]}"),
                tag=(tags or {}).get(name, ""),
                state=(states or {}).get(name, "enabled"),
            )
            for name in servers
        }
        secrets = {T1: ("tenant1-secret",), T2: ("tenant2-secret-a", "tenant2-secret-b")}
        for tenant in tenants:
            name = f"tenant{tenant[0]}"
            spec = TenantSpec(id=uuid.UUID(tenant), name=name, secrets=tuple(map(Secret, secrets[tenant])))
            objects[Key(Kind.TENANT, name)] = spec
        asyncio.run(self._declare(Declared(objects, frozenset({"servers", "tenants"}))))
        for name in servers:
            self.sql(
                """
                INSERT INTO server_status (server, health, bbb_version, polled_at)
                VALUES (%s, 'online', '3.0.4', now())
                """,
                name,
            )

    async def _declare(self, wanted: Declared) -> None:
        async with connect(self.conninfo, "replay") as connection:
            planned = await reconcile.plan(connection, wanted, "cordon")
            await reconcile.apply(connection, wanted, planned.plan, Author("replay"), uuid.uuid4, lock_timeout_s=5)

    def offline(self, server: str) -> None:
        self.sql("UPDATE server_status SET health = 'offline', score = 4 WHERE server = %s", server)

    def known(self, meeting: str, server: str, password: str = "pw", users: int = 0) -> None:
        """Let Postgres know a meeting."""
        self.sql(
            """
            INSERT INTO meeting (tenant, meeting_id, server, phase, generation, moderator_pw, voice_bridge, reservation,
                                 counted, users, claimed_at)
            VALUES (%s, %s, %s, 'running', nextval('claim_sequence'), %s, %s, 0, true, %s, now() - interval '1 hour')
            """,
            uuid.UUID(int=0), meeting, server, password, meeting, users,
        )  # fmt: skip

    def runs(self, meeting: str, server: str, people: int = 0, videos: int = 0, **params: Any) -> None:
        """Let a meeting run on a server."""
        self.servers[server].create_meeting(meeting, params.pop("name", meeting), params)
        if people:
            self.servers[server].add_users(meeting, people, moderators=1, video=videos)

    def fails(self, server: str, mode: Mode, *calls: str, **how: Any) -> None:
        self.servers[server].heal()
        self.servers[server].fail(mode, calls, **how)

    def heals(self, server: str) -> None:
        self.servers[server].heal()

    def forgets(self, server: str, meeting: str) -> None:
        self.servers[server].forget(meeting)

    def with_meetings(self) -> None:
        """m0 and m1 on bbb1, m2 on bbb2, as the last poll saw them."""
        self.reset()
        for place, server in enumerate(("bbb1", "bbb1", "bbb2")):
            self.known(f"m{place}", server, f"pw{place}", 2 + place)
            self.runs(f"m{place}", server, 2 + place, place, moderatorPW=f"pw{place}")
        self.load(bbb1=5, bbb2=2)

    def load(self, **loads: float) -> None:
        for server, load_now in loads.items():
            self.sql("UPDATE server_status SET load = %s WHERE server = %s", load_now, server)

    def to_sync(self, meetings: int = 1) -> None:
        """Three servers, one of them with meetings."""
        self.reset(tags={"bbb2": "gpu"})
        for place in range(meetings):
            self.known(f"m{place}", "bbb2")
            self.runs(f"m{place}", "bbb2", moderatorPW="pw")

    def named_meetings(self) -> None:
        """m0 on bbb1 and m1 on bbb2, with much metadata."""
        self.reset()
        metadata = {
            "bbb-context-name": "Course", "bbb-origin": "Moodle", "bbb-context": "ctx", "bbb-context-id": "7",
            "bbb-context-label": "lbl", "analytics-callback-url": "http://x", "bbb-recording-name": "Rec",
            "bbb-recording-tags": "a,b", "bbb-recording-description": "desc", "bbb-origin-server-name": "srv",
            "bbb-origin-server-common-name": "cn", "bbb-origin-tag": "tag",
        }  # fmt: skip
        params: dict[str, Any] = {f"meta_{name}": value for name, value in metadata.items()}
        for place, server in enumerate(("bbb1", "bbb2")):
            self.known(f"m{place}", server, f"pw{place}")
            self.runs(f"m{place}", server, name=f"Name {place}", moderatorPW=f"pw{place}", record="true", **params)

    def recordings(self) -> None:
        """Seven recordings, as the driver's fixtures; those of the first tenant, which is gone, are nobody's."""
        lines = (RECORDS / "07-recordings.jsonl").read_text().splitlines()
        rows = next(record["rows"] for record in map(json.loads, lines) if record["id"] == "07-recordings/001")
        mine = {name for name, key, value in rows["metadata"] if (key, value) == ("tenant-id", T2)}
        for row in rows["recordings"]:
            self.sql(
                "INSERT INTO recording (record_id, tenant, meeting_id, name, state, published, start_ms, end_ms)"
                " VALUES (%s, %s, %s, %s, %s, %s, 0, 0)",
                row["record_id"], T2 if row["record_id"] in mine else uuid.UUID(int=0), row["meeting_id"], row["name"],
                row["state"], row["published"],
            )  # fmt: skip
        for name, key, value in rows["metadata"]:
            self.sql(
                "INSERT INTO recording_metadata (recording, key, value) SELECT id, %s, %s FROM recording"
                " WHERE record_id = %s",
                key, value, name,
            )  # fmt: skip


def _both(*steps: Callable[[Stage], None]) -> Callable[[Stage], None]:
    def do(replay: Stage) -> None:
        for step in steps:
            step(replay)

    return do


def _failing(server: str, mode: Mode, *calls: str, **how: Any) -> Callable[[Stage], None]:
    return lambda replay: replay.fails(server, mode, *calls, **how)


def _states_of_16_094(replay: Stage) -> None:
    replay.sql("UPDATE server SET tag = 'gpu' WHERE id = 'bbb1'")
    replay.sql("UPDATE server SET state = 'cordoned' WHERE id = 'bbb2'")
    replay.sql("UPDATE server SET state = 'disabled', load_multiplier = 2.5 WHERE id = 'bbb3'")
    replay.load(bbb2=3)
    replay.offline("bbb3")


def _loads_of_18_023(replay: Stage) -> None:
    replay.reset()
    replay.runs("old", "bbb1", 4, 2)
    replay.runs("old2", "bbb1", 20)
    replay.runs("new", "bbb2", 1)
    replay.runs("brk", "bbb3", 9)
    replay.runs("new0", "bbb3")
    for server, meeting in (("bbb2", "new"), ("bbb3", "new0")):
        replay.servers[server].meetings[meeting].created_ms = time.time_ns() // 1_000_000
    replay.sql("UPDATE server SET load_multiplier = 2.5 WHERE id = 'bbb3'")


def _three_of_18_028(replay: Stage) -> None:
    replay.reset()
    for place in range(3):
        replay.known(f"m{place}", "bbb1")
    replay.runs("m0", "bbb1")


def _two_of_18_005(replay: Stage) -> None:
    replay.reset()
    for place in range(2):
        replay.known(f"m{place}", "bbb2")
        replay.runs(f"m{place}", "bbb2")
    replay.fails("bbb2", "status", "getMeetings", status=500)


def _cordoned_of_18_021(replay: Stage) -> None:
    replay.reset(states={"bbb1": "cordoned", "bbb2": "cordoned", "bbb3": "disabled"})
    replay.runs("c1", "bbb1", 3)


def _reset(**how: Any) -> Callable[[Stage], None]:
    return lambda replay: replay.reset(**how)


def _moved(server: str) -> Callable[[Stage], None]:
    url = f"http://{NOBODY}:8819/bigbluebutton/api"
    return lambda replay: replay.sql("UPDATE server SET url = %s, url_key = %s WHERE id = %s", url, url, server)


_WITH, _GPU, _NAMED = Stage.with_meetings, _reset(tags={"bbb2": "gpu"}), Stage.named_meetings
_500: Final[dict[str, Any]] = {"status": 500}

# What the driver did before a record (golden/driver/a_rake.py).
BEFORE: Final[dict[str, Callable[[Stage], None]]] = {
    **{f"16-rake-servers/{number:03d}": _reset(servers=()) for number in (1, 19)},
    **{f"16-rake-servers/{number:03d}": _GPU for number in (21, 46)},
    "16-rake-servers/059": _reset(),
    **{f"16-rake-servers/{number:03d}": _WITH for number in (*range(70, 80), 82, 85, 91)},
    "16-rake-servers/080": _both(_WITH, _failing("bbb1", "status", **_500)),
    "16-rake-servers/081": _both(_WITH, _moved("bbb1")),
    "16-rake-servers/089": _failing("bbb2", "status", **_500),
    "16-rake-servers/090": _failing("bbb2", "checksum_error"),
    "16-rake-servers/094": _states_of_16_094,
    "17-rake-sync/001": _reset(servers=()),
    **{f"17-rake-sync/{number:03d}": Stage.to_sync for number in range(13, 32)},
    "17-rake-sync/033": lambda replay: replay.forgets("bbb2", "m0"),
    "17-rake-sync/035": _both(lambda replay: replay.to_sync(2), _failing("bbb2", "status", **_500)),
    "17-rake-sync/036": _reset(),
    "17-rake-sync/067": _reset(servers=()),
    **{f"18-rake-poll/{number:03d}": _both(_reset(), lambda replay: replay.offline("bbb1")) for number in (1, 2)},
    "18-rake-poll/005": _two_of_18_005,
    "18-rake-poll/010": lambda replay: replay.heals("bbb2"),
    "18-rake-poll/011": _both(_reset(), _failing("bbb2", "status", **_500)),
    "18-rake-poll/012": lambda replay: replay.heals("bbb2"),
    "18-rake-poll/013": _failing("bbb2", "status", **_500),
    "18-rake-poll/014": _both(_reset(), _failing("bbb2", "garbage")),
    "18-rake-poll/015": _both(_reset(), _failing("bbb2", "checksum_error")),
    "18-rake-poll/016": _both(_reset(), _failing("bbb2", "close")),
    "18-rake-poll/017": _both(_reset(), _failing("bbb2", "garbage")),
    **{f"18-rake-poll/{number:03d}": _both(_reset(), _failing("bbb2", "hang")) for number in (18, 19)},
    "18-rake-poll/021": _cordoned_of_18_021,
    "18-rake-poll/022": lambda replay: replay.forgets("bbb1", "c1"),
    "18-rake-poll/023": _loads_of_18_023,
    "18-rake-poll/028": _three_of_18_028,
    "18-rake-poll/029": _failing("bbb1", "status", **_500),
    "18-rake-poll/030": _failing("bbb1", "checksum_error"),
    "18-rake-poll/031": lambda replay: replay.heals("bbb1"),
    "18-rake-poll/032": _failing("bbb2", "status", **_500),
    "18-rake-poll/033": lambda replay: replay.heals("bbb2"),
    "18-rake-poll/035": _reset(servers=()),
    "18-rake-poll/036": _reset(),
    "19-rake-meetings/001": _reset(),
    **{f"19-rake-meetings/{number:03d}": _NAMED for number in (4, 15, 16, 17, 18, 19)},
    "19-rake-meetings/013": lambda replay: replay.forgets("bbb1", "m0"),
    "19-rake-meetings/022": _failing("bbb1", "status", **_500),
    "20-rake-tenants/001": _reset(),
    **{f"20-rake-tenants/{number:03d}": _reset(tenants=(T1, T2)) for number in (10, 27, 42)},
    "20-rake-tenants/072": Stage.recordings,
}
