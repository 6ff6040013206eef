"""Replays the recorded rake tasks through `scalelite rake`, one after another, as they were recorded: each starts from
what the one before it has left, but where the driver began anew or did something to the servers (BEFORE).

The command runs in this process, on a real Postgres and simulated servers that have the recorded names.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import socket
import sys
import threading
import time
import uuid
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg

from scalelite import cli
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
_NOBODY: Final = "down.test"
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
# Where a server, tenant, meeting or setting begins in what is printed: their order is that of a set.
_ENTRY: Final = re.compile(
    r"^(?=id: |Total |Clearing |Tenant: |  id: |\nMeetingID: |\nServer ID: |MeetingIDs: |  [\w.-]+:$"
    r"| [\w.]+ +(?:enabled|disabled|cordoned) )",
    re.MULTILINE,
)
_WITHOUT_API: Final = re.compile(r"(http://\w+\.test/)(?=[,\]\\]|$)", re.MULTILINE)
_DEPRECATED: Final = re.compile(r"^Redis#sadd .*\n", re.MULTILINE)


def load(name: str) -> list[dict[str, Any]]:
    """Return the recorded tasks of a file.

    Urls without /api are refused here: a record with one comes again with it (`…+api`), for what else it is about.
    """
    found = []
    for line in (RECORDS / f"{name}.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "rake" in record:
            found.append(record)
            completed = _WITHOUT_API.sub(r"\1bigbluebutton/api", line)
            if completed != line:
                found.append({**json.loads(completed), "id": f"{record['id']}+api"})
    return found


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
    ports[_NOBODY] = 1
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host in ports:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", ports[host]))]
        return real(host, port, *arguments, **options)

    return getaddrinfo


class RakeReplay:
    """A database, servers, and the command."""

    def __init__(self, conninfo: str, servers: list[RunningServer]) -> None:
        self.conninfo = conninfo
        self.servers = {server.name: server for server in servers}
        self.drawn: dict[str, str] = {}

    # --- what the driver did -----------------------------------------------------------------------------------------

    def sql(self, statement: str, *parameters: object) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(statement.encode(), parameters)

    def polled(self) -> bool:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            return connection.execute("SELECT 1 FROM poll_round").fetchone() is not None

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

    # --- replay ------------------------------------------------------------------------------------------------------

    def differences(self, record: dict[str, Any], instead: Mapping[str, Any]) -> list[str]:
        """Replay a record and return what is not as recorded, or not as it is `instead`."""
        # The recorded servers told their version; simulated ones tell that of the API, as a stock server does.
        self.sql("UPDATE server_status SET bbb_version = '3.0.4' WHERE bbb_version = '2.0'")
        before = BEFORE.get(record["id"])
        if before:
            before(self)
        self._write_files(record)
        status, out, err = self._run(record)
        expected = {"exit": record["exit"], "stdout": record["stdout"], "stderr": record["stderr"], **instead}
        if pattern := instead.get("without lines"):
            lines = record["stdout"].splitlines(keepends=True)
            expected["stdout"] = "".join(line for line in lines if not re.match(pattern, line))
        self._pair(record["stdout"], out)
        found = []
        if status != expected["exit"]:
            found.append(f"exit {expected['exit']} is {status}: {out}{err}")
        for name, text in (("stdout", out), ("stderr", err)):
            was, now = _comparable(expected[name]), _comparable(text)
            if was != now:
                found.append(f"{name} {was} is {now}")
        return found

    def _write_files(self, record: dict[str, Any]) -> None:
        note = record.get("note", "")
        Path("gold").mkdir(exist_ok=True)
        if note.startswith("file gold/s.yml:\n"):
            Path("gold/s.yml").write_text(note.removeprefix("file gold/s.yml:\n"))
        elif "addAll" in record["rake"]:
            Path("gold/a.yml").write_text(note)

    def _run(self, record: dict[str, Any]) -> tuple[int, str, str]:
        task = _UUID.sub(lambda found: self.drawn.get(found[0], found[0]), record["rake"])
        environment = {
            "URL_HOST": "sl.localhost",
            **({"MULTITENANCY_ENABLED": "true"} if record["multitenancy"] else {}),
        }
        with _set({**environment, **record.get("env", {})}), _standard_input(record.get("stdin", "")):
            out, err = io.StringIO(), io.StringIO()
            with redirect_stdout(out), redirect_stderr(err):
                status = cli.run(["rake", task])
        return status, out.getvalue(), err.getvalue()

    def _pair(self, was: str, now: str) -> None:
        """Keep which drawn id stands for which recorded one: later tasks name them."""
        if len(_UUID.findall(was)) == len(_UUID.findall(now)) == 1:
            self.drawn[_UUID.findall(was)[0]] = _UUID.findall(now)[0]


def _comparable(text: str) -> list[str]:
    """Return the entries of a text, sorted, without what differs from run to run, and no backtrace."""
    if text.startswith("rake aborted!"):
        text = "".join(text.splitlines(keepends=True)[:2]).rstrip("\n") + "\n"
    text = _UUID.sub(lambda found: found[0] if found[0] in {T1, T2} else "drawn", _DEPRECATED.sub("", text))
    text = text.replace(f'for "{_NOBODY}" port', 'for "127.0.0.1" port')
    text = re.sub("(notFound|checksumError): .*", r"\1", text)  # the servers' own words
    return sorted(part.strip("\n") for part in _ENTRY.split(text))


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _standard_input(text: str) -> Iterator[None]:
    before, sys.stdin = sys.stdin, io.StringIO(text)
    try:
        yield
    finally:
        sys.stdin = before


@contextmanager
def replaying(conninfo: str, servers: list[RunningServer]) -> Iterator[RakeReplay]:
    """Replay on a database; logs are as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with _set({"DATABASE_URL": conninfo, "SCALELITE_ACTOR": "replay"}):
        os.environ.pop("LOG_LEVEL", None)
        yield RakeReplay(conninfo, servers)
    root.handlers[:] = handlers
    root.setLevel(level)


