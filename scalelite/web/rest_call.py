"""What a call of the management API is: who makes it, with what, and the operation that answers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from scalelite.core.tokens import covers
from scalelite.errors import ScopeTooNarrow
from scalelite.flows import management

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from scalelite.core.commands import Wish
    from scalelite.core.tokens import Scope
    from scalelite.flows.admin import Changed
    from scalelite.flows.services import Services
    from scalelite.web.rest_models import Params


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as revisions name them, with what scope; `signed`: by checksum, as Scalelite's clients do."""

    actor: str
    scope: Scope
    signed: bool = False

    def require(self, scope: Scope) -> None:
        """Raise ScopeTooNarrow unless the caller may do this."""
        if not covers(self.scope, scope):
            raise ScopeTooNarrow(scope)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that may be made, with its checked parameters; says whether the answer shows secrets."""

    services: Services
    caller: Caller
    params: Any
    shows_secrets: bool

    async def change(self, operation: str, wish: Wish) -> Changed:
        """Carry out a wish in the name of the caller."""
        return await management.change(self.services, self.caller.actor, operation, wish)


Answer = tuple[int, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One call: how it is made, who may, what it takes, what it answers by status, and what does it."""

    method: Literal["GET", "POST"]
    scope: Scope
    summary: str
    takes: type[Params]
    gives: Mapping[int, Any]
    run: Callable[[Call], Awaitable[Answer]]
    tenants: bool = False
