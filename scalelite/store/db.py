"""Connections to Postgres, locks and migrations; translates its errors and knows no table but its own.

Everything above gets a connection in autocommit mode: one statement is one round trip, and `transaction()` says
where there are more. Errors of Postgres carry values of rows, which may be secrets: only their first line goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row
from psycopg.waiting import wait_async
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from scalelite.errors import DatabaseAway, LockTimeout, ScaleliteError, UsageError
from scalelite.store.seal import UNSEALED, Sealer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import LiteralString, TypeVar

    from psycopg.abc import PQGen

    RV = TypeVar("RV")


class Connection(psycopg.AsyncConnection[dict[str, Any]]):
    """A connection, with what opens and seals the secrets that are read and written on it."""

    sealer: Sealer = UNSEALED

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:  # noqa: ASYNC109
        """Wait for Postgres; whoever stops waiting drops the connection.

        psycopg would ask Postgres to cancel and wait for that, too: 10 s more, where it is frozen (findings.md).
        """
        try:
            return await wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout)
        except asyncio.CancelledError:
            self.pgconn.finish()
            raise


APPLY_LOCK: Final = (5341, 2)
_MIGRATION_LOCK: Final = (5341, 3)
_OLDEST_POSTGRES: Final = 150000
_MIGRATION_WAIT_S: Final = 60.0
_CONNECT_S: Final = 4
# The pool waits twice as long after each failure; given up so soon, the next one who needs a connection begins anew.
_RECONNECT_S: Final = 2.0


class Database:
    """A pool of connections; closed by its owner."""

    def __init__(
        self, conninfo: str, *, name: str, pool_size: int = 8, timeout_s: float = 4.5, sealer: Sealer = UNSEALED
    ) -> None:
        """`name` is shown in pg_stat_activity; `timeout_s` bounds each use of a connection by a request."""
        self.conninfo = conninfo
        self.name = name
        self.sealer = sealer
        self.timeout_s = timeout_s
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            conninfo,
            connection_class=Connection,
            configure=self._configure,
            kwargs=_connecting(name),
            min_size=1,
            max_size=pool_size,
            timeout=timeout_s,
            reconnect_timeout=_RECONNECT_S,
            check=AsyncConnectionPool.check_connection,
            open=False,
        )

    async def _configure(self, connection: Connection) -> None:
        connection.sealer = self.sealer

    async def open(self) -> None:
        """Begin to connect; while Postgres is away, `use` raises DatabaseAway, and the pool goes on trying."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close(timeout=2)

    @asynccontextmanager
    async def use(self, timeout_s: float | None = None) -> AsyncIterator[Connection]:
        """Lend a connection for a bounded time (seconds); raises DatabaseAway past it, or when Postgres is away."""
        async with translated(), asyncio.timeout(timeout_s or self.timeout_s), self._pool.connection() as connection:
            yield connection

    @asynccontextmanager
    async def dedicated(self) -> AsyncIterator[Connection]:
        """Open a connection of its own, for long work and for listening."""
        async with connect(self.conninfo, self.name, self.sealer) as connection:
            yield connection


@asynccontextmanager
async def connect(conninfo: str, name: str, sealer: Sealer = UNSEALED) -> AsyncIterator[Connection]:
    """Open one connection outside any pool."""
    async with translated():
        connection = await Connection.connect(conninfo, **_connecting(name))
        connection.sealer = sealer
    try:
        async with translated():
            yield connection
    finally:
        await connection.close()


def _connecting(name: str) -> dict[str, Any]:
    """How a connection is made: one to a Postgres that does not answer is given up."""
    return {"autocommit": True, "row_factory": dict_row, "application_name": name, "connect_timeout": _CONNECT_S}


def refuse_malformed(conninfo: str, name: str = "DATABASE_URL") -> None:
    """Raise UsageError, which does not hold it as psycopg's error does, for what is no address of a database."""
    try:
        conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        message = f"{name} is no address of a Postgres database"
        raise UsageError(message, hint="such as postgresql://user:password@host:5432/database") from None


def conninfo_of(connection: Connection) -> str:
    """Return what another connection to the same database is opened with; it holds the password."""
    return make_conninfo(connection.info.dsn, password=connection.info.password or None)


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turn errors of Postgres into ours; `from None`, since theirs may hold values of rows."""
    try:
        yield
    except (PoolTimeout, TimeoutError):
        raise DatabaseAway("Postgres did not answer in time") from None
    except psycopg.OperationalError as error:
        if isinstance(error, pg.LockNotAvailable):
            raise
        raise DatabaseAway(f"Postgres is away: {first_line(error)}", hint="check DATABASE_URL and the server") from None
    except pg.IdleInTransactionSessionTimeout:  # this process was stopped for a while, or Postgres's clock has stepped
        raise DatabaseAway("Postgres has closed a connection that waited for us") from None
    except pg.ReadOnlySqlTransaction:
        raise DatabaseAway("this Postgres takes no writes now", hint="it may be a standby; see DATABASE_URL") from None
    except pg.UndefinedTable:
        raise DatabaseAway("the database has no tables yet", hint="scalelite db migrate") from None
    except pg.InsufficientPrivilege as error:
        raise DatabaseAway(first_line(error), hint="the role of DATABASE_URL needs rights on the tables") from None


def first_line(error: psycopg.Error) -> str:
    """Return what Postgres says without the details, which may hold values, and without a password in a URL."""
    text = error.diag.message_primary or str(error).partition("\n")[0]
    return re.sub(r"password=\S+|://[^@\s]*@", "…", text)


@asynccontextmanager
async def snapshot(connection: Connection) -> AsyncIterator[None]:
    """Open a transaction that reads the database as of one moment and takes no lock."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


