"""Tasks that run for ever end when they are told to, also when one of the cancellations is lost."""

from __future__ import annotations

import asyncio

import pytest

from scalelite.flows.ending import stopped, until_one_ends


@pytest.mark.shows("operations: SIGTERM")
async def test_a_lost_cancellation_is_repeated() -> None:
    """As wait_for of Python 3.11 loses one that comes together with its result."""
    lost = 0

    async def forever() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost += 1

    task = asyncio.create_task(forever())
    await asyncio.sleep(0)
    await stopped(task, again_s=0.01)
    assert (task.cancelled(), lost) == (True, 1)


@pytest.mark.shows("operations: SIGTERM")
async def test_what_one_fails_with_ends_the_others_and_is_raised() -> None:
    ended: list[str] = []

    async def fails() -> None:
        raise ValueError("it failed")

    async def runs() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("runs")

    with pytest.raises(ValueError, match="it failed"):
        await until_one_ends(runs(), fails())
    assert ended == ["runs"]
