"""plan and apply through the installed command: what they print, what they write, and how they end."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import psycopg
import pytest

from scalelite.store.db import APPLY_LOCK
from tests.command import run

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

CANARY = "canary-0123456789abcdef"
INVENTORY = f"""
servers:
  bbb1.example.com: {{secret: {CANARY}}}
  bbb2.example.com: {{secret: {CANARY}, load_multiplier: 2.0}}
tenants:
  school:
    secrets: [{CANARY}]
    settings: {{record: true}}
    lrs:
      endpoint: https://lrs.example.com/
      basic: {{username: u, password: {CANARY}}}
cluster: {{name: test}}
"""


class Command:
    """Runs `scalelite` in a folder, on a database."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.environment = {**os.environ, "DATABASE_URL": database, "SCALELITE_ACTOR": "tester"}

    def inventory(self, text: str) -> None:
        (self.folder / "inv.yml").write_text(text)

    def __call__(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = run(arguments, folder=self.folder, environment=self.environment)
        assert done.returncode == status, done.stderr
        assert CANARY not in done.stdout + done.stderr
        return done


@pytest.fixture
def scalelite(tmp_path: Path, database: str) -> Command:
    command = Command(tmp_path, database)
    command.inventory(INVENTORY)
    return command


@pytest.mark.shows("DE-1", "DE-8", "plan: No changes", "issue A4")
def test_a_second_plan_says_that_there_is_nothing_to_do(scalelite: Command) -> None:
    first = scalelite("plan", "inv.yml")
    assert "+ server bbb1.example.com" in first.stdout
    assert "inv.yml:3:3" in first.stdout
    assert "Plan: 6 to create, 0 to update, 0 to delete. 0 unchanged." in first.stdout
    assert "Revision 1." in scalelite("apply", "inv.yml", "-y").stdout
    assert "No changes. 2 servers, 1 tenant, 1 setting match the cluster." in scalelite("plan", "inv.yml").stdout
    assert scalelite("apply", "inv.yml", "-y").stdout.endswith("Nothing to apply.\n")


@pytest.mark.shows("plan: exit statuses")
def test_exit_statuses(scalelite: Command) -> None:
    scalelite("plan", "inv.yml", "--detailed-exitcode", status=2)
    scalelite("apply", "inv.yml", status=64)
    scalelite("apply", "inv.yml", "-y")
    scalelite("plan", "inv.yml", "--detailed-exitcode")
    scalelite("plan", "missing.yml", status=3)
    scalelite("plan", "--nonsense", status=64)
    scalelite("plan", "inv.yml", "--mode", "nonsense", status=64)
    scalelite.inventory("servers: {}\nserver: {}\n")
    assert "Did you mean" in scalelite("plan", "inv.yml", status=3).stderr


@pytest.mark.shows("cli: exit statuses")
@pytest.mark.parametrize(
    ("words", "meant"), [("servres", "'servers'"), ("servers lst", "'list'"), ("plan --limt a", "'--limit'")]
)
def test_a_word_that_is_nearly_right_is_answered_with_the_right_one(scalelite: Command, words: str, meant: str) -> None:
    assert meant in scalelite(*words.split(), status=64).stderr


@pytest.mark.shows("plan: exit statuses")
def test_a_database_that_is_away_is_an_error_in_one_line(scalelite: Command) -> None:
    scalelite.environment["DATABASE_URL"] = f"postgresql://u:{CANARY}@127.0.0.1:1/x"
    done = scalelite("plan", "inv.yml", status=1)
    assert done.stderr.splitlines()[-2].startswith("error: Postgres is away")


@pytest.mark.shows("operations: embedded only where it was asked for")
def test_a_job_in_the_wrong_folder_makes_no_cluster(scalelite: Command) -> None:
    del scalelite.environment["DATABASE_URL"]
    scalelite.environment.pop("SCALELITE_HOME", None)
    done = scalelite("plan", "inv.yml", status=64)
    assert all(way in done.stderr for way in ("DATABASE_URL", "SCALELITE_HOME", "scalelite db init"))
    assert not (scalelite.folder / ".scalelite").exists()


@pytest.mark.shows("plan: modes", "issue A4")
def test_a_server_with_meetings_is_cordoned_and_removed_when_it_is_empty(scalelite: Command, database: str) -> None:
    scalelite("apply", "inv.yml", "-y")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO meeting (tenant, meeting_id, server, generation, voice_bridge, reservation)"
            " SELECT id, 'm', 'bbb2.example.com', 1, '1', 15 FROM tenant WHERE name = 'school'"
        )
        scalelite.inventory(INVENTORY.replace("  bbb2.example.com", "  bbb3.example.com"))
        assert "enabled → cordoned" in scalelite("apply", "inv.yml", "-y").stdout
        assert "= server bbb2.example.com" in scalelite("plan", "inv.yml").stdout
        scalelite.inventory("tenants: {}\n")
        assert "1 meeting of it runs" in scalelite("apply", "inv.yml", "-y", status=5).stdout
        connection.execute("DELETE FROM meeting")
    scalelite.inventory(INVENTORY.replace("  bbb2.example.com", "  bbb3.example.com"))
    assert "- server bbb2.example.com" in scalelite("apply", "inv.yml", "-y").stdout
    assert "No changes. 2 servers" in scalelite("plan", "inv.yml").stdout


@pytest.mark.shows("plan: lock", "issue A4")
def test_an_apply_that_waits_too_long_says_who_holds_the_lock(scalelite: Command, database: str) -> None:
    scalelite("db", "migrate")
    with psycopg.connect(database, application_name="scalelite apply ops@lb1 pid 42") as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s, %s)", APPLY_LOCK)
        done = scalelite("apply", "inv.yml", "-y", "--lock-timeout", "0.2", status=6)
    assert "scalelite apply ops@lb1 pid 42 since" in done.stderr


@pytest.mark.shows("plan: --format json", "DE-9")
def test_json_goes_to_standard_output_alone_and_holds_no_secret(scalelite: Command) -> None:
    document = json.loads(scalelite("plan", "inv.yml", "--format", "json").stdout)
    assert document["format_version"] == "1.0"
    assert document["summary"]["create"] == 6
    server = next(c for c in document["resource_changes"] if c["address"] == "server/bbb1.example.com")
    assert server["change"]["actions"] == ["create"]
    assert server["change"]["after"]["secret"] is None
    assert server["change"]["after_sensitive"]["secret"] is True
    applied = json.loads(scalelite("apply", "inv.yml", "-y", "--format", "json").stdout)
    assert applied["applied"]["created"] == 6
    assert applied["revision"] == 1


@pytest.mark.shows("plan: revisions", "data: revision")
def test_an_apply_writes_a_revision_with_its_actor_and_no_secret(scalelite: Command, database: str) -> None:
    scalelite("apply", "inv.yml", "-y", "--message", "first")
    scalelite.inventory(INVENTORY.replace("2.0", "3.0"))
    scalelite("apply", "inv.yml", "-y")
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT number, actor, message FROM revision ORDER BY number").fetchall()
        assert rows == [(1, "tester", "first"), (2, "tester", "")]
        versions = connection.execute(
            "SELECT name, to_rev, spec->>'load_multiplier', spec::text FROM version"
        ).fetchall()
    assert [row[:3] for row in versions] == [("bbb2.example.com", 2, "2.0")]
    assert CANARY not in versions[0][3]
