"""Does the service leak: calls, polls and failing servers, by hand 30 minutes: `python -m benchmarks.soak`.

`python -m benchmarks.soak SECONDS CALLS_PER_SECOND` takes another time, and leaves the machine to others. Prints what
the service's processes hold now and then; the exit status is 1 if something grew after the first third. It ends with
whoever started it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from scalelite.store.db import connect
from scalelite.store.embedded import embedded
from scalelite.wiring import prepare
from tests.e2e.soak import leaks, rises, soak
from tests.web.conftest import Cluster

HALF_AN_HOUR = 1800.0


async def run(conninfo: str, seconds: float, rate: float) -> list[str]:
    await prepare(conninfo)
    samples = []
    parent = os.getppid()
    async with connect(conninfo, "soak") as connection, AsyncExitStack() as stack:
        async for sample in soak(Cluster(conninfo, connection, stack), seconds, min(10.0, seconds / 30), rate):
            print(sample, flush=True)
            samples.append(sample)
            if os.getppid() != parent:
                return ["stopped: who started it is gone"]
    for what, (before, after) in rises(samples).items():
        print(f"{what}: {before:,.0f} -> {after:,.0f} ({after / before - 1:+.1%})")
    return leaks(samples)


def main(seconds: float = HALF_AN_HOUR, rate: float = 0) -> int:
    with tempfile.TemporaryDirectory() as home, embedded(Path(home), linger_s=1) as address:
        found = asyncio.run(run(address, seconds, rate))
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:])))
