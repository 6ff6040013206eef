"""`scalelite` in this process, on a database and in a folder of the test's own."""

from __future__ import annotations

import io
import json
import logging
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from scalelite import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CANARY = "canary-0123456789abcdef"


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Here:
    """Runs commands; no secret may be in what they print or write."""

    def __init__(self, folder: Path, database: str, environ: Callable[[str, str], None]) -> None:
        self.folder = folder
        self.database = database
        self.environ = environ

    def write(self, text: str, name: str = "inv.yml") -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def __call__(self, *arguments: str, status: int = 0) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            ended = cli.run(list(arguments))
        done = Done(ended, out.getvalue(), err.getvalue())
        assert done.status == status, done.out + done.err
        assert CANARY not in done.out + done.err
        return done

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def meeting(self, server: str, meeting_id: str = "m", tenant: str = "acme") -> None:
        """Let a meeting run."""
        self.sql(
            "INSERT INTO meeting (tenant, meeting_id, server, generation, voice_bridge, reservation)"
            " SELECT id, %s, %s, nextval('claim_sequence'), %s, 1 FROM tenant WHERE name = %s",
            meeting_id, server, f"{server}{meeting_id}", tenant,
        )  # fmt: skip


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


@pytest.fixture
def here(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.chdir(tmp_path)
    for name, value in {"DATABASE_URL": database, "SCALELITE_ACTOR": "tester", "LOG_LEVEL": "error"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SCALELITE_INVENTORY", raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Here(tmp_path, database, monkeypatch.setenv)
    root.handlers[:] = handlers
    root.setLevel(level)
