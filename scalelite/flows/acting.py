"""Who changes declared state, and how long they wait for the lock: one value for commands, applies and playbooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from scalelite.store.specs import Author

LOCK_TIMEOUT_S: Final = 30.0


def _nobody(_: str) -> None:
    """Whoever wants to hear of who holds the lock gives another."""


@dataclass(frozen=True, slots=True)
class Acting:
    """Who acts; `new_id` draws the ids of new tenants, `tell` is told who holds the lock."""

    author: Author
    new_id: Callable[[], UUID]
    lock_timeout_s: float = LOCK_TIMEOUT_S
    tell: Callable[[str], None] = _nobody
