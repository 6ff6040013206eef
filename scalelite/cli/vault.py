"""vault: encrypt, decrypt, view and rekey files, and encrypt single values, as `ansible-vault` does."""

from __future__ import annotations

import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from scalelite.cli.session import asked_password, settings_of_process, vault_options, vault_passwords
from scalelite.errors import FileUnusable, UsageError, VaultError
from scalelite.inventory.passwords import PROMPT, PasswordSource, password
from scalelite.inventory.vault import Password, decrypt, encrypt, is_vault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STDIN: Final = "-"
_files = click.argument("files", nargs=-1, required=True, metavar="FILE...")
_output = click.option("--output", metavar="FILE", help="Write there, and leave FILE as it is; `-`: standard output.")
_label = click.option("--encrypt-vault-id", "label", metavar="LABEL", help="Of several passwords, take this one's.")


@click.group()
def vault() -> None:
    """Encrypt and decrypt files and values, in the format of Ansible Vault.

    \b
    Example: scalelite vault encrypt --vault-password-file .password group_vars/all/vault.yml
    """


@vault.command("encrypt")
@_files
@_label
@_output
@vault_options
def encrypt_files(files: tuple[str, ...], label: str | None, output: str | None) -> None:
    """Encrypt files, in place; `-` reads standard input and writes standard output.

    \b
    Example: scalelite vault encrypt --vault-id prod@.password host_vars/bbb1.example.com.yml
    """
    chosen = _chosen(label)

    def sealed(data: bytes) -> bytes:
        if is_vault(data.decode("utf-8", "replace")):
            raise UsageError("is encrypted already", hint="change its password with `scalelite vault rekey`")
        return encrypt(data, chosen.text, label=chosen.label).encode()

    _convert(files, output, sealed)


@vault.command("decrypt")
@_files
@_output
@vault_options
def decrypt_files(files: tuple[str, ...], output: str | None) -> None:
    """Decrypt files, in place.

    \b
    Example: scalelite vault decrypt --ask-vault-pass group_vars/all/vault.yml --output -
    """
    passwords = _passwords()
    _convert(files, output, lambda data: decrypt(_vault_text(data), passwords))


@vault.command()
@_files
@vault_options
def view(files: tuple[str, ...]) -> None:
    """Print what encrypted files hold.

    \b
    Example: scalelite vault view --vault-password-file .password group_vars/all/vault.yml
    """
    passwords = _passwords()
    _convert(files, STDIN, lambda data: decrypt(_vault_text(data), passwords))


@vault.command()
@_files
@click.option("--new-vault-password-file", "new_file", metavar="FILE", help="File or program with the new password.")
@click.option("--new-vault-id", "new_id", metavar="LABEL@FILE", help="The same, with the label of the new password.")
@vault_options
def rekey(files: tuple[str, ...], new_file: str | None, new_id: str | None) -> None:
    """Encrypt files with another password; all of them or, where one cannot be opened, none.

    \b
    Example: scalelite vault rekey --vault-id old@.old --new-vault-id new@.new group_vars/all/vault.yml
    """
    passwords = _passwords()
    if new_file or new_id:
        source = PasswordSource.of(new_id) if new_id else PasswordSource(new_file or "")
        new = password(source, asked_password)
    else:
        new = Password(password(PasswordSource(PROMPT, "new"), partial(asked_password, twice=True)).text)
    _convert(
        files, None, lambda data: encrypt(decrypt(_vault_text(data), passwords), new.text, label=new.label).encode()
    )


@vault.command("encrypt-string")
@click.argument("text", default=STDIN, metavar="[TEXT]")
@click.option("-n", "--name", metavar="KEY", help="The key that the value is for.")
@_label
@vault_options
def encrypt_string(text: str, name: str | None, label: str | None) -> None:
    """Print a text as a `!vault` value, to be pasted; without TEXT it is read from standard input.

    \b
    Example: openssl rand -hex 32 | scalelite vault encrypt-string --name secret --vault-password-file .password
    """
    chosen = _chosen(label)
    if text == STDIN:
        text = sys.stdin.read().removesuffix("\n")
    lines = encrypt(text, chosen.text, label=chosen.label).splitlines()
    key = f"{name}: " if name else ""
    click.echo("\n".join([f"{key}!vault |", *(f"  {line}" for line in lines)]))


def _passwords() -> Sequence[Password]:
    found = vault_passwords(settings_of_process())
    if not found:
        raise VaultError("no vault password is given")
    return found


def _chosen(label: str | None) -> Password:
    """Return the password to encrypt with: the one with a label, else the only one."""
    passwords = _passwords()
    fitting = passwords if label is None else [found for found in passwords if found.label == label]
    if len(fitting) != 1:
        labels = ", ".join(found.label or "(none)" for found in passwords)
        raise UsageError(
            f"which password to encrypt with is not clear; there are: {labels}",
            hint="name one with --encrypt-vault-id LABEL",
        )
    return fitting[0]


def _vault_text(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    if not is_vault(text):
        raise UsageError("is not encrypted", hint="see `scalelite vault encrypt`")
    return text


def _convert(files: Sequence[str], output: str | None, change: Callable[[bytes], bytes]) -> None:
    """Change all files, or none where one of them cannot be changed."""
    if output not in {None, STDIN} and len(files) > 1:
        raise UsageError("--output takes one file")
    changed = [(name, _changed(name, change)) for name in files]
    for name, data in changed:
        target = output or name
        if target == STDIN:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            replace_file(Path(target), data)


def _changed(name: str, change: Callable[[bytes], bytes]) -> bytes:
    try:
        data = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
        return change(data)
    except OSError as error:
        raise FileUnusable(name, error) from error
    except (UsageError, VaultError) as error:
        error.message = f"{name}: {error.message}"
        raise


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in one step, so that nobody finds half of it; its mode is kept, a new one is the owner's alone."""
    target = path.resolve()
    try:
        handle, new = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                if target.exists():
                    os.fchmod(file.fileno(), target.stat().st_mode & 0o7777)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(new).replace(target)
        except BaseException:
            Path(new).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileUnusable(str(path), error) from error
