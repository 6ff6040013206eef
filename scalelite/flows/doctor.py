"""Checks a whole installation, read-only: a finding a line, each ok, warn or fail."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from scalelite.core import commands
from scalelite.core.model import ClusterSpec, Key, Kind, TenantSpec
from scalelite.core.show import counted, plain
from scalelite.edge.probe import look_at, open_session
from scalelite.flows.admin import read_live
from scalelite.flows.cluster import cluster_view
from scalelite.flows.status import servers_with_rows
from scalelite.store import db, observed
from scalelite.store.rotation import keys_in_use
from scalelite.store.seal import CLEAR

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp

    from scalelite.core.model import Declared, ServerSpec
    from scalelite.edge.probe import Look
    from scalelite.settings import Settings
    from scalelite.store.db import Connection

Level = Literal["ok", "warn", "fail"]

_AT_ONCE: Final = 100
_CLOCK_WARN_S, _CLOCK_FAIL_S = 30.0, 300.0
_CERTIFICATE_WARN_S: Final = 14 * 86_400.0
_OLDEST_POSTGRES: Final = 15
# A round may take as long as its slowest server, twice.
_STALE_ROUNDS, _STALE_S = 3, 30.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    level: Level
    subject: str
    text: str


# --- the database ----------------------------------------------------------------------------------------------------


async def examine_database(connection: Connection, now_s: float) -> list[Finding]:
    """Check the database itself; what is in it can be looked at if none of these is a fail."""
    version, database_s = await observed.postgres(connection)
    major = version // 10_000
    good = major >= _OLDEST_POSTGRES
    text = f"Postgres {major} answers" if good else f"Postgres {major} is too old: {_OLDEST_POSTGRES} or later"
    pending = await db.pending_migrations(connection)
    lacks = f"{counted(len(pending), 'migration')} to run: scalelite db migrate"
    return [
        Finding("ok" if good else "fail", "database", text),
        _clock("database", database_s - now_s),
        Finding("fail", "migrations", lacks) if pending else Finding("ok", "migrations", "none is pending"),
    ]


def _clock(subject: str, ahead_s: float) -> Finding:
    level = _clock_level(ahead_s)
    return Finding(level, f"{subject} clock", f"{ahead_s:+.1f} s from ours")


def _clock_level(ahead_s: float) -> Level:
    apart = abs(ahead_s)
    return "fail" if apart > _CLOCK_FAIL_S else "warn" if apart > _CLOCK_WARN_S else "ok"


# --- what is in it ---------------------------------------------------------------------------------------------------


async def examine_cluster(connection: Connection, settings: Settings) -> list[Finding]:
    """Check secrets at rest, the poller, names, settings, and each server."""
    declared = (await read_live(connection)).declared
    servers = [(spec, row.state) for spec, row in await servers_with_rows(connection)]
    used = await keys_in_use(connection)
    age_s = await observed.round_age_s(connection)
    in_use = sum(state != "disabled" for _, state in servers)
    return [
        secrets_at_rest(used, connection.sealer.key_ids),
        poller(age_s, settings.poll_interval_s, in_use),
        *await names(declared, settings),
        *said_twice(declared.objects.get(Key(Kind.CLUSTER)), settings),
        *await examine_servers(declared, settings, {spec.id: state for spec, state in servers}),
    ]


def secrets_at_rest(used: dict[str, int], known: tuple[str, ...]) -> Finding:
    """Say how the stored secrets are kept; `used` counts them by the id of their key."""
    unknown = sorted(set(used) - set(known) - {CLEAR})
    if unknown:
        text = f"sealed with {', '.join(unknown)}, which SCALELITE_ENCRYPTION_KEY lacks"
        return Finding("fail", "secrets at rest", text)
    if clear := used.get(CLEAR, 0):
        remedy = "scalelite db rotate-keys seals them" if known else "set SCALELITE_ENCRYPTION_KEY"
        return Finding("warn", "secrets at rest", f"{counted(clear, 'secret')} in clear: {remedy}")
    if old := sorted(set(used) - set(known[:1])):
        text = f"some are sealed with an old key ({', '.join(old)}): scalelite db rotate-keys"
        return Finding("warn", "secrets at rest", text)
    return Finding("ok", "secrets at rest", f"{counted(sum(used.values()), 'secret')} sealed")


def poller(age_s: float | None, interval_s: float, servers: int) -> Finding:
    """Say whether the poller is at work, by the age of its last round."""
    if age_s is None:
        return Finding("fail" if servers else "ok", "poller", "has never polled: scalelite serve, or scalelite poll")
    level: Level = "fail" if servers and age_s > max(_STALE_ROUNDS * interval_s, _STALE_S) else "ok"
    stale = " (stale)" if level == "fail" else ""
    return Finding(level, "poller", f"its last round ended {age_s:.0f} s ago{stale}")


# --- names and settings ----------------------------------------------------------------------------------------------


async def names(declared: Declared, settings: Settings) -> list[Finding]:
    """Check that URL_HOST and the tenants' hosts resolve."""
    if not settings.url_host:
        return [Finding("warn", "URL_HOST", "is not set: every host name is answered, and callbacks are not possible")]
    tenants = [spec for spec in commands.tenants(declared) if settings.multitenancy and spec.enabled]
    hosts = [settings.url_host, *(host for spec in tenants for host in _hosts(spec, settings.url_host))]
    resolved = dict(zip(hosts, await asyncio.gather(*map(_resolves, hosts)), strict=True))
    missing = [host for host in hosts[1:] if not resolved[host]]
    found = [
        Finding("ok", "URL_HOST", f"{settings.url_host} resolves")
        if resolved[settings.url_host]
        else Finding("fail", "URL_HOST", f"{settings.url_host} does not resolve")
    ]
    if missing:
        found.append(Finding("warn", "tenants' hosts", f"{len(missing)} do not resolve: {', '.join(missing[:3])}"))
    elif tenants:
        found.append(Finding("ok", "tenants' hosts", f"all {len(hosts) - 1} resolve"))
    return found


