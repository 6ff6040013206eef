"""Confirms claims of meetings that a server has created, many at once and after the callers were answered.

If this process dies first, the next poll that lists the meeting confirms it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from scalelite.errors import DatabaseAway
from scalelite.store import runtime

if TYPE_CHECKING:
    from scalelite.store.db import Database

log = logging.getLogger(__name__)

_GATHER_S: Final = 0.01
_RETRY_S: Final = 1.0


class Confirmations:
    """Generations of meetings that wait to be confirmed; `run()` writes them until it is cancelled."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[int] = []
        self._wake = asyncio.Event()

    def add(self, generation: int) -> None:
        """Have a claim confirmed soon."""
        self._waiting.append(generation)
        self._wake.set()

    async def run(self) -> None:
        """Write what waits; what cannot be written now is tried again."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_GATHER_S)
            try:
                await self.flush()
            except DatabaseAway as error:
                log.warning("confirmations wait: %s", error)
                await asyncio.sleep(_RETRY_S)

    async def flush(self) -> None:
        """Write what waits now; raises DatabaseAway and keeps it."""
        if batch := self._waiting[:]:
            async with self._database.use() as connection:
                await runtime.confirm_meetings(connection, batch)
        del self._waiting[: len(batch)]
        if not self._waiting:
            self._wake.clear()
