"""drift, history, blame and rollback through the installed command."""

from __future__ import annotations

import asyncio
import json
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest

from scalelite.core.model import Key, Kind, Secret
from scalelite.core.plan import Update
from scalelite.store import db, specs
from tests.config.test_commands import CANARY, INVENTORY, Command

if TYPE_CHECKING:
    from pathlib import Path

BBB2 = Key(Kind.SERVER, "bbb2.example.com")
NEW_CANARY = f"new-{CANARY}"


@pytest.fixture
def scalelite(tmp_path: Path, database: str) -> Command:
    command = Command(tmp_path, database)
    command.inventory(INVENTORY)
    command("apply", "inv.yml", "-y", "--actor", "ci", "--message", "first")
    return command


def change_by_hand(database: str, **fields: object) -> None:
    """Change a server as a command or the management API does."""

    async def change() -> None:
        async with db.connect(database, "tests") as connection, db.apply_lock(connection, 5):
            before = (await specs.load_live(connection)).declared.objects[BBB2]
            update = Update(BBB2, before, before.model_copy(update=fields))
            await specs.write(connection, [update], specs.Author("ops@lb1", "too loud"), uuid.uuid4)

    asyncio.run(change())


@pytest.mark.shows("DE-10", "plan: drift")
def test_drift_names_field_actor_and_revision_and_reads_alone(scalelite: Command, database: str) -> None:
    assert scalelite("drift", "--detailed-exitcode").stdout.startswith("No drift.")
    change_by_hand(database, tag="gpu")
    done = scalelite("drift", "-i", "inv.yml", "--detailed-exitcode", status=2)
    assert "~ server/bbb2.example.com" in done.stdout
    assert "by ops@lb1" in done.stdout
    assert "(revision 2)" in done.stdout
    assert "'' → gpu" in done.stdout
    found = json.loads(scalelite("drift", "--format", "json").stdout)["drift"]
    assert [(each["address"], each["actor"]) for each in found] == [("server/bbb2.example.com", "ops@lb1")]
    assert [(each["path"], each["before"], each["after"]) for each in found[0]["fields"]] == [("tag", "", "gpu")]
    scalelite.inventory(INVENTORY.replace("load_multiplier: 2.0", "load_multiplier: 2.0, tag: gpu"))
    assert scalelite("drift", "-i", "inv.yml", "--detailed-exitcode").stdout.startswith("No drift.")


@pytest.mark.shows("plan: history", "plan: blame")
def test_history_and_blame_say_who_did_what_and_no_secret(scalelite: Command, database: str) -> None:
    change_by_hand(database, tag="gpu", secret=Secret(NEW_CANARY))
    listed = scalelite("history").stdout.splitlines()
    assert listed[0].split() == ["REVISION", "TIME", "ACTOR", "CHANGES", "FROM", "MESSAGE"]
    assert "ops@lb1" in listed[1]
    assert "+6" in listed[2]
    one = scalelite("history", "2").stdout
    assert "Message  too loud" in one
    assert "secret            (sensitive value changed)" in one
    assert "tag               '' → gpu" in one
    change = json.loads(scalelite("history", "2", "--format", "json").stdout)["changes"][0]
    assert change["fields"][0] == {"path": "secret", "before": None, "after": None, "sensitive": True}
    blamed = scalelite("blame", "server/bbb2.example.com").stdout
    assert [line.split()[2] for line in blamed.splitlines() if line.startswith("tag")] == ["2"]
    assert json.loads(scalelite("blame", "tenant/school", "--format", "json").stdout)["fields"][0]["actor"] == "ci"
    scalelite("blame", "tenant/nobody", status=64)
    scalelite("blame", "nonsense", status=64)
    scalelite("history", "9", status=64)


@pytest.mark.shows("plan: rollback")
def test_a_rollback_is_a_plan_that_the_next_apply_undoes(scalelite: Command) -> None:
    scalelite.inventory(INVENTORY.replace("2.0", "3.0").replace("  bbb1.example.com", "  bbb3.example.com"))
    scalelite("apply", "inv.yml", "-y")
    assert "nobody is there" in scalelite("rollback", "1", status=64).stderr
    done = scalelite("rollback", "1", "-y", status=9)
    assert "3.0 → 2.0" in done.stdout
    assert "next apply of an inventory that still says otherwise undoes this" in done.stdout
    assert "server/bbb1.example.com: secret was not kept" in done.stderr
    old = scalelite.folder / "old.yml"
    old.write_text(INVENTORY)
    assert "+ server bbb1.example.com" in scalelite("rollback", "1", "-y", "-i", "old.yml").stdout
    assert "No changes." in scalelite("plan", "old.yml").stdout
    assert "- server bbb1.example.com" in scalelite("plan", "inv.yml").stdout
    scalelite("rollback", "99", status=64)


@pytest.mark.shows("plan: rollback", "plan: guards")
def test_a_guard_stops_a_rollback_too(scalelite: Command) -> None:
    protected = f"servers:\n  bbb9.example.com: {{secret: {CANARY}, protect: true}}"
    scalelite.inventory(INVENTORY.replace("servers:", protected, 1))
    scalelite("apply", "inv.yml", "-y")
    assert "protected" in scalelite("rollback", "1", "-y", status=5).stdout


@pytest.mark.shows("plan: revisions")
@pytest.mark.needs("git")
def test_a_revision_names_the_commit_of_its_inventory_and_whether_it_was_clean(scalelite: Command) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        done = subprocess.run(
            ["git", *identity, *words], cwd=scalelite.folder, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", "inv.yml")
    git("commit", "-qm", "one")
    for number, text in enumerate((INVENTORY.replace("2.0", "4.0"), INVENTORY.replace("2.0", "5.0"))):
        scalelite.inventory(text)
        if number == 0:
            git("commit", "-qam", "two")
        scalelite("apply", "inv.yml", "-y")
    sources = [json.loads(scalelite("history", n, "--format", "json").stdout)["source"]["git"] for n in ("1", "2", "3")]
    commit = git("rev-parse", "HEAD")
    assert sources == [None, {"sha": commit, "dirty": False}, {"sha": commit, "dirty": True}]
