"""Nothing that the service holds grows: a soak that runs beside all other tests, and is waited for at their end.

In the full level it takes 10 minutes, at a rate that leaves the machine to the others; SCALELITE_SOAK: other seconds.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests.e2e.soak import Sample, leaks

if TYPE_CHECKING:
    from tests.beside import Soak


@pytest.mark.beside
@pytest.mark.shows("operations: no leak in a soak", "issue E: soak")
def test_nothing_grows_while_calls_come_and_servers_fail(soak: Soak) -> None:
    status, told = soak.join()
    print(told)  # noqa: T201 - what pytest shows where it fails
    assert status == 0


@pytest.mark.shows("operations: no leak in a soak")
@pytest.mark.parametrize("what", ["memory_kib", "descriptors", "connections", "tasks"])
def test_a_soak_tells_what_grows_from_what_comes_and_goes(what: str) -> None:
    flat = [Sample(at, at * 100, 150_000 + at % 7 * 50, 60 + at % 5, 10 + at % 3, 23 + at % 4) for at in range(30)]
    assert leaks(flat) == []
    growing = [dataclasses.replace(s, **{what: getattr(s, what) * (1 + s.calls / 2000)}) for s in flat]
    assert [leak.partition(":")[0] for leak in leaks(growing)] == [what]
