"""Ansible Vault both ways, beside the real `ansible-vault`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalelite.core.model import Secret
from scalelite.errors import VaultError
from scalelite.inventory.vault import Password, decrypt, encrypt, is_vault
from tests.inventory.ansible import ansible

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = Password(Secret("swordfish"))
TEXT = "secret: hunter2 ✓\n"


@pytest.mark.shows("inventory: vault 1.1/1.2")
@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["", "prod"]))
def test_what_is_encrypted_is_decrypted_to_the_same_bytes(clear: bytes, label: str) -> None:
    vault = encrypt(clear, PASSWORD.text, label=label)
    assert is_vault(vault)
    assert decrypt(vault, [PASSWORD]) == clear


@pytest.mark.shows("inventory: vault 1.1/1.2")
@pytest.mark.parametrize("label", ["", "prod"])
def test_ansible_vault_opens_what_we_encrypt(tmp_path: Path, label: str) -> None:
    (tmp_path / "password").write_text("swordfish\n")
    (tmp_path / "file.yml").write_text(encrypt(TEXT, PASSWORD.text, label=label))
    assert ansible("ansible-vault", "view", "--vault-id", f"{label or 'any'}@password", "file.yml", folder=tmp_path)
    ansible("ansible-vault", "decrypt", "--vault-password-file", "password", "file.yml", folder=tmp_path)
    assert (tmp_path / "file.yml").read_text() == TEXT


@pytest.mark.shows("inventory: vault 1.1/1.2")
@pytest.mark.parametrize("label", ["", "prod"])
def test_we_open_what_ansible_vault_encrypts(tmp_path: Path, label: str) -> None:
    (tmp_path / "password").write_text("swordfish\n")
    (tmp_path / "file.yml").write_text(TEXT)
    source = ["--vault-id", f"{label}@password"] if label else ["--vault-password-file", "password"]
    ansible("ansible-vault", "encrypt", *source, "file.yml", folder=tmp_path)
    vault = (tmp_path / "file.yml").read_text()
    assert vault.startswith(f"$ANSIBLE_VAULT;1.2;AES256;{label}" if label else "$ANSIBLE_VAULT;1.1;AES256")
    assert decrypt(vault, [PASSWORD]).decode() == TEXT


@pytest.mark.shows("inventory: export is stable")
def test_one_salt_makes_one_vault() -> None:
    assert encrypt(TEXT, "swordfish", salt=b"x" * 32) == encrypt(TEXT, "swordfish", salt=b"x" * 32)
    assert encrypt(TEXT, "swordfish") != encrypt(TEXT, "swordfish")


@pytest.mark.shows("inventory: vault values that cannot be opened")
@pytest.mark.parametrize(
    ("vault", "said"),
    [
        (encrypt(TEXT, "another", label="prod"), r"none of the vault passwords opens it \(vault id prod\)"),
        (encrypt(TEXT, "swordfish").replace("1.1;AES256", "1.0;AES"), "header"),
        (encrypt(TEXT, "swordfish")[:-30], "missing or changed|none of"),
        ("$ANSIBLE_VAULT;1.1;AES256\nxyz", "missing or changed"),
        ("$ANSIBLE_VAULT;1.1;AES256", "missing or changed"),
    ],
)
def test_a_vault_that_cannot_be_opened_says_why(vault: str, said: str) -> None:
    with pytest.raises(VaultError, match=said) as caught:
        decrypt(vault, [PASSWORD])
    assert "hunter2" not in str(caught.value)
    assert "swordfish" not in repr(caught.value)


@pytest.mark.shows("inventory: vault values that cannot be opened")
def test_without_a_password_nothing_is_opened() -> None:
    with pytest.raises(VaultError, match="no vault password is given"):
        decrypt(encrypt(TEXT, "swordfish"), [])


@pytest.mark.shows("inventory: vault 1.1/1.2")
def test_of_several_passwords_the_one_that_fits_opens() -> None:
    passwords = [Password(Secret("a"), "dev"), Password(Secret("b"), "prod"), PASSWORD]
    for password in passwords:
        assert decrypt(encrypt(TEXT, password.text, label="prod"), passwords).decode() == TEXT
