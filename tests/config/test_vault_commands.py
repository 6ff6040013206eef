"""`scalelite vault` beside the real `ansible-vault`, and where passwords come from."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from scalelite.inventory.vault import encrypt
from tests import command
from tests.inventory.ansible import ansible

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary-0123456789abcdef"
VALUES = f"secret: {CANARY}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "old").write_text("swordfish\n")
    (tmp_path / "new").write_text("sesame\n")
    (tmp_path / "file.yml").write_text(VALUES)
    return tmp_path


def run(folder: Path, *arguments: str, status: int = 0, text: str = "", **environment: str) -> str:
    """Run a command; what it says of an error names no secret and no password."""
    hidden = {"SCALELITE_VAULT_PASSWORD_FILE": "", "ANSIBLE_VAULT_PASSWORD_FILE": ""}
    done = command.run(arguments, folder=folder, environment={**os.environ, **hidden, **environment}, text=text)
    assert done.returncode == status, done.stderr
    assert not {word for word in (CANARY, "swordfish", "sesame") if word in done.stderr}
    return done.stdout + done.stderr


@pytest.mark.shows("inventory: scalelite vault", "issue B: Ansible Vault in both directions")
def test_encrypt_view_rekey_and_decrypt_beside_ansible_vault(folder: Path) -> None:
    file = folder / "file.yml"
    file.chmod(0o640)
    run(folder, "vault", "encrypt", "--vault-id", "prod@old", "file.yml")
    assert file.read_text().startswith("$ANSIBLE_VAULT;1.2;AES256;prod\n")
    assert ansible("ansible-vault", "view", "--vault-id", "prod@old", "file.yml", folder=folder).startswith(VALUES)
    ansible("ansible-vault", "rekey", "--vault-id", "prod@old", "--new-vault-id", "prod@new", "file.yml", folder=folder)
    assert run(folder, "vault", "view", "--vault-password-file", "new", "file.yml") == VALUES
    run(folder, "vault", "rekey", "--vault-id", "new", "--new-vault-password-file", "old", "file.yml")
    assert file.read_text().startswith("$ANSIBLE_VAULT;1.1;AES256\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    run(folder, "vault", "decrypt", "--vault-password-file", "old", "file.yml")
    assert file.read_text() == VALUES
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["file.yml", "new", "old"]


@pytest.mark.shows("inventory: scalelite vault encrypt-string")
def test_an_encrypted_string_is_a_value_that_ansible_and_we_read(folder: Path) -> None:
    value = run(folder, "vault", "encrypt-string", "-n", "secret", "--vault-password-file", "old", text=CANARY)
    (folder / "envelope").write_text("\n".join(line.strip() for line in value.splitlines()[1:]))
    assert ansible("ansible-vault", "view", "--vault-id", "old", "envelope", folder=folder).strip() == CANARY
    inventory = folder / "inventory"
    (inventory / "host_vars").mkdir(parents=True)
    (inventory / "host_vars" / "bbb1.yml").write_text(value)
    (inventory / "servers.yml").write_text("servers: {bbb1: {}}")
    shown = run(folder, "inventory", "show", "bbb1", "-i", "inventory", "--explain", "--vault-password-file", "old")
    assert "********" in shown
    assert "inventory/host_vars/bbb1.yml:1:9" in shown


@pytest.mark.shows("inventory: scalelite vault")
def test_standard_input_becomes_standard_output(folder: Path) -> None:
    vault = run(folder, "vault", "encrypt", "--vault-password-file", "old", "-", text=VALUES)
    assert run(folder, "vault", "decrypt", "--vault-password-file", "old", "-", text=vault) == VALUES
    run(folder, "vault", "encrypt", "--vault-password-file", "old", "file.yml", "--output", "made.yml")
    assert (folder / "file.yml").read_text() == VALUES
    assert stat.S_IMODE((folder / "made.yml").stat().st_mode) == 0o600


@pytest.mark.shows("inventory: scalelite vault")
@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["view", "--vault-password-file", "old", "file.yml"], 64, "file.yml: is not encrypted"),
        (["view", "--vault-password-file", "none", "file.yml"], 64, "password of none cannot be read: no such file"),
        (["view", "--vault-password-file", "empty", "file.yml"], 64, "the vault password of empty holds no password"),
        (["view", "vault.yml"], 3, "no vault password is given"),
        (["view", "--vault-password-file", "new", "vault.yml"], 3, "vault.yml: none of the vault passwords opens it"),
        (["rekey", "--vault-id", "old", "--new-vault-id", "new", "vault.yml", "file.yml"], 64, "is not encrypted"),
        (["encrypt", "--vault-id", "a@old", "--vault-id", "b@new", "file.yml"], 64, "which password"),
        (["encrypt", "--vault-password-file", "old", "vault.yml"], 64, "is encrypted already"),
        (["decrypt", "--vault-password-file", "old", "missing.yml"], 1, "missing.yml: no such file"),
        (["encrypt", "--ask-vault-pass", "file.yml"], 64, "nobody is there to ask"),
    ],
)
def test_what_cannot_be_done_changes_nothing(folder: Path, arguments: list[str], status: int, said: str) -> None:
    (folder / "vault.yml").write_text(encrypt(VALUES, "swordfish"))
    (folder / "empty").write_text("\n")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert said in run(folder, "vault", *arguments, status=status)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.shows("inventory: vault passwords")
def test_passwords_come_from_files_programs_and_the_environment(folder: Path) -> None:
    (folder / "vault.yml").write_text(encrypt(VALUES, "swordfish", label="prod"))
    program = folder / "vault-client.sh"
    program.write_text('#!/bin/sh\ntest "$1 $2" = "--vault-id prod" && cat old\n')
    program.chmod(0o755)
    view = ["vault", "view", "vault.yml"]
    assert run(folder, *view, "--vault-id", "prod@vault-client.sh") == VALUES
    assert "ended with status 1" in run(folder, *view, "--vault-id", "dev@vault-client.sh", status=64)
    assert run(folder, *view, ANSIBLE_VAULT_PASSWORD_FILE="old") == VALUES
    assert run(folder, *view, SCALELITE_VAULT_PASSWORD_FILE="old", ANSIBLE_VAULT_PASSWORD_FILE="new") == VALUES
    assert run(folder, *view, "--vault-id", "dev@new", "--vault-id", "prod@old") == VALUES


@pytest.mark.shows("inventory: --ask-vault-pass")
def test_a_person_is_asked_without_an_echo(folder: Path) -> None:
    (folder / "vault.yml").write_text(encrypt(VALUES, "swordfish"))
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "scalelite", "vault", "view", "--ask-vault-pass", "vault.yml"]
    process = subprocess.Popen(
        words, cwd=folder, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, start_new_session=True
    )
    asked = b""
    while b":" not in asked:
        asked += os.read(ours, 1_000)
    os.write(ours, b"swordfish\n")
    output, _ = process.communicate(timeout=60)
    assert output.decode() == VALUES
    os.close(theirs)
    os.close(ours)
    assert b"swordfish" not in asked


@pytest.mark.shows("inventory: vault passwords", "issue B: validate, plan and apply take the options")
def test_all_commands_that_read_inventories_take_passwords(folder: Path, database: str) -> None:
    (folder / "file.yml").write_text(encrypt(f"servers: {{bbb1: {{secret: {CANARY}}}}}", "swordfish"))
    options = ["-i", "file.yml", "--vault-password-file", "old"]
    assert "1 server" in run(folder, "validate", *options)
    assert "none of the vault passwords opens it" in run(
        folder, "validate", "-i", "file.yml", "--vault-id", "new", status=3
    )
    assert "no vault password is given" in run(folder, "plan", "-i", "file.yml", status=3, DATABASE_URL=database)
    assert "bbb1" in run(folder, "plan", *options, DATABASE_URL=database)
    assert "1 created" in run(folder, "apply", *options, "--auto-approve", DATABASE_URL=database)
