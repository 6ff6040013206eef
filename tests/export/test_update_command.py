"""export --update through the installed command: shown, proved, written or left alone."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import pytest

from scalelite.core.model import Key, Kind, Secret
from scalelite.core.plan import Remove, Update
from scalelite.store import db, specs
from tests.config.test_commands import CANARY, INVENTORY, Command

if TYPE_CHECKING:
    from pathlib import Path

BBB2 = Key(Kind.SERVER, "bbb2.example.com")


@pytest.fixture
def scalelite(tmp_path: Path, database: str) -> Command:
    command = Command(tmp_path, database)
    command.inventory(INVENTORY)
    command("apply", "inv.yml", "-y")
    return command


def change_by_hand(database: str, **fields: object) -> None:
    async def change() -> None:
        async with db.connect(database, "tests") as connection, db.apply_lock(connection, 5):
            before = (await specs.load_live(connection)).declared.objects[BBB2]
            update = Update(BBB2, before, before.model_copy(update=fields))
            await specs.write(connection, [update], specs.Author("ops@lb1"), uuid.uuid4)

    asyncio.run(change())


def remove_by_hand(database: str) -> None:
    async def remove() -> None:
        async with db.connect(database, "tests") as connection, db.apply_lock(connection, 5):
            spec = (await specs.load_live(connection)).declared.objects[BBB2]
            await specs.write(connection, [Remove(BBB2, spec)], specs.Author("ops@lb1"), uuid.uuid4)

    asyncio.run(remove())


@pytest.mark.shows("inventory: export --update")
def test_drift_is_shown_confirmed_and_written_and_a_plan_is_empty_then(scalelite: Command, database: str) -> None:
    file = scalelite.folder / "inv.yml"
    before, mode = file.read_bytes(), 0o640
    file.chmod(mode)
    assert "No changes." in scalelite("export", "--update", "inv.yml").stderr
    change_by_hand(database, load_multiplier=3.0)  # so that no way to write secrets is needed
    shown = scalelite("export", "--update", "inv.yml", status=64)
    assert "-  bbb2.example.com: {secret: ********, load_multiplier: 2.0}" in shown.stdout
    assert "+  bbb2.example.com: {secret: ********, load_multiplier: 3.0}" in shown.stdout
    assert file.read_bytes() == before
    scalelite("export", "--update", "inv.yml", "--yes")
    assert file.read_bytes() == before.replace(b"2.0", b"3.0")
    assert file.stat().st_mode & 0o777 == mode
    assert "No changes." in scalelite("plan", "inv.yml").stdout
    assert [path.name for path in scalelite.folder.iterdir()] == ["inv.yml"]


@pytest.mark.shows("inventory: export --update", "inventory: --secrets")
def test_a_changed_secret_needs_a_way_to_be_written(scalelite: Command, database: str) -> None:
    change_by_hand(database, secret=Secret(f"{CANARY}-new"))
    refused = scalelite("export", "--update", "inv.yml", "--yes", status=64).stderr
    assert "hint: choose --secrets vault (give --vault-password-file), or plain" in refused
    (scalelite.folder / "password").write_text("open sesame")
    scalelite("export", "--update", "inv.yml", "--yes", "--vault-password-file", "password")
    text = (scalelite.folder / "inv.yml").read_text()
    assert "bbb2.example.com: {secret: !vault " in text
    assert "No changes." in scalelite("plan", "inv.yml", "--vault-password-file", "password").stdout


@pytest.mark.shows("inventory: export --update", "inventory: a later one wins key by key")
def test_what_a_later_inventory_says_is_edited_there(scalelite: Command, database: str) -> None:
    over = "servers:\n  bbb2.example.com: {tag: gpu}   # over\n"
    (scalelite.folder / "over.yml").write_text(over)
    scalelite("apply", "inv.yml", "over.yml", "-y")
    change_by_hand(database, tag="x", load_multiplier=7.0)
    scalelite("export", "--update", "inv.yml", "--update", "over.yml", "--yes")
    assert (scalelite.folder / "over.yml").read_text() == over.replace("gpu", "x")
    assert "load_multiplier: 7.0" in (scalelite.folder / "inv.yml").read_text()
    assert "No changes." in scalelite("plan", "inv.yml", "over.yml").stdout
    remove_by_hand(database)
    scalelite("export", "--update", "inv.yml", "--update", "over.yml", "--yes")
    assert (scalelite.folder / "over.yml").read_text() == "servers: {}\n"
    assert "bbb2" not in (scalelite.folder / "inv.yml").read_text()


@pytest.mark.shows("inventory: export --update", "inventory: an executable password file is run")
def test_a_program_is_asked_for_the_password_once(scalelite: Command, database: str) -> None:
    program = scalelite.folder / "password"
    program.write_text("#!/bin/sh\necho asked >> asked\necho open sesame\n")
    program.chmod(0o700)
    for number in range(2):  # the second time there is a vault to open, too
        change_by_hand(database, secret=Secret(f"{CANARY}-{number}"))
        scalelite("export", "--update", "inv.yml", "--yes", "--vault-password-file", "./password")
        assert (scalelite.folder / "asked").read_text() == "asked\n" * (number + 1)


@pytest.mark.shows("inventory: export --update")
def test_what_cannot_be_proved_leaves_the_original(scalelite: Command, database: str) -> None:
    groups = "groups:\n  large: {servers: [bbb2.example.com]}\n"
    scalelite.inventory(INVENTORY + groups)
    scalelite("apply", "inv.yml", "-y")

    remove_by_hand(database)
    done = scalelite("export", "--update", "inv.yml", "--yes", status=1)
    assert "nothing was written: the edited copy would not load" in done.stderr
    assert (scalelite.folder / "inv.yml").read_text() == INVENTORY + groups
