"""Does the service leak: calls, polls and failing servers, by hand 30 minutes: `python -m benchmarks.soak [SECONDS]`.

Prints what its processes hold each 10 s, and at the end by how much that rose after the first third.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from scalelite.store.db import connect
from scalelite.store.embedded import embedded
from scalelite.wiring import prepare
from tests.e2e.soak import growth, soak
from tests.web.conftest import Cluster

HALF_AN_HOUR = 1800.0


async def run(conninfo: str, seconds: float) -> None:
    await prepare(conninfo)
    samples = []
    async with connect(conninfo, "soak") as connection, AsyncExitStack() as stack:
        async for sample in soak(Cluster(conninfo, connection, stack), seconds, min(10.0, seconds / 12)):
            print(sample, flush=True)
            samples.append(sample)
    for what, share in growth(samples[len(samples) // 3 :]).items():
        print(f"{what}: {share:+.1%}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home, embedded(Path(home), linger_s=1) as address:
        asyncio.run(run(address, float(sys.argv[1]) if len(sys.argv) > 1 else HALF_AN_HOUR))
