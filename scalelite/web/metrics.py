"""Metrics for Prometheus: what the workers count, added up over all of them, and what Postgres knows of the cluster.

Processes count in files of one folder (prometheus_client's multiprocess mode); gauges of the cluster are read when
they are asked for, so that every worker of every replica tells the same.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import tempfile
import time
from bisect import bisect_left
from collections import Counter as Counter_
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from scalelite import logs
from scalelite.errors import ApiError, UpstreamFailed
from scalelite.settings import tell_children

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric

    from scalelite.flows.observed import Observed
    from scalelite.flows.status import ServerRow
    from scalelite.settings import Settings

log = logging.getLogger(__name__)

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SECONDS: Final = Histogram(
    "scalelite_request_duration_seconds", "How long calls took to answer.", ["api", "call"], buckets=_BUCKETS
)
_OUTCOMES: Final = Counter(
    "scalelite_requests",
    "Calls by outcome: answered, refused (the caller's fault), upstream_failed (a server's), error (ours).",
    ["api", "call", "outcome"],
)

_TASKS: Final = Gauge(
    "scalelite_tasks", "What workers and the poller have under way, asyncio's tasks.", multiprocess_mode="livesum"
)

# Counted here, and added to the shared files every second: those cost 20 µs a call, dictionaries 1.
_FLUSH_S: Final = 1.0
_outcomes: Counter_[tuple[str, str, str]] = Counter_()
_times: dict[tuple[str, str], _Times] = {}


class _Times:
    """How long calls of one name took since the last flush."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_BUCKETS) + 1)
        self.seconds = 0.0


@contextmanager
def measured(api: str, call: str) -> Iterator[None]:
    """Count a call with its outcome and its time; `call` must come from a list, not from who calls."""
    logs.begin_request()
    began = time.perf_counter()
    outcome = "error"
    try:
        yield
        outcome = "answered"
    except UpstreamFailed:
        outcome = "upstream_failed"
        raise
    except Exception as error:
        outcome = "refused" if _is_callers_fault(error) else "error"
        raise
    finally:
        took_s = time.perf_counter() - began
        times = _times.get((api, call)) or _times.setdefault((api, call), _Times())
        times.seconds += took_s
        times.buckets[bisect_left(_BUCKETS, took_s)] += 1
        _outcomes[api, call, outcome] += 1


async def flush_forever() -> None:
    """Add what was counted to the shared files every second, until cancelled."""
    try:
        while True:
            await asyncio.sleep(_FLUSH_S)
            flush()
    finally:
        flush()


def flush() -> None:
    """Add what was counted since the last time to the shared files, and note how many tasks there are."""
    _TASKS.set(len(asyncio.all_tasks()))
    for (api, call, outcome), count in _outcomes.items():
        _OUTCOMES.labels(api, call, outcome).inc(count)
    for (api, call), times in _times.items():
        histogram = _SECONDS.labels(api, call)
        # `observe` takes one call at a time; there is no public way to add many.
        histogram._sum.inc(times.seconds)  # noqa: SLF001
        for bucket, count in zip(histogram._buckets, times.buckets, strict=True):  # noqa: SLF001
            if count:
                bucket.inc(count)
    _outcomes.clear()
    _times.clear()


def _is_callers_fault(error: Exception) -> bool:
    """Say whether who calls can mend it: API errors have status 200, others one below 500."""
    status = getattr(error, "status", getattr(error, "http_status", 500))
    return status < 500 and (not isinstance(error, ApiError) or error.message_key != "internalError")


# --- one folder for all processes ------------------------------------------------------------------------------------


@contextmanager
def sharing(settings: Settings) -> Iterator[Settings]:
    """Have the processes that are started within count in one folder; what was left in it by others is removed."""
    if settings.metrics_folder:
        settings.metrics_folder.mkdir(parents=True, exist_ok=True)
        for old in settings.metrics_folder.glob("*.db"):
            old.unlink(missing_ok=True)
        yield settings
        return
    try:
        temporary = tempfile.TemporaryDirectory(prefix="scalelite-metrics-")
    except OSError as error:
        log.warning("each worker counts by itself: no temporary folder can be made (%s)", error.strerror)
        yield settings
        return
    with temporary as folder:
        tell_children("PROMETHEUS_MULTIPROC_DIR", folder)
        yield dataclasses.replace(settings, metrics_folder=Path(folder))


