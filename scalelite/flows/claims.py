"""Claims meetings, many with one commit: what comes while one statement is under way goes with the next.

A claim's commit reaches the disk before its meeting is created anywhere, and the claims' lock is held until then; so
a burst that committed one by one would wait for the disk one by one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import psycopg

from scalelite.errors import DatabaseAway, Overloaded
from scalelite.store import runtime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalelite.core.model import Meeting
    from scalelite.store.db import Database
    from scalelite.store.runtime import Claim

log = logging.getLogger(__name__)

Claimed = tuple[bool, "Meeting"] | None
_Waiting = tuple["Claim", "asyncio.Future[Claimed]"]
_AT_ONCE: Final = 64
_MOST_WAITING: Final = 1024


class Claims:
    """The claims of one worker."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Waiting] = []
        self._work: asyncio.Task[None] | None = None

    async def claim(self, claim: Claim, within_s: float | None = None) -> Claimed:
        """Return the meeting and whether this call claimed it; None if no server was eligible.

        Raises DatabaseAway, and Overloaded at once where too many wait.
        """
        if claim.bounds:
            async with self._database.use(within_s) as connection:
                return await runtime.claim_meeting(connection, claim)
        if len(self._waiting) >= _MOST_WAITING:
            raise Overloaded
        future: asyncio.Future[Claimed] = asyncio.get_running_loop().create_future()
        self._waiting.append((claim, future))
        if self._work is None:
            self._work = asyncio.create_task(self._claim_all())
        try:
            async with asyncio.timeout(within_s or self._database.timeout_s):
                return await future
        except TimeoutError:
            raise DatabaseAway("Postgres did not answer in time") from None

    async def _claim_all(self) -> None:
        try:
            while self._waiting:
                batch = [waiting for waiting in self._waiting[:_AT_ONCE] if not waiting[1].done()]
                del self._waiting[:_AT_ONCE]
                await self._claim_some(batch)
        finally:
            self._work = None

    async def _claim_some(self, batch: Sequence[_Waiting]) -> None:
        """Claim some with one commit; where one of them cannot be, each by itself."""
        try:
            async with self._database.use() as connection:
                found = await runtime.claim_meetings(connection, [claim for claim, _ in batch])
        except (DatabaseAway, psycopg.Error) as error:
            if len(batch) > 1 and not isinstance(error, DatabaseAway):
                for waiting in batch:
                    await self._claim_some([waiting])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for claimed, (_, future) in zip(found, batch, strict=True):
            if not future.done():
                future.set_result(claimed)
            elif claimed and claimed[0]:
                await self._give_back(claimed[1])

    async def _give_back(self, meeting: Meeting) -> None:
        """Nobody waits for it any more; if Postgres is away, the poller takes it back."""
        try:
            async with self._database.use() as connection:
                await runtime.release_claim(connection, meeting.generation)
        except DatabaseAway:
            log.warning("a claim on server %s is left to the poller", meeting.server)
