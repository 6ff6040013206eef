"""Memory, descriptors and connections stay flat under load, in the full level for a minute; SCALELITE_SOAK: seconds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from tests.e2e.soak import growth, soak

if TYPE_CHECKING:
    from tests.web.conftest import Cluster

SECONDS: Final = float(os.environ.get("SCALELITE_SOAK", "60" if os.environ.get("SCALELITE_TESTS") == "full" else "0"))


@pytest.mark.skipif(not SECONDS, reason="a minute; in the full level, or with SCALELITE_SOAK")
@pytest.mark.shows("operations: no leak in a soak", "issue E: soak")
async def test_nothing_grows_while_calls_come_and_servers_fail(cluster: Cluster) -> None:
    """The first third warms caches up."""
    samples = [sample async for sample in soak(cluster, SECONDS, SECONDS / 30)]
    print(*samples, sep="\n")  # noqa: T201 - what pytest shows where it fails
    found = growth(samples[len(samples) // 3 :])
    assert samples[-1].calls > 100
    assert found["memory_kib"] < 0.1
    assert found["descriptors"] < 0.3, "connections to servers that fail come and go"
    assert found["connections"] < 0.3
