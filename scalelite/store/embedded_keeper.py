"""Stops a home's Postgres after its last user; must not start anything.

    python -m scalelite.store.embedded_keeper HOME LINGER_S

Its standard error is HOME/postgres.keeper, handed to it locked: its log and its sign of life.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from scalelite.store.embedded import Cluster, try_flock

STOP_TIMEOUT_S = 60.0


def main() -> None:
    """Go into the background, wait, stop the server."""
    cluster, linger_s = Cluster.at(Path(sys.argv[1])), float(sys.argv[2])
    # As nobody's child: whoever started us neither waits for us nor is left with a zombie.
    if os.fork():
        os._exit(0)
    keep(cluster, linger_s)


def keep(cluster: Cluster, linger_s: float) -> None:
    """Stop the server when nobody has used it for `linger_s`, while new users wait at the lock."""
    opened = os.open(cluster.home, os.O_RDONLY | os.O_DIRECTORY)
    users = os.open(cluster.home / "postgres.users", os.O_RDWR)
    wait_until_unused(users, linger_s)
    # The folder as opened, rather than its path: it may have been moved since.
    stop(replace(cluster, home=Path(f"/proc/self/fd/{opened}")))
    if cluster.socket_folder != cluster.data:
        with suppress(OSError):
            cluster.socket_folder.rmdir()
    # In this order: whoever gets in next must find that there is no keeper any more.
    fcntl.flock(sys.stderr.fileno(), fcntl.LOCK_UN)
    os.close(users)


def wait_until_unused(users: int, linger_s: float) -> None:
    """Return with the exclusive lock once nobody has held it, or come by, for `linger_s`.

    The kernel wakes us when the last user is gone; only while lingering is there something to poll for.
    """
    while True:
        fcntl.flock(users, fcntl.LOCK_EX)
        came_ns, idle_since_s = os.fstat(users).st_mtime_ns, time.monotonic()
        while os.fstat(users).st_mtime_ns == came_ns:
            if time.monotonic() - idle_since_s >= linger_s:
                return
            fcntl.flock(users, fcntl.LOCK_UN)
            time.sleep(min(1.0, linger_s / 4))
            if not try_flock(users, fcntl.LOCK_EX):
                break


def stop(cluster: Cluster) -> None:
    """Stop the server as `pg_ctl stop -m fast` does, rolling back and with a checkpoint; after a minute, without."""
    for way, timeout_s in ((signal.SIGINT, STOP_TIMEOUT_S), (signal.SIGQUIT, 5.0)):
        pid = cluster.postmaster()
        if pid is None:
            return
        os.kill(pid, way)
        deadline_s = time.monotonic() + timeout_s
        while cluster.postmaster() == pid and time.monotonic() < deadline_s:
            time.sleep(0.02)


if __name__ == "__main__":
    main()
