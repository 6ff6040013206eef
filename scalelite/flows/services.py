"""What flows are handed: the outside world as values; opened by wiring, faked by nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random
    from uuid import UUID

    from scalelite.edge.bbb import BbbClient
    from scalelite.edge.disk import Disk
    from scalelite.edge.folders import Storage
    from scalelite.edge.outbound import Outbound
    from scalelite.settings import Settings
    from scalelite.store.db import Database


@dataclass(frozen=True, slots=True)
class Services:
    """Open adapters and the sources of time, ids and chance; `now_ms` is milliseconds since 1970."""

    settings: Settings
    database: Database
    bbb: BbbClient
    outbound: Outbound
    now_ms: Callable[[], int]
    new_id: Callable[[], UUID]
    random: Random
    disk: Disk
    recordings: Storage
