"""Real applies that are struck at a chosen statement: a proxy before Postgres that counts, and processes to kill."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from multiprocessing.context import ForkServerProcess

# Types of the messages that end what a client sends as one: Query, Sync, Terminate.
_ENDS: Final = b"QSX"
_PROCESSES: Final = multiprocessing.get_context("forkserver")
# What apply imports late: each process would take half a second for it.
_PROCESSES.set_forkserver_preload(
    [
        "scalelite.cli.config",
        "scalelite.flows.force",
        "scalelite.inventory.checkout",
        "scalelite.inventory.load",
        "scalelite.inventory.policies",
        "scalelite.wiring",
    ]
)


def start_apply(folder: Path, database: str, inventory: str, *options: str) -> ForkServerProcess:
    """Start `scalelite apply` in a process of its own, which says what it has to say in a file beside the inventory."""
    process = _PROCESSES.Process(target=_apply, args=(folder, database, inventory, *options))
    process.start()
    return process


def _apply(folder: Path, database: str, inventory: str, *options: str) -> None:
    from scalelite.cli import run

    os.environ |= {"DATABASE_URL": database, "SCALELITE_ACTOR": inventory, "AUTO_MIGRATE": "false"}
    said = os.open(folder / f"{inventory}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(said, descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    status = run(["apply", str(folder / inventory), "-y", *options])
    sys.stdout.flush()
    os._exit(status)


class Proxy:
    """Passes on what a client and Postgres say, and strikes at the n-th request of the client."""

    def __init__(self, database: str, folder: str) -> None:
        self.count = 0
        self.strike_at = 0
        self.before = False
        self.strike: Callable[[], None] = lambda: None
        self.url = make_conninfo(database, host=folder)
        parts = conninfo_to_dict(database)
        self._postgres = Path(str(parts["host"]), f".s.PGSQL.{parts.get('port') or 5432}")

    def arm(self, strike_at: int, strike: Callable[[], None], *, before: bool) -> None:
        """Strike at this request of the next client: before Postgres gets it, or as soon as it has it."""
        self.count, self.strike_at, self.strike, self.before = 0, strike_at, strike, before

    async def serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            postgres, requests = await asyncio.open_unix_connection(self._postgres)
            back = asyncio.create_task(_pass_back(postgres, answer))
            try:
                await self._pass_on(client, requests)
            finally:
                requests.close()
                await back
        answer.close()

    async def _pass_on(self, client: asyncio.StreamReader, requests: asyncio.StreamWriter) -> None:
        head = await client.readexactly(4)  # the first message has no type
        requests.write(head + await client.readexactly(int.from_bytes(head) - 4))
        gathered = b""
        while True:
            head = await client.readexactly(5)
            gathered += head + await client.readexactly(int.from_bytes(head[1:]) - 4)
            if head[:1] not in _ENDS:
                await requests.drain()
                continue
            self.count += 1
            if self.count == self.strike_at and self.before:
                return self.strike()
            requests.write(gathered)
            await requests.drain()
            gathered = b""
            if self.count == self.strike_at:
                return self.strike()


async def _pass_back(postgres: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await postgres.read(65536):
            answer.write(data)
            await answer.drain()
        answer.close()


@asynccontextmanager
async def proxy_of(database: str) -> AsyncIterator[Proxy]:
    """A proxy before the Postgres of a URL, on a socket in a folder of its own."""
    with TemporaryDirectory(prefix="proxy-") as folder:
        proxy = Proxy(database, folder)
        port = conninfo_to_dict(database).get("port") or 5432
        server = await asyncio.start_unix_server(proxy.serve, Path(folder, f".s.PGSQL.{port}"))
        try:
            yield proxy
        finally:
            server.close()
