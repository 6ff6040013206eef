"""Does at once what many tasks ask for at the same time: one transaction for a thousand servers, and not a thousand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")


class Together(Generic[T]):
    """Collects items while the ones before are worked on; each caller waits until its own is done."""

    def __init__(self, work: Callable[[Sequence[T]], Awaitable[None]]) -> None:
        self._work = work
        self._waiting: list[tuple[T, asyncio.Future[None]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def do(self, item: T) -> None:
        """Have an item worked on; raises what the work raises."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._run())
        await done

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # those that are about to ask
            taken, self._waiting = self._waiting, []
            failure: BaseException | None = None
            try:
                await self._work([item for item, _ in taken])
            except BaseException as error:  # noqa: BLE001 - it is told to all that wait
                failure = error
            for _, done in taken:
                if done.done():
                    continue
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(failure)


def first_of(failures: BaseExceptionGroup) -> BaseException:
    """Return the first of the errors that ended several tasks at once."""
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
