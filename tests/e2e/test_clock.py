"""The clock steps: that of the service's machine, that of Postgres's, and that of both; libfaketime does it for real.

The monotonic clock goes on, as a machine's does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from scalelite.core.model import Secret
from scalelite.sim import simulate
from scalelite.store.db import connect
from scalelite.store.embedded import Cluster as EmbeddedCluster
from scalelite.store.embedded import State, embedded
from scalelite.wiring import prepare
from tests.e2e.replicas import replica
from tests.e2e.test_faults import creates, goes_on_polling
from tests.web.conftest import DOMAIN, Cluster, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.e2e.replicas import Replica

FAKETIME: Final = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
STEPS: Final = ("+1y", "-1h", "+0")


class Clock:
    """The clock of some processes; they have its `environment`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / name
        self.step("+0")
        self.environment = {
            "LD_PRELOAD": FAKETIME,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, offset: str) -> None:
        """Be so much ahead of, or behind, the machine's; at once, so that nobody reads half a file."""
        written = self._file.with_suffix(".new")
        written.write_text(offset)
        written.chmod(0o644)
        written.rename(self._file)


@pytest.mark.needs(FAKETIME)
@pytest.mark.shows("operations: the clock stepping", "PO-16", "data: lease")
async def test_steps_of_the_clock_take_no_meeting_away_and_stop_nobody(tmp_path: Path) -> None:
    with shared_folder() as folder:
        ours, postgres = Clock(folder, "ours"), Clock(folder, "postgres")
        home = EmbeddedCluster.at(tmp_path / "home")
        with embedded(home.home, linger_s=1) as conninfo:
            await prepare(conninfo)
            async with with_clock(home, postgres), connect(conninfo, "tests") as connection, simulate(2) as servers:
                cluster = Cluster(conninfo, connection, stack=None, servers=servers)  # type: ignore[arg-type]
                await steps(cluster, ours, postgres)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder that Postgres's user reads, too."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


async def steps(cluster: Cluster, ours: Clock, postgres: Clock) -> None:
    for place in range(2):
        cluster.server(place)
    cluster.tenant("tenant1", secrets=(Secret("tenant1-secret"),))
    settings = {"POLL_INTERVAL": "0.3", "MULTITENANCY_ENABLED": "true", "URL_HOST": DOMAIN}
    cluster.environment = settings | ours.environment
    await cluster.apply()
    async with replica(cluster) as each:
        await eventually(lambda: creates(each.service, "room"), 20)
        rooms = {"room"}
        for clocks in ((ours,), (postgres,), (ours, postgres)):
            for offset in STEPS:
                for clock in clocks:
                    clock.step(offset)
                rooms.add(f"room-{len(rooms)}")
                assert await creates(each.service, f"room-{len(rooms) - 1}")
                await nothing_is_lost(cluster, each, rooms)
        postgres.step("-1h")
        for victim in await each.below():
            os.kill(victim, signal.SIGKILL)
        await nothing_is_lost(cluster, each, rooms)


async def nothing_is_lost(cluster: Cluster, each: Replica, rooms: set[str]) -> None:
    """Two rounds go by, which find what they found before."""
    for _ in range(2):
        await goes_on_polling(cluster, each)
    assert {row[0] for row in await cluster.meetings()} == rooms
    assert {row.health for row in (await cluster.rows()).values()} == {"online"}
    answers = await asyncio.gather(*(each.service.join(room) for room in rooms))
    assert all(answer.location for answer in answers)
    assert sum(row.meetings for row in (await cluster.rows()).values()) == len(rooms)


def started_as(pid: int) -> tuple[list[str], tuple[int, int]]:
    """Return a process's arguments, and its user and group."""
    process = Path(f"/proc/{pid}")
    found = process.stat()
    return (process / "cmdline").read_bytes().decode().split("\0")[:-1], (found.st_uid, found.st_gid)


@asynccontextmanager
async def with_clock(home: EmbeddedCluster, clock: Clock) -> AsyncIterator[None]:
    """Have the Postgres of a home started anew with a clock that steps."""
    postmaster = home.postmaster()
    assert postmaster
    command, owner = started_as(postmaster)
    os.kill(postmaster, signal.SIGINT)

    async def gone() -> bool:
        return home.state() is State.GONE

    await eventually(gone, 20)
    data = os.open(home.data, os.O_RDONLY | os.O_DIRECTORY)
    server = subprocess.Popen(  # noqa: ASYNC220 - started in no time
        [*command, "-D", f"/proc/self/fd/{data}"],
        pass_fds=(data,),
        user=owner[0],
        group=owner[1],
        extra_groups=[] if os.geteuid() == 0 else None,
        env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **clock.environment},
        cwd="/",
        umask=0o077,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(data)

    async def runs() -> bool:
        return home.state() is State.READY

    try:
        await eventually(runs, 20)
        yield
    finally:
        server.send_signal(signal.SIGINT)
        await asyncio.to_thread(server.wait, 20)