def _hosts(tenant: TenantSpec, url_host: str) -> tuple[str, ...]:
    return tenant.hosts or (f"{tenant.name}.{url_host}",)


async def _resolves(host: str) -> bool:
    try:
        return bool(await asyncio.get_running_loop().getaddrinfo(host, None))
    except (socket.gaierror, UnicodeError):
        return False


def said_twice(cluster: object, settings: Settings) -> Iterator[Finding]:
    """Warn of what both the inventory's cluster section and the environment say: the inventory wins."""
    if not isinstance(cluster, ClusterSpec):
        return
    declared = {
        "LOAD_MIN_USER_COUNT": cluster.load.min_user_count is not None,
        "LOAD_JOIN_BUFFER_TIME": cluster.load.join_buffer_minutes is not None,
        "SERVER_HEALTHY_THRESHOLD": cluster.health.healthy_threshold is not None,
        "SERVER_UNHEALTHY_THRESHOLD": cluster.health.unhealthy_threshold is not None,
        "MAX_MEETING_DURATION": cluster.max_meeting_duration is not None,
        "DEFAULT_CREATE_PARAMS": bool(cluster.create.default),
        "OVERRIDE_CREATE_PARAMS": bool(cluster.create.override),
        "DEFAULT_JOIN_PARAMS": bool(cluster.join.default),
        "OVERRIDE_JOIN_PARAMS": bool(cluster.join.override),
    }
    both = [name for name, is_declared in declared.items() if is_declared and name in settings.given]
    if both:
        text = f"{', '.join(both)}: the inventory's cluster section says it too, and wins"
        yield Finding("warn", "settings", text)


def ignored_settings(ignored: tuple[str, ...]) -> Finding:
    """List what the environment says to no effect."""
    if ignored:
        return Finding("warn", "old settings", f"without effect: {', '.join(ignored)}")
    return Finding("ok", "old settings", "none is without effect")


# --- servers ---------------------------------------------------------------------------------------------------------


async def examine_servers(declared: Declared, settings: Settings, states: dict[str, str]) -> list[Finding]:
    """Look at each server; what fails of a disabled one is only a warning."""
    cluster = declared.objects.get(Key(Kind.CLUSTER), ClusterSpec())
    algorithm = cluster_view(cluster, settings).algorithm if isinstance(cluster, ClusterSpec) else ""
    slots = asyncio.Semaphore(_AT_ONCE)
    async with open_session() as session:

        async def check(server: ServerSpec) -> Finding:
            async with slots:
                return await _check(session, server, algorithm, settings.poller_timeout_s)

        found = await asyncio.gather(*map(check, commands.servers(declared)))
    return [
        Finding("warn", finding.subject, f"{finding.text} (disabled)")
        if finding.level == "fail" and states.get(server.id) == "disabled"
        else finding
        for server, finding in zip(commands.servers(declared), found, strict=True)
    ]


async def _check(session: aiohttp.ClientSession, server: ServerSpec, algorithm: str, timeout_s: float) -> Finding:
    seen = await look_at(session, server, algorithm, timeout_s)
    return judged(server.id, seen)


def judged(server: str, seen: Look) -> Finding:
    """Make one finding of what was seen of a server: the worst of it decides."""
    subject = f"server {plain(server)}"
    if seen.failure:
        return Finding("fail", subject, seen.failure)
    if seen.key == "checksumError":
        return Finding("fail", subject, "refuses the secret")
    if seen.key:
        return Finding("fail", subject, f"answers {plain(seen.key)}")
    levels: list[Level] = ["ok"]
    parts = ["answers, takes the secret"]
    if seen.clock_s is not None:
        levels.append(_clock_level(seen.clock_s))
        parts.append(f"clock {seen.clock_s:+.0f} s")
    if seen.certificate_s is not None:
        levels.append("warn" if seen.certificate_s < _CERTIFICATE_WARN_S else "ok")
        parts.append(f"certificate good for {seen.certificate_s / 86_400:.0f} d")
    worst: Level = "fail" if "fail" in levels else "warn" if "warn" in levels else "ok"
    return Finding(worst, subject, ", ".join(parts))
