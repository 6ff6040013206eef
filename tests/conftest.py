"""Fixtures that every folder uses: a real Postgres, and a database of its own for each test.

Programs that pip cannot bring: a test that needs one says so (`needs`), and is left out, counted in the last line,
where it is missing; with SCALELITE_TESTS=full a missing one is an error.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from scalelite.store.db import connect
from scalelite.store.embedded import embedded
from scalelite.wiring import prepare
from tests.statements import report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from scalelite.store.db import Connection

# A command rather than a program: not everybody may give it.
TMPFS: Final = "mount -t tmpfs"
FULL: Final = os.environ.get("SCALELITE_TESTS") == "full"
_left_out: Counter[str] = Counter()
_numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--statements", action="store_true", help="list what tests show and requirements that none shows")


def pytest_configure() -> None:
    """A shell starts background jobs with SIGINT ignored; what the tests start would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        missing = [name for mark in item.iter_markers("needs") for name in mark.args if not _is_there(name)]
        if item.get_closest_marker("beside") and not FULL:
            missing = ["ten minutes"]
        (dropped if missing else kept).append(item)
        _left_out.update(missing[:1])
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)
    if config.getoption("--statements"):
        print(report(items))  # noqa: T201
        items.clear()


def _is_there(program: str) -> bool:
    if program == TMPFS:
        return _may_mount()
    return Path(program).exists() if "/" in program else shutil.which(program) is not None


@cache
def _may_mount() -> bool:
    """Whether a file system can be mounted: by root, outside of most containers."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*TMPFS.split(), "tmpfs", folder], stderr=subprocess.DEVNULL, check=False)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist tells what it left out; in the full level nothing may be."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["left_out"] = dict(_left_out)
    elif FULL and _left_out:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """All workers leave out the same: each has the whole list, and runs a part of it."""
    _left_out.update(Counter(getattr(node, "workeroutput", {}).get("left_out", {})) - _left_out)


def pytest_unconfigure() -> None:
    """The very last line says what was left out."""
    if _left_out:
        parts = ", ".join(f"{count} for want of {name}" for name, count in sorted(_left_out.items()))
        verdict = "; SCALELITE_TESTS=full allows none" if FULL else ""
        print(f"left out {sum(_left_out.values())} tests: {parts}{verdict}")  # noqa: T201


@pytest.fixture(scope="session")
def postgres_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tests' Postgres, with its log."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def postgres(postgres_home: Path) -> Iterator[str]:
    """A URL of a real Postgres without fsync, with the database `template` migrated."""
    with embedded(postgres_home, linger_s=0.5, fsync=False) as conninfo:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute("CREATE DATABASE template")
        asyncio.run(prepare(make_conninfo(conninfo, dbname="template")))
        yield conninfo


@contextmanager
def fresh_database(postgres: str) -> Iterator[str]:
    """A URL of a migrated, empty database, dropped in the end."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template")
        yield make_conninfo(postgres, dbname=name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """A URL of a migrated, empty database of this test's own."""
    with fresh_database(postgres) as conninfo:
        yield conninfo


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    """A connection to this test's database."""
    async with connect(database, "tests") as connection:
        yield connection


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of an S3 server that checks signatures' form and keeps objects in memory."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
