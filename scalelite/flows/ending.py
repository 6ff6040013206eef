"""Ends tasks that run for ever."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = logging.getLogger(__name__)


async def stopped(*tasks: asyncio.Task[Any], again_s: float = 3.0) -> None:
    """Cancel tasks and wait until they have ended; what they fail with meanwhile is logged.

    They are cancelled again after a while (seconds): wait_for of Python 3.11, with which psycopg waits, loses a
    cancellation that comes together with what it waits for, and the task would run on.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=again_s)
        for task in done:
            if not task.cancelled() and (error := task.exception()):
                log.warning("a task failed at its end: %s", type(error).__name__)


async def until_one_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Run these until one ends or fails, then cancel the others; raises what it failed with.

    Not a task group: where a task fails, that of Python 3.11 leaves its parent looking cancelled.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await stopped(*(task for task in tasks if not task.done()))