def exposition(settings: Settings, observed: Observed | None) -> bytes:
    """Return all metrics as Prometheus reads them; without `observed`, the cluster's are left out."""
    processes: CollectorRegistry = REGISTRY
    if settings.metrics_folder:
        processes = CollectorRegistry()
        _forget_dead(settings.metrics_folder)
        MultiProcessCollector(processes, path=str(settings.metrics_folder))  # type: ignore[no-untyped-call]
    cluster = CollectorRegistry()
    cluster.register(_Cluster(observed))
    return generate_latest(processes) + generate_latest(cluster)


def _forget_dead(folder: Path) -> None:
    """Have gauges count living processes only: a worker that was killed leaves its own behind."""
    for path in folder.glob("gauge_live*_*.db"):
        try:
            os.kill(int(path.stem.rpartition("_")[2]), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except PermissionError:  # another user's, in its place
            continue


# --- what Postgres knows ---------------------------------------------------------------------------------------------


class _Cluster(Collector):
    """Tells what was observed."""

    def __init__(self, observed: Observed | None) -> None:
        self._observed = observed

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        yield _gauge("database_up", "Whether Postgres answered just now.", [((), self._observed is not None)])
        if found := self._observed:
            yield from _servers(found.servers)
            yield _gauge(
                "tenant_meetings", "Meetings of a tenant.", [((t.name,), t.meetings) for t in found.tenants], "tenant"
            )
            yield _gauge(
                "tenant_users",
                "People in them, as last polled.",
                [((t.name,), t.users) for t in found.tenants],
                "tenant",
            )
            yield _gauge(
                "queue_depth",
                "What waits to be done, or was given up.",
                [((k,), v) for k, v in found.queues.items()],
                "queue",
            )
            yield _gauge(
                "drift_objects", "Objects changed outside of the inventory since it was applied.", [((), found.drift)]
            )
            yield from _poll(found)


def _servers(servers: list[ServerRow]) -> Iterator[Metric]:
    for name, what in {
        "load": "Load with the multiplier, and with what was placed since the last poll.",
        "meetings": "Meetings on a server.",
        "users": "People on a server, as last polled.",
        "videos": "Cameras on a server, as last polled.",
    }.items():
        yield _gauge(f"server_{name}", what, [((row.id,), getattr(row, name)) for row in servers], "server")
    polled = [((row.id,), datetime.fromisoformat(row.polled_at).timestamp()) for row in servers if row.polled_at]
    yield _gauge("server_last_poll_timestamp_seconds", "The last good poll of a server.", polled, "server")
    states = [((row.id, row.state), 1) for row in servers]
    yield _gauge("server_state", "1 for the state that a server is in: declared, or held.", states, "server", "state")
    healths = [((row.id, row.health), 1) for row in servers]
    yield _gauge("server_health", "1 for what polls say of a server.", healths, "server", "health")


def _poll(found: Observed) -> Iterator[Metric]:
    if last := found.poll:
        yield _gauge(
            "poll_last_cycle_timestamp_seconds", "The end of the last round.", [((), last.ended_at.timestamp())]
        )
        yield _gauge("poll_duration_seconds", "How long it took.", [((), last.duration_s)])
        yield _gauge("poll_servers", "Servers that were polled.", [((), last.polled)])
        yield _gauge("poll_failed_servers", "Servers that failed in it.", [((), last.failed)])
        yield _gauge(
            "poll_suspect", "1 if so many failed that the poller suspects its own network.", [((), last.suspect)]
        )


def _gauge(name: str, what: str, rows: Iterable[tuple[tuple[str, ...], Any]], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"scalelite_{name}", what, labels=labels)
    for values, number in rows:
        family.add_metric(values, float(number))
    return family
