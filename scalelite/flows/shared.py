"""Asks once for many: who comes while a question is out waits for the next, so that no answer is older than its call.

Front ends ask for all meetings again and again; without this each of them would ask every server.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

K = TypeVar("K")
T = TypeVar("T")

# Who has waited so long for the question that is out asks beside it: it may be one that hangs.
LONGEST_WAIT_S: Final = 0.1


@dataclass(slots=True)
class _Line(Generic[T]):
    """The question that is out, and the one that waits for its end."""

    out: asyncio.Task[T] | None = None
    next: asyncio.Task[T] | None = None


class Shared(Generic[K, T]):
    """Questions of one kind by key; all who wait for the same get the same answer, or its error."""

    def __init__(self, ask: Callable[[K], Awaitable[T]]) -> None:
        self._ask = ask
        self._lines: dict[K, _Line[T]] = {}

    async def get(self, key: K) -> T:
        """Return an answer to a question that is asked from now on; who gives up leaves it to the others."""
        line = self._lines.setdefault(key, _Line())
        if line.next is None:
            line.next = asyncio.create_task(self._in_turn(key, line))
        return await asyncio.shield(line.next)

    async def _in_turn(self, key: K, line: _Line[T]) -> T:
        mine: asyncio.Task[Any] | None = asyncio.current_task()
        if line.out:
            await asyncio.wait([line.out], timeout=LONGEST_WAIT_S)
        line.out, line.next = mine, None
        try:
            return await self._ask(key)
        finally:
            if line.out is mine:
                line.out = None
                if line.next is None:
                    self._lines.pop(key, None)
