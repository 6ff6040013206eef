"""Ansible Vault 1.1 and 1.2 (AES256), as `ansible-vault` reads and writes them; is given passwords, seeks none."""

from __future__ import annotations

import os
import re
from binascii import Error as NoHex
from binascii import hexlify, unhexlify
from typing import TYPE_CHECKING, Final, NamedTuple

from scalelite.core.model import Secret
from scalelite.errors import VaultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

HEADER: Final = "$ANSIBLE_VAULT;"
_HEAD: Final = re.compile(r"\$ANSIBLE_VAULT;(?:1\.1;AES256|1\.2;AES256;([^\s;]+))")
_WIDTH: Final = 80
# The format's own: 10,000 rounds to two keys of 32 bytes and a counter of 16.
_ROUNDS: Final = 10_000
_SALT_BYTES: Final = 32


class Password(NamedTuple):
    """A password of vaults; one with the label of a vault is tried on it first."""

    text: Secret
    label: str = ""


class Vaults:
    """Opens the vaults of an inventory; asks for the passwords when the first is met, and opens each vault once."""

    def __init__(self, passwords: Callable[[], Sequence[Password]]) -> None:
        self._ask = passwords
        self._passwords: Sequence[Password] | None = None
        self._opened: dict[str, bytes] = {}

    def open(self, vault: str) -> bytes:
        """Return what a vault holds; raises VaultError."""
        if vault not in self._opened:
            if self._passwords is None:
                self._passwords = self._ask()
            self._opened[vault] = decrypt(vault, self._passwords)
        return self._opened[vault]


def is_vault(text: str) -> bool:
    """Tell whether a text is encrypted."""
    return text.lstrip().startswith(HEADER)


def encrypt(text: str | bytes, password: Secret | str, *, label: str = "", salt: bytes | None = None) -> str:
    """Return a text as a vault, lines of 80 characters; with a label in format 1.2. The salt is random by default."""
    from cryptography.hazmat.primitives.padding import PKCS7  # noqa: PLC0415 - 40 ms to import, and few need it

    clear = text.encode() if isinstance(text, str) else text
    salt = os.urandom(_SALT_BYTES) if salt is None else salt
    cipher_key, mac_key, counter = _keys(password, salt)
    padder = PKCS7(128).padder()
    sealed = _counter_mode(cipher_key, counter, padder.update(clear) + padder.finalize())
    parts = (salt, _mac(mac_key, sealed), sealed)
    body = hexlify(b"\n".join(hexlify(part) for part in parts)).decode()
    head = f"{HEADER}1.2;AES256;{label}" if label else f"{HEADER}1.1;AES256"
    return "\n".join([head, *(body[at : at + _WIDTH] for at in range(0, len(body), _WIDTH))]) + "\n"


def decrypt(vault: str, passwords: Iterable[Password]) -> bytes:
    """Return what a vault holds; raises VaultError where no password opens it."""
    label, salt, mac, sealed = _parts(vault)
    tried = sorted(passwords, key=lambda password: password.label != label)
    if not tried:
        raise VaultError("no vault password is given", label)
    for password in tried:
        if (clear := _opened(password.text, salt, mac, sealed)) is not None:
            return clear
    raise VaultError("none of the vault passwords opens it", label)


def _parts(vault: str) -> tuple[str, bytes, bytes, bytes]:
    head, _, body = vault.strip().partition("\n")
    match = _HEAD.fullmatch(head.strip())
    if match is None:
        raise VaultError("its header is not that of an Ansible Vault 1.1 or 1.2 with AES256", damaged=True)
    try:
        salt, mac, sealed = (unhexlify(part) for part in unhexlify("".join(body.split())).split(b"\n"))
    except (NoHex, ValueError):
        raise VaultError("some of its characters are missing or changed", damaged=True) from None
    return match[1] or "", salt, mac, sealed


def _opened(password: Secret, salt: bytes, mac: bytes, sealed: bytes) -> bytes | None:
    from hmac import compare_digest  # noqa: PLC0415

    from cryptography.hazmat.primitives.padding import PKCS7  # noqa: PLC0415

    cipher_key, mac_key, counter = _keys(password, salt)
    if not compare_digest(_mac(mac_key, sealed), mac):
        return None
    unpadder = PKCS7(128).unpadder()
    try:
        return unpadder.update(_counter_mode(cipher_key, counter, sealed)) + unpadder.finalize()
    except ValueError:
        raise VaultError("its padding is not right", damaged=True) from None


def _keys(password: Secret | str, salt: bytes) -> tuple[bytes, bytes, bytes]:
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC  # noqa: PLC0415 - half the time of hashlib's

    text = password.reveal() if isinstance(password, Secret) else password
    made = PBKDF2HMAC(SHA256(), 80, salt, _ROUNDS).derive(text.encode(errors="surrogateescape"))
    return made[:32], made[32:64], made[64:]


def _mac(key: bytes, sealed: bytes) -> bytes:
    from hmac import digest  # noqa: PLC0415

    return digest(key, sealed, "sha256")


def _counter_mode(key: bytes, counter: bytes, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers import Cipher  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.algorithms import AES  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.modes import CTR  # noqa: PLC0415

    encryptor = Cipher(AES(key), CTR(counter)).encryptor()
    return encryptor.update(data) + encryptor.finalize()
