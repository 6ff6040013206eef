"""Nothing that the service holds grows: a soak of 10 minutes, at a rate that leaves the machine to the other tests."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.soak import Sample, leaks

SECONDS = os.environ.get("SCALELITE_SOAK", "600")
# About 3 % of a core with the servers and Postgres that belong to it.
CALLS_PER_S = "16"
ROOT = Path(__file__).parents[2]


@pytest.mark.beside
@pytest.mark.shows("operations: no leak in a soak", "issue E: soak")
def test_nothing_grows_while_calls_come_and_servers_fail() -> None:
    command = ["nice", "-n", "5", sys.executable, "-m", "benchmarks.soak", SECONDS, CALLS_PER_S]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=float(SECONDS) + 120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.shows("operations: no leak in a soak")
@pytest.mark.parametrize("what", ["memory_kib", "descriptors", "connections", "tasks"])
def test_a_soak_tells_what_grows_from_what_comes_and_goes(what: str) -> None:
    flat = [Sample(at, at * 100, 150_000 + at % 7 * 50, 60 + at % 5, 10 + at % 3, 23 + at % 4) for at in range(30)]
    assert leaks(flat) == []
    growing = [dataclasses.replace(s, **{what: getattr(s, what) * (1 + s.calls / 2000)}) for s in flat]
    assert [leak.partition(":")[0] for leak in leaks(growing)] == [what]
