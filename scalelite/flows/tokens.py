"""Tokens of the management API: drawn and shown once, kept as hashes, checked on every request."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import TYPE_CHECKING, Final

from scalelite.errors import AlreadyDeclared, NotDeclared, SpecRefused, Unauthenticated
from scalelite.store import tokens

if TYPE_CHECKING:
    from scalelite.core.tokens import Scope, Token
    from scalelite.store.db import Connection

PREFIX: Final = "slt_"  # so that scanners of repositories find a leaked one
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,99}")


async def add(connection: Connection, name: str, scope: Scope, by: str, lifetime_s: float | None = None) -> str:
    """Make a token and return it: the only time that it can be seen. Raises SpecRefused, AlreadyDeclared."""
    if not _NAME.fullmatch(name):
        raise SpecRefused("a token's name has letters, digits, '_', '.', '@' and '-', 100 at most")
    token = PREFIX + secrets.token_urlsafe(32)
    if not await tokens.add_token(connection, name, _digest(token), scope, by=by, lifetime_s=lifetime_s):
        raise AlreadyDeclared(f"there is a token '{name}' already", "remove it first, or choose another name")
    return token


async def every(connection: Connection) -> list[Token]:
    """Return what is known of all tokens."""
    return await tokens.load_tokens(connection)


async def remove(connection: Connection, name: str) -> None:
    """Forget a token: it is refused from now on. Raises NotDeclared."""
    if not await tokens.remove_token(connection, name):
        raise NotDeclared("token", name)


async def authenticate(connection: Connection, token: str) -> Token:
    """Return whose token it is; raises Unauthenticated for none of ours, or an expired one."""
    found = await tokens.find_token(connection, _digest(token))
    if found is None or found.expired:
        raise Unauthenticated("the token is not known, or it has expired")
    return found


def _digest(token: str) -> bytes:
    """Hash a token: one round is enough, since it cannot be guessed; looking a hash up tells nothing by its time."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