@asynccontextmanager
async def apply_lock(
    connection: Connection, timeout_s: float, tell: Callable[[str], None] = lambda _: None
) -> AsyncIterator[None]:
    """Open the one transaction that may write declared state; raises LockTimeout naming the holder.

    `tell` is called with the holder when there is one to wait for.
    """
    try:
        async with connection.transaction():
            wait = f"{max(1, round(timeout_s * 1000))}ms"
            cursor = await connection.execute("SELECT pg_try_advisory_xact_lock(%s, %s) AS had", APPLY_LOCK)
            if not (await cursor.fetchone() or {})["had"]:
                tell(await _lock_holder(connection))
                await connection.execute("SELECT set_config('lock_timeout', %s, true)", (wait,))
                await connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", APPLY_LOCK)
                await connection.execute("SELECT set_config('lock_timeout', '0', true)")
            yield
    except pg.LockNotAvailable:
        raise LockTimeout(timeout_s, await _lock_holder(connection)) from None


async def _lock_holder(connection: Connection) -> str:
    cursor = await connection.execute(
        """
        SELECT a.application_name, a.pid, a.xact_start
          FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid = %s AND l.granted
        """,
        APPLY_LOCK,
    )
    row = await cursor.fetchone()
    return (
        f"{row['application_name']} since {row['xact_start']:%H:%M:%S}" if row else "somebody who has just let go of it"
    )


# --- migrations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file; `number` is its order."""

    number: int
    name: str
    sql: LiteralString
    sha256: str


def shipped_migrations() -> tuple[Migration, ...]:
    """Return the migrations of this version, in order."""
    folder = resources.files("scalelite.store") / "migrations"
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".sql"):
            sql: Any = entry.read_text(encoding="utf-8")
            found.append(Migration(int(entry.name[:4]), entry.name, sql, hashlib.sha256(sql.encode()).hexdigest()))
    return tuple(found)


async def migrate(conninfo: str) -> tuple[str, ...]:
    """Bring the schema to this version's; returns the names of what was done. Safe to run from many places at once."""
    async with connect(conninfo, "scalelite migrate") as connection:
        if connection.info.server_version < _OLDEST_POSTGRES:
            raise DatabaseAway(
                "Postgres 15 or later is needed", hint=f"this one is {connection.info.server_version // 10000}"
            )
        await _hold_migration_lock(connection)
        return await _migrate(connection)


async def _hold_migration_lock(connection: Connection) -> None:
    """Take the lock by trying: the blocking form deadlocks with CREATE INDEX CONCURRENTLY of the one who has it."""
    async with asyncio.timeout(_MIGRATION_WAIT_S):
        while True:
            cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, %s) AS had", _MIGRATION_LOCK)
            if (await cursor.fetchone() or {})["had"]:
                return
            await asyncio.sleep(0.1)


async def _migrate(connection: Connection) -> tuple[str, ...]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS migration (number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,"
        " at timestamptz NOT NULL DEFAULT now())"
    )
    done = await _done(connection)
    wanted = shipped_migrations()
    if newer := sorted(set(done) - {migration.number for migration in wanted}):
        raise ScaleliteError(
            f"the database is of a newer version (migration {newer[-1]})",
            hint="use the program that migrated it, or a newer one",
        )
    applied = []
    for migration in wanted:
        if migration.number not in done:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO migration (number, name, sha256) VALUES (%s, %s, %s)",
                    (migration.number, migration.name, migration.sha256),
                )
            applied.append(migration.name)
        elif done[migration.number] != migration.sha256:
            raise ScaleliteError(
                f"migration {migration.name} was changed after it ran", hint="restore the file as it was released"
            )
    return tuple(applied)


async def _done(connection: Connection) -> dict[int, str]:
    cursor = await connection.execute("SELECT number, sha256 FROM migration")
    return {row["number"]: row["sha256"] for row in await cursor.fetchall()}


async def is_ready(connection: Connection) -> bool:
    """Say whether nothing is left to migrate and the cluster's row is there; reads alone, so that a reader may ask."""
    cursor = await connection.execute("SELECT to_regclass('migration') IS NOT NULL AS there")
    if not (await cursor.fetchone() or {})["there"]:
        return False
    done = await _done(connection)
    if done != {migration.number: migration.sha256 for migration in shipped_migrations()}:
        return False
    cursor = await connection.execute("SELECT EXISTS (SELECT FROM cluster) AS there")
    return bool((await cursor.fetchone() or {})["there"])


async def pending_migrations(connection: Connection) -> tuple[str, ...]:
    """Return the names of the migrations that this version has and the database lacks."""
    cursor = await connection.execute("SELECT to_regclass('migration') IS NOT NULL AS there")
    done = await _done(connection) if (await cursor.fetchone() or {})["there"] else {}
    return tuple(migration.name for migration in shipped_migrations() if migration.number not in done)
