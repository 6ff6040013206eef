"""Secrets at rest: sealed with AES-GCM before they are written, opened after they are read; knows no table.

A sealed text names its key and is bound to the row and column that it was written for (its identity), so that a secret
that is copied to another row does not open there. Without keys, secrets are stored in clear. Rules: spec/inventory.md.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Final

from scalelite.errors import SecretUnreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CLEAR: Final = "clear"
_PREFIX: Final = "$scalelite$1$"
_NONCE_BYTES: Final = 12


class Sealer:
    """Seals with the first of its keys and opens with any of them."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        """`keys` are texts with much randomness in them (`openssl rand -base64 32`): they are not stretched."""
        self._ciphers = {_key_id(key): _cipher(key) for key in keys}
        self.key_id = next(iter(self._ciphers), CLEAR)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of its keys, that of the first first."""
        return tuple(self._ciphers)

    def seal(self, text: str, identity: str) -> str:
        """Return what is stored for the text; '' stays '', so that SQL can tell that there is no secret."""
        if not text:
            return ""
        if self.key_id == CLEAR:
            return f"{_PREFIX}{CLEAR}${text}" if text.startswith(_PREFIX) else text
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self.key_id].encrypt(nonce, text.encode(), identity.encode())
        return f"{_PREFIX}{self.key_id}${b64encode(nonce + sealed).decode()}"

    def open(self, stored: str, identity: str) -> str:
        """Return the text; raises SecretUnreadable if its key is not at hand or the identity another."""
        if not stored.startswith(_PREFIX):
            return stored
        key_id, _, body = stored[len(_PREFIX) :].partition("$")
        if key_id == CLEAR:
            return body
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SecretUnreadable(identity, key_id, missing=True)
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - only where there are keys

        try:
            sealed = b64decode(body, validate=True)
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], identity.encode()).decode()
        except (InvalidTag, ValueError):
            raise SecretUnreadable(identity, key_id, missing=False) from None


UNSEALED: Final = Sealer()


def key_of(stored: str) -> str:
    """Return the id of the key that a stored secret is sealed with, or CLEAR."""
    return stored[len(_PREFIX) :].partition("$")[0] if stored.startswith(_PREFIX) else CLEAR


def _cipher(key: str) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - only where there are keys

    return AESGCM(_derived(key, b"scalelite secrets at rest", 32))


def _derived(key: str, purpose: bytes, length: int) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    return HKDF(algorithm=SHA256(), length=length, salt=None, info=purpose).derive(key.encode())


def _key_id(key: str) -> str:
    return _derived(key, b"scalelite key id", 4).hex()
