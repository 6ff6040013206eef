"""The xAPI payload that a create carries: where a meeting's statements go, for the meeting's server alone.

What bbb-webhooks 3.2 and later decrypts (bigbluebutton.md 3). Salt, padding and token are arguments; the derivation
of the key takes milliseconds, so call `payload` in a thread.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7

if TYPE_CHECKING:
    from scalelite.core.model import LrsSpec, Secret

PARAM: Final = "meta_secret-lrs-payload"
PREFIX_BYTES: Final = 8
SALT_BYTES: Final = 8
_ROUNDS: Final = 10_000
_KEY_BYTES: Final = 32
_IV_BYTES: Final = 16


def payload(spec: LrsSpec, token: str, secret: Secret, *, prefix: bytes, salt: bytes) -> str:
    """Return the payload for the server with this secret; `token` is used where the LRS has no basic credentials."""
    plain = json.dumps(credentials(spec, token), ensure_ascii=False).encode()
    return encrypt(plain, secret.reveal(), prefix=prefix, salt=salt)


def credentials(spec: LrsSpec, token: str) -> dict[str, str]:
    """Return what bbb-webhooks needs to send statements."""
    if spec.basic:
        return {
            "lrs_endpoint": spec.endpoint,
            "lrs_username": spec.basic.username,
            "lrs_password": spec.basic.password.reveal(),
        }
    return {"lrs_endpoint": spec.endpoint, "lrs_token": token}


def encrypt(plain: bytes, secret: str, *, prefix: bytes, salt: bytes) -> str:
    """Return base64 of 8 bytes that nobody reads, 8 bytes of salt and the ciphertext (AES-256-CBC, PKCS#7)."""
    kdf = PBKDF2HMAC(algorithm=SHA256(), length=_KEY_BYTES + _IV_BYTES, salt=salt, iterations=_ROUNDS)
    derived = kdf.derive(secret.encode())
    padder = PKCS7(algorithms.AES.block_size).padder()
    padded = padder.update(plain) + padder.finalize()
    encryptor = Cipher(algorithms.AES(derived[:_KEY_BYTES]), modes.CBC(derived[_KEY_BYTES:])).encryptor()
    return base64.b64encode(prefix + salt + encryptor.update(padded) + encryptor.finalize()).decode()
