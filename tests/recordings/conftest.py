"""Folders, a database, and what an importer has open; disks that fail at the step that a test says."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from scalelite.core.listing import Filter
from scalelite.edge.disk import Disk
from scalelite.flows import importer
from scalelite.settings import read_settings
from scalelite.sim import Recorded, write_archive
from scalelite.store import recordings as store
from scalelite.wiring import open_services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from scalelite.core.recording import Recording
    from scalelite.flows.importer import Outcome
    from scalelite.flows.services import Services

MANY_STEPS = 200
STEPS = ("make_folder", "create", "write", "finish", "rename", "exchange", "remove", "remove_tree")
ALL_STATES = Filter(states=None)


class FaultyDisk(Disk):
    """A disk on which something happens before the n-th change; `step` counts them."""

    def __init__(self, at: int, happens: Callable[[], None], counted: Sequence[str] = STEPS) -> None:
        self.at = at
        self.happens = happens
        self.counted = counted
        self.step = 0

    def wait_for(self, at: int) -> None:
        """Begin to count anew."""
        self.at, self.step = at, 0

    @property
    def was_reached(self) -> bool:
        return self.step > self.at

    def count(self, name: str) -> None:
        self.step += name in self.counted
        if name in self.counted and self.step == self.at + 1:
            self.happens()


def _counted(name: str) -> Any:
    def call(self: FaultyDisk, *arguments: Any) -> Any:
        self.count(name)
        return getattr(Disk, name)(self, *arguments)

    return call


for _name in STEPS:
    setattr(FaultyDisk, _name, _counted(_name))


def fails(code: int) -> Callable[[], None]:
    """Something that happens: the system call says no."""

    def happens() -> None:
        raise OSError(code, os.strerror(code))

    return happens


def recorded(number: int = 1, **changes: Any) -> Recorded:
    """A recorded meeting; its start, and with it its id, follow from the number."""
    start_ms = 1_700_000_000_000 + number * 100_000
    plain = {
        "record_id": f"{number:040x}-{start_ms}",
        "meeting_id": f"room-{number}",
        "name": f"Room {number}",
        "start_ms": start_ms,
        "end_ms": start_ms + 120_000,
        "metadata": {"bbb-context": "Math", "gl-listed": "false"},
    }
    return Recorded(**{**plain, **changes})


@dataclass
class Desk:
    """A spool with its folders, and importers over it."""

    folder: Path
    conninfo: str
    stack: AsyncExitStack
    services: Services

    def environment(self) -> dict[str, str]:
        return environment(self.folder)

    async def open(self, disk: Disk | None = None, conninfo: str = "", **variables: str) -> Services:
        settings = read_settings({**self.environment(), **variables})
        opened = open_services(settings, conninfo or self.conninfo, name="tests importer", disk=disk)
        return await self.stack.enter_async_context(opened)

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    def send(self, what: Recorded, formats: Sequence[str] = ("presentation",), **how: Any) -> Path:
        """Put an archive into the spool."""
        return write_archive(what, self.spool, formats, **how)

    async def run(self, services: Services | None = None) -> list[Outcome]:
        """One round of an importer."""
        return await importer.import_waiting(services or self.services, settled_s=-60)

    def cut_importers(self) -> None:
        """End the connections to Postgres of the importers that `open` gave."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'tests importer'"
            )

    async def listed(self, wanted: Filter = ALL_STATES) -> list[Recording]:
        async with self.services.database.use() as connection:
            return (await store.find_recordings(connection, None, wanted))[0]

    def files(self, root: str = "") -> list[str]:
        """Files below the folder, without locks."""
        base = self.folder / root
        return sorted(
            str(path.relative_to(base)) for path in base.rglob("*") if path.is_file() and path.name != ".lock"
        )

    async def problems(self) -> list[str]:
        """What must never be: something listed whose files are not where they belong, or not whole."""
        found = []
        for recording in await self.listed(Filter()):
            roots = ("published",) if recording.published else ("published", "unpublished")
            for playback in recording.formats:
                folders = [self.folder / root / playback.format / recording.record_id for root in roots]
                if not any((folder / "metadata.xml").is_file() for folder in folders):
                    found.append(f"{recording.record_id} {playback.format} is listed, but not in {' or '.join(roots)}")
        return found


def environment(folder: Path) -> dict[str, str]:
    return {
        "LOG_LEVEL": "error",
        "RECORDING_SPOOL_DIR": str(folder / "spool"),
        "RECORDING_WORK_DIR": str(folder / "work"),
        "RECORDING_PUBLISH_DIR": str(folder / "published"),
        "RECORDING_UNPUBLISH_DIR": str(folder / "unpublished"),
    }


@pytest.fixture
async def desk(database: str, tmp_path: Path) -> AsyncIterator[Desk]:
    (tmp_path / "spool").mkdir()
    async with AsyncExitStack() as stack:
        settings = read_settings(environment(tmp_path))
        services = await stack.enter_async_context(open_services(settings, database, name="tests"))
        yield Desk(tmp_path, database, stack, services)