def _both(*steps: Callable[[RakeReplay], None]) -> Callable[[RakeReplay], None]:
    def do(replay: RakeReplay) -> None:
        for step in steps:
            step(replay)

    return do


def _failing(server: str, mode: Mode, *calls: str, **how: Any) -> Callable[[RakeReplay], None]:
    return lambda replay: replay.fails(server, mode, *calls, **how)


def _states_of_16_094(replay: RakeReplay) -> None:
    replay.sql("UPDATE server SET tag = 'gpu' WHERE id = 'bbb1'")
    replay.sql("UPDATE server SET state = 'cordoned' WHERE id = 'bbb2'")
    replay.sql("UPDATE server SET state = 'disabled', load_multiplier = 2.5 WHERE id = 'bbb3'")
    replay.load(bbb2=3)
    replay.offline("bbb3")


def _loads_of_18_023(replay: RakeReplay) -> None:
    replay.reset()
    replay.runs("old", "bbb1", 4, 2)
    replay.runs("old2", "bbb1", 20)
    replay.runs("new", "bbb2", 1)
    replay.runs("brk", "bbb3", 9)
    replay.runs("new0", "bbb3")
    for server, meeting in (("bbb2", "new"), ("bbb3", "new0")):
        replay.servers[server].meetings[meeting].created_ms = time.time_ns() // 1_000_000
    replay.sql("UPDATE server SET load_multiplier = 2.5 WHERE id = 'bbb3'")


def _three_of_18_028(replay: RakeReplay) -> None:
    replay.reset()
    for place in range(3):
        replay.known(f"m{place}", "bbb1")
    replay.runs("m0", "bbb1")


def _two_of_18_005(replay: RakeReplay) -> None:
    replay.reset()
    for place in range(2):
        replay.known(f"m{place}", "bbb2")
        replay.runs(f"m{place}", "bbb2")
    replay.fails("bbb2", "status", "getMeetings", status=500)


def _cordoned_of_18_021(replay: RakeReplay) -> None:
    replay.reset(states={"bbb1": "cordoned", "bbb2": "cordoned", "bbb3": "disabled"})
    replay.runs("c1", "bbb1", 3)


def _reset(**how: Any) -> Callable[[RakeReplay], None]:
    return lambda replay: replay.reset(**how)


def _moved(server: str) -> Callable[[RakeReplay], None]:
    url = f"http://{_NOBODY}:8819/bigbluebutton/api"
    return lambda replay: replay.sql("UPDATE server SET url = %s, url_key = %s WHERE id = %s", url, url, server)


_WITH, _GPU, _NAMED = RakeReplay.with_meetings, _reset(tags={"bbb2": "gpu"}), RakeReplay.named_meetings
_500: Final[dict[str, Any]] = {"status": 500}

# What the driver did before a record (golden/driver/a_rake.py).
BEFORE: Final[dict[str, Callable[[RakeReplay], None]]] = {
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
    **{f"17-rake-sync/{number:03d}": RakeReplay.to_sync for number in range(13, 32)},
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
}
