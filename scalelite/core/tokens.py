"""Tokens of the management API: their scopes, and which scope covers what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

Scope = Literal["read", "operate", "admin", "import"]

_COVERS: Final[Mapping[Scope, frozenset[Scope]]] = {
    "read": frozenset({"read"}),
    "operate": frozenset({"read", "operate"}),
    "admin": frozenset({"read", "operate", "admin", "import"}),
    "import": frozenset({"import"}),
}


def covers(scope: Scope, needed: Scope) -> bool:
    """Say whether a token of one scope may do what needs another."""
    return needed in _COVERS[scope]


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token, which is not itself; `expired` by the database's clock."""

    name: str
    scope: Scope
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    expired: bool
