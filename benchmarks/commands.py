"""How long commands take to start and read: `python -m benchmarks.commands`; whole processes, best and median of 15.

The promises of spec/cli.md: 200 ms for --help, 400 ms for a command that reads a running database. Ends with 1 where
the processor's time alone is more than that.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.inventory import BIN
from scalelite.store.embedded import embedded

ROUNDS = 15
HELP_MS = 200
READ_MS = 400
COMMANDS = (
    ("--help",), ("servers", "--help"), ("status",), ("servers",), ("tenants",), ("tenant-settings",),
    ("meetings", "list"), ("recordings", "list"), ("history",), ("tokens", "list"), ("db", "status"),
    ("rake", "servers"),
)  # fmt: skip


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure all of it."""
    with tempfile.TemporaryDirectory() as temporary, embedded(Path(temporary) / "home") as conninfo:
        os.environ["DATABASE_URL"] = conninfo
        subprocess.run([BIN / "scalelite", "db", "migrate"], check=True, stdout=subprocess.DEVNULL)
        broken = []
        for command in COMMANDS:
            took, before = [], processor_s()
            for _ in range(ROUNDS):
                started = time.perf_counter()
                subprocess.run([BIN / "scalelite", *command], check=True, capture_output=True)
                took.append(time.perf_counter() - started)
            processor_ms = (processor_s() - before) / ROUNDS * 1000
            best, median = min(took) * 1000, statistics.median(took) * 1000
            name, promise = " ".join(command), HELP_MS if command[-1] == "--help" else READ_MS
            broken += [name] if processor_ms > promise else []
            times = f"best {best:4.0f} ms  median {median:4.0f} ms  processor {processor_ms:4.0f} ms"
            print(f"{name:<15} of {promise}  {times}")
    if broken:
        raise SystemExit(f"above what is promised: {', '.join(broken)}")


if __name__ == "__main__":
    main()
