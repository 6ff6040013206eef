"""Recordings: getRecordings over 50,000, imports of small archives, and the memory that a 2 GB archive takes.

`python -m benchmarks.recordings [list] [import] [large]`; client and Postgres (without fsync) share the machine.
The service runs with 2 workers; an import is timed with fsync of its own files.
"""

from __future__ import annotations

import asyncio
import io
import os
import resource
import signal
import statistics
import sys
import tarfile
import tempfile
import time
import urllib.request
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from scalelite.core import wire
from scalelite.core.model import Declared, Key, Kind, Secret, TenantSpec
from scalelite.flows import importer, reconcile
from scalelite.settings import read_settings
from scalelite.sim import Recorded, write_archive
from scalelite.sim.recording import metadata_xml
from scalelite.store.db import connect
from scalelite.store.embedded import embedded
from scalelite.store.specs import Author
from scalelite.wiring import open_services, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalelite.store.db import Connection

RECORDINGS = 50_000
ARCHIVES = 1_000
TENANTS = ("tenant1", "tenant2", "tenant3", "tenant4", "tenant5")
REQUESTS, AT_ONCE = 400, 4
PORT, DOMAIN, SECRET = 3953, "sl.localhost", "tenant1-secret"
CASES = {
    "tenant, page of 100": {"limit": "100"},
    "deep page": {"limit": "100", "offset": "9000"},
    "one meta filter": {"limit": "100", "meta_bbb-context": "course-7"},
    "two meta filters": {"limit": "100", "meta_bbb-context": "course-7,course-8", "meta_gl-listed": "true"},
    "state and meta": {"limit": "100", "state": "unpublished", "meta_gl-listed": "true"},
    "one meeting": {"meetingID": "room-20"},
    "25 record ids": {"recordID": ",".join(f"{number:040x}-1700000000000" for number in range(0, 125, 5))},
}


async def fill(connection: Connection) -> None:
    """Add the tenants, and recordings with 10 metadata, 2 formats and a picture each, spread over them."""
    objects = {
        Key(Kind.TENANT, name): TenantSpec(id=uuid.uuid4(), name=name, secrets=(Secret(SECRET),)) for name in TENANTS
    }
    wanted = Declared(objects, frozenset({"tenants"}))
    planned = await reconcile.plan(connection, wanted, "cordon")
    await reconcile.apply(connection, wanted, planned.plan, Author("benchmark"), uuid.uuid4, lock_timeout_s=5)
    await connection.execute(
        """
        INSERT INTO recording (record_id, tenant, meeting_id, name, state, published, start_ms, end_ms, participants)
        SELECT lpad(to_hex(n), 40, '0') || '-1700000000000', t.id, 'room-' || n %% 2000, 'Lesson ' || n,
               CASE WHEN n %% 7 = 0 THEN 'unpublished' ELSE 'published' END, n %% 7 <> 0,
               1600000000000 + n * 60000::bigint, 1600000000000 + n * 60000::bigint + 3600000, n %% 30
          FROM generate_series(0, %s - 1) n JOIN tenant t ON t.name = 'tenant' || (n %% 5 + 1)
        """,
        (RECORDINGS,),
    )
    for statement in (
        """INSERT INTO recording_metadata (recording, key, value)
           SELECT id, k, CASE k WHEN 'bbb-context' THEN 'course-' || id % 41
                                WHEN 'gl-listed' THEN (id % 3 = 0)::text ELSE k || id END
             FROM recording, unnest('{bbb-context,gl-listed,a,b,c,d,e,f,g,tenant-name}'::text[]) AS k""",
        """INSERT INTO playback_format (recording, format, url, length)
           SELECT id, f, '/' || f || '/' || record_id || '/', 60
             FROM recording, unnest('{presentation,video}'::text[]) f""",
        """INSERT INTO thumbnail (recording, format, place, url, width, height, alt)
           SELECT id, 'presentation', 0, '/presentation/' || record_id || '/thumb-1.png', 176, 136, 'Slide 1'
             FROM recording""",
        "ANALYZE",
    ):
        await connection.execute(statement)


def path_of(params: dict[str, str]) -> str:
    return f"/bigbluebutton/api/getRecordings?{wire.sign('getRecordings', urlencode(params), SECRET, 'SHA256')}"


def timed(params: dict[str, str]) -> tuple[float, int]:
    """Return the milliseconds of one call, and how many recordings came."""
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path_of(params)}", headers={"Host": f"tenant1.{DOMAIN}"})
    began = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        body: bytes = answer.read()
    return (time.perf_counter() - began) * 1000, body.count(b"<recording>")


