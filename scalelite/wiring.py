"""Opens what flows need from settings, and closes it again; the only place where the clock and chance come in."""

from __future__ import annotations

import asyncio
import random
import resource
import time
import uuid
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scalelite.core.model import Secret
from scalelite.errors import UsageError
from scalelite.flows.services import Services
from scalelite.store.db import Database, connect, is_ready, migrate, refuse_malformed
from scalelite.store.embedded import embedded
from scalelite.store.seal import Sealer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from scalelite.edge.disk import Disk
    from scalelite.edge.folders import Storage
    from scalelite.settings import Settings

LONGEST_CALL_S: Final = 9.0
_MOST_FILES: Final = 65_536
LOCAL_HOME: Final = Path(".scalelite")


@contextmanager
def open_database(settings: Settings, *, create_home: Path | None = None) -> Iterator[str]:
    """Yield a URL of Postgres, migrated: DATABASE_URL's, else the embedded one where it was asked for.

    Embedded only with SCALELITE_HOME or in a folder that has `.scalelite/` (or in `create_home`): a job that runs in
    the wrong folder must not make an empty cluster. Raises UsageError, EmbeddedPostgresError, DatabaseAway.
    """
    if settings.database_url:
        refuse_malformed(settings.database_url)
        _prepare(settings, settings.database_url)
        yield settings.database_url
        return
    home = create_home or settings.home or (LOCAL_HOME if LOCAL_HOME.is_dir() else None)
    if home is None:
        raise UsageError(
            "no database is configured",
            hint="set DATABASE_URL, or SCALELITE_HOME for an embedded Postgres, or run scalelite db init here",
        )
    with embedded(home) as conninfo:
        _prepare(settings, conninfo)
        yield conninfo


def _prepare(settings: Settings, conninfo: str) -> None:
    if settings.auto_migrate:
        asyncio.run(prepare(conninfo))


async def prepare(conninfo: str) -> tuple[str, ...]:
    """Migrate the database and make the cluster's row; returns the names of the migrations that ran."""
    async with connect(conninfo, "scalelite prepare") as connection:
        if await is_ready(connection):
            return ()
    from scalelite.flows.reconcile import prepare_cluster  # noqa: PLC0415 - 0.05 s to import

    done = await migrate(conninfo)
    async with connect(conninfo, "scalelite prepare") as connection:
        await prepare_cluster(connection)
    return done


def allow_connections() -> None:
    """Take as many open files as the system grants: a poll of 1,000 servers that hang has a connection to each."""
    granted, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if most == resource.RLIM_INFINITY else min(most, _MOST_FILES)
    if resource.RLIM_INFINITY != granted < wanted:
        with suppress(OSError, ValueError):  # where the system has a limit that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


@asynccontextmanager
async def open_services(
    settings: Settings, conninfo: str, *, name: str, disk: Disk | None = None
) -> AsyncIterator[Services]:
    """Open the pool and the HTTP clients; `name` shows in pg_stat_activity and as the holder of locks."""
    from scalelite.edge.bbb import BbbClient, Timeouts  # noqa: PLC0415 - 0.2 s to import, and most commands need none
    from scalelite.edge.disk import Disk  # noqa: PLC0415
    from scalelite.edge.outbound import Outbound  # noqa: PLC0415

    allow_connections()
    disk = disk or Disk()
    database = Database(conninfo, name=name, sealer=Sealer(settings.encryption_keys))
    total_s = min(settings.connect_timeout_s + settings.response_timeout_s, LONGEST_CALL_S)
    async with AsyncExitStack() as stack:
        bbb = await stack.enter_async_context(BbbClient(Timeouts(settings.connect_timeout_s, total_s)))
        outbound = Outbound(allow_private=settings.callback_allow_private)
        await database.open()
        try:
            yield Services(
                settings=settings,
                database=database,
                bbb=bbb,
                outbound=outbound,
                now_ms=lambda: time.time_ns() // 1_000_000,
                new_id=uuid.uuid4,
                random=random.SystemRandom(),
                disk=disk,
                recordings=await _storage(settings, disk, stack),
            )
        finally:
            await outbound.close()
            await database.close()


async def _storage(settings: Settings, disk: Disk, stack: AsyncExitStack) -> Storage:
    """Return where the files of recordings are; raises UsageError."""
    from scalelite.edge.folders import Folders  # noqa: PLC0415
    from scalelite.edge.objects import Objects, open_session  # noqa: PLC0415
    from scalelite.edge.signature import Credentials  # noqa: PLC0415

    if not settings.s3_recording:
        return Folders(settings.recording_publish_dir, settings.recording_unpublish_dir, disk)
    if not (settings.s3_bucket and settings.aws_access_key_id and settings.aws_secret_access_key):
        raise UsageError(
            "S3_RECORDING is true, and the bucket or the key is not named",
            hint="set S3_BUCKET_NAME, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    credentials = Credentials(
        settings.aws_access_key_id,
        Secret(settings.aws_secret_access_key),
        settings.aws_region,
        Secret(settings.aws_session_token),
    )
    endpoint = settings.aws_endpoint or f"https://s3.{settings.aws_region}.amazonaws.com"
    session = await stack.enter_async_context(open_session())
    return Objects(session, endpoint, settings.s3_bucket, credentials, lambda: datetime.now(UTC))