async def list_case(name: str, params: dict[str, str]) -> None:
    limit = asyncio.Semaphore(AT_ONCE)

    async def one() -> tuple[float, int]:
        async with limit:
            return await asyncio.to_thread(timed, params)

    results = await asyncio.gather(*(one() for _ in range(REQUESTS)))
    times = sorted(ms for ms, _ in results)
    print(
        f"getRecordings, {name:24} {results[0][1]:4} recordings: median {statistics.median(times):6.1f} ms,"
        f" 95th percentile {times[int(len(times) * 0.95)]:6.1f} ms"
    )


async def listing(conninfo: str) -> None:
    """Time getRecordings of the service with 2 workers, 4 calls at a time."""
    async with connect(conninfo, "benchmark") as connection:
        await fill(connection)
    variables = {
        "DATABASE_URL": conninfo, "MULTITENANCY_ENABLED": "true", "URL_HOST": DOMAIN, "LOG_LEVEL": "error",
    }  # fmt: skip
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scalelite", "serve", "--port", str(PORT), "--workers", "2", "--no-poller"),
        env={**os.environ, **variables},
        start_new_session=True,
    )
    try:
        await until_it_answers()
        for name, params in CASES.items():
            await list_case(name, params)
    finally:
        os.killpg(service.pid, signal.SIGTERM)
        await service.wait()


async def until_it_answers() -> None:
    for _ in range(200):
        try:
            await asyncio.to_thread(timed, {"limit": "1"})
        except OSError:
            await asyncio.sleep(0.1)
        else:
            return


def environment(folder: Path) -> dict[str, str]:
    names = {"SPOOL": "spool", "WORK": "work", "PUBLISH": "published", "UNPUBLISH": "unpublished"}
    return {f"RECORDING_{name}_DIR": str(folder / sub) for name, sub in names.items()} | {"LOG_LEVEL": "error"}


def small(number: int) -> Recorded:
    start_ms = 1_700_000_000_000 + number * 1000
    return Recorded(f"{number:040x}-{start_ms}", f"room-{number}", f"Room {number}", start_ms, start_ms + 60_000)


async def importing(conninfo: str, folder: Path) -> None:
    """Time imports by one importer."""
    for number in range(ARCHIVES):
        write_archive(small(number), folder / "spool", ("presentation",))
    async with open_services(read_settings(environment(folder)), conninfo, name="benchmark") as services:
        began = time.perf_counter()
        outcomes = await importer.import_waiting(services, settled_s=-60)
        took_s = time.perf_counter() - began
    imported = sum(bool(outcome.imported) for outcome in outcomes)
    print(f"imports: {imported} archives in {took_s:.1f} s: {imported / took_s:.0f} a second")


class Zeros(io.RawIOBase):
    """A film that takes no room."""

    def read(self, size: int = -1) -> bytes:
        return bytes(max(size, 0))


async def large(conninfo: str, folder: Path) -> None:
    """Import an archive of 2 GB, and say by how much the most memory that was held grew."""
    what = small(ARCHIVES)
    (folder / "spool").mkdir(exist_ok=True)
    with tarfile.open(folder / "spool" / "large.tar", "w") as tar:
        for name, size, content in members(what):
            member = tarfile.TarInfo(f"video/{what.record_id}/{name}")
            member.size = size
            tar.addfile(member, content)
    async with open_services(read_settings(environment(folder)), conninfo, name="benchmark") as services:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        (outcome,) = await importer.import_waiting(services, settled_s=-60)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    took_s = time.perf_counter() - began
    print(f"2 GB archive: {outcome.imported or outcome}, {took_s:.1f} s, {grown / 1024:.1f} MB more memory at most")


def members(what: Recorded) -> Iterator[tuple[str, int, io.IOBase]]:
    xml = metadata_xml(what, "video")
    yield "metadata.xml", len(xml), io.BytesIO(xml)
    yield "video-0.m4v", 2 << 30, Zeros()


def main() -> None:
    wanted = set(sys.argv[1:]) or {"list", "import", "large"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        conninfo = stack.enter_context(embedded(folder / "home", linger_s=0.5, fsync=False))
        asyncio.run(prepare(conninfo))
        if "list" in wanted:
            asyncio.run(listing(conninfo))
        if "import" in wanted:
            asyncio.run(importing(conninfo, folder))
        if "large" in wanted:
            asyncio.run(large(conninfo, folder))


if __name__ == "__main__":
    main()
