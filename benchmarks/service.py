"""What a call costs: signed calls beside bare Sanic, in one run: `python -m benchmarks.service [ROUNDS]`; needs wrk.

CPU microseconds a request of the service's processes (its main process and workers, from /proc), requests/s and
latency with wrk at 64 connections; client, Postgres and simulated servers share the machine. Medians of the rounds.
Then what 5 and 50 times as many connections get, and what memory the workers have grown by.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from scalelite.core import wire
from scalelite.core.model import Declared, Key, Kind, Secret, ServerSpec, TenantSpec
from scalelite.flows import reconcile
from scalelite.store.db import connect
from scalelite.store.embedded import embedded
from scalelite.store.specs import Author
from scalelite.wiring import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROUNDS = 5
SECONDS = 4
SERVERS, ROOMS = 3, 150
CONNECTIONS = 64
NEW_ROOMS = 60_000
MOST_CALLS_FOR_MEMORY = 100_000
PORT, BARE_PORT, SIMULATED_PORT = 3951, 3952, 3961
HOST, SECRET = "tenant1.sl.localhost", "tenant1-secret"
PREFIX = "/bigbluebutton/api"
TICKS = os.sysconf("SC_CLK_TCK")

BARE = """
from sanic import Sanic
from sanic.response import raw
app = Sanic("bare", configure_logging=False)
app.config.AUTO_EXTEND = app.config.ACCESS_LOG = False
@app.get("/")
async def constant(request):
    return raw(b"<response/>", content_type="application/xml")
if __name__ == "__main__":
    app.run(host="127.0.0.1", port={port}, workers=2, motd=False, access_log=False)
"""

# wrk's script: each thread takes the next path of its own share of a file.
SCRIPT = """
local paths, place, step = {}, 0, 0
local threads = 0
function setup(thread) thread:set("first", threads); threads = threads + 1 end
function init(args)
  for line in io.lines("%s") do paths[#paths + 1] = line end
  place = first * math.floor(#paths / 2)
end
function request()
  place = place %% #paths + 1
  return wrk.format("GET", paths[place])
end
"""


@dataclass(frozen=True)
class Figure:
    cpu_us: float
    per_s: float
    median_ms: float
    p99_ms: float
    refused_per_s: float = 0.0


def signed(call: str, **params: str) -> str:
    return f"{PREFIX}/{call}?{wire.sign(call, urlencode(params), SECRET, 'SHA256')}"


async def seed(conninfo: str) -> None:
    servers = {
        Key(Kind.SERVER, f"bbb{n}"): ServerSpec(
            id=f"bbb{n}", url=f"http://127.0.0.1:{SIMULATED_PORT + n}{PREFIX}", secret=Secret(f"sim-secret-{n + 1}")
        )
        for n in range(SERVERS)
    }
    tenant = {Key(Kind.TENANT, "tenant1"): TenantSpec(name="tenant1", secrets=(Secret(SECRET),))}
    wanted = Declared({**servers, **tenant})
    await prepare(conninfo)
    async with connect(conninfo, "benchmark") as connection:
        planned = await reconcile.plan(connection, wanted, "cordon")
        await reconcile.apply(connection, wanted, planned.plan, Author("benchmark"), uuid.uuid4, lock_timeout_s=5)


@contextmanager
def running(command: Sequence[str], url: str, environment: dict[str, str]) -> Iterator[int]:
    """Run a server until it answers; yield the id of its process group."""
    child = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(url, timeout=2).close()
                break
            except OSError:
                time.sleep(0.05)
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)


def cpu_s(group: int) -> float:
    """CPU seconds of a process group, from /proc/PID/stat."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory_mb(group: int) -> float:
    """What the processes of a group hold themselves, without what they share."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[2]) == group:
                found = re.search(r"RssAnon:\s+(\d+)", (stat.parent / "status").read_text())
                total += int(found[1]) if found else 0
    return total / 1024


def measure(group: int, port: int, paths: Sequence[str], connections: int = CONNECTIONS) -> Figure:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "paths").write_text("\n".join(paths))
        (Path(folder) / "script.lua").write_text(SCRIPT % f"{folder}/paths")
        command = ["wrk", "-t2", f"-c{connections}", f"-d{SECONDS}s", "--latency", "--timeout", "20s"]
        command += ["-H", f"Host: {HOST}:{port}", "-s", f"{folder}/script.lua", f"http://127.0.0.1:{port}/"]
        before = cpu_s(group)
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        used = cpu_s(group) - before
    count = int(found(r"(\d+) requests in", out))
    refused = int(found(r"Non-2xx or 3xx responses: (\d+)", out, "0"))
    if not count:
        raise SystemExit(f"wrk: {out}")
    return Figure(
        used / count * 1e6,
        (count - refused) / SECONDS,
        milliseconds(found(r"\n\s+50%\s+(\S+)", out)),
        milliseconds(found(r"\n\s+99%\s+(\S+)", out)),
        refused / SECONDS,
    )


def found(pattern: str, text: str, default: str = "") -> str:
    match = re.search(pattern, text)
    return match[1] if match else default


def milliseconds(text: str) -> float:
    """Read wrk's 1.23us, 4.56ms or 7.89s."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}[unit]


def main() -> None:
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        conninfo = stack.enter_context(embedded(Path(home), linger_s=1))
        asyncio.run(seed(conninfo))
        # One poll: later ones would read what the rounds have created, more than a server may answer.
        environment = dict(os.environ) | {
            "DATABASE_URL": conninfo, "MULTITENANCY_ENABLED": "true", "URL_HOST": "sl.localhost", "LOG_LEVEL": "error",
            "POLL_INTERVAL": "3600",
        }  # fmt: skip
        ours = [sys.executable, "-m", "scalelite"]
        simulate = [*ours, "simulate", "--servers", str(SERVERS), "--first-port", str(SIMULATED_PORT)]
        stack.enter_context(running(simulate, f"http://127.0.0.1:{SIMULATED_PORT}{PREFIX}", environment))
        serve = [*ours, "serve", "--host", "127.0.0.1", "--port", str(PORT), "--workers", "2"]
        group = stack.enter_context(running(serve, f"http://127.0.0.1:{PORT}/health/ready", environment))
        bare_file = Path(home) / "bare.py"
        bare_file.write_text(BARE.format(port=BARE_PORT))
        bare = stack.enter_context(
            running([sys.executable, str(bare_file)], f"http://127.0.0.1:{BARE_PORT}/", environment)
        )
        time.sleep(2)
        known = [create(f"known-{n}", "Known") for n in range(ROOMS)]
        for path in known:
            urllib.request.urlopen(
                urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", headers={"Host": HOST})
            ).close()
        report(group, bare, known, rounds=int(sys.argv[1]) if sys.argv[1:] else ROUNDS)


def create(room: str, name: str) -> str:
    return signed("create", meetingID=room, name=name, attendeePW="ap", moderatorPW="mp")


def report(group: int, bare: int, known: list[str], rounds: int) -> None:
    rooms = [f"known-{n}" for n in range(ROOMS)]
    running_ = [signed("isMeetingRunning", meetingID=room) for room in rooms]
    joins = [signed("join", meetingID=room, fullName="A", role="VIEWER") for room in rooms]
    calls: dict[str, tuple[int, int, Sequence[str]]] = {
        "bare Sanic": (bare, BARE_PORT, ["/"]),
        "isMeetingRunning": (group, PORT, running_),
        "getMeetingInfo": (group, PORT, [signed("getMeetingInfo", meetingID=room) for room in rooms]),
        "join": (group, PORT, joins),
        "create, existing": (group, PORT, known),
        f"getMeetings, {SERVERS} x {ROOMS // SERVERS}": (group, PORT, [signed("getMeetings")]),
    }
    figures: dict[str, list[Figure]] = {name: [] for name in (*calls, "create, new")}
    for _ in range(rounds):
        for name, call in calls.items():
            figures[name].append(measure(*call))
    overload(group, running_)
    memory(group, running_ + joins)
    for round_ in range(rounds):
        new = [create(f"new-{round_}-{n}", "New") for n in range(NEW_ROOMS)]
        figures["create, new"].append(measure(group, PORT, new))
    table(figures)


def table(figures: dict[str, list[Figure]]) -> None:
    base = statistics.median(figure.cpu_us for figure in figures["bare Sanic"])
    print("| call | CPU µs a request | x bare Sanic | requests/s | median ms | p99 ms | p99 / median | refused/s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, measured in figures.items():
        cpu, per_s, median, p99, refused = (
            statistics.median(getattr(figure, field) for figure in measured)
            for field in ("cpu_us", "per_s", "median_ms", "p99_ms", "refused_per_s")
        )
        print(
            f"| {name} | {cpu:,.0f} | {cpu / base:.1f} | {per_s:,.0f} | {median:.1f} | {p99:.1f} |"
            f" {p99 / median:.1f} | {refused:,.0f} |"
        )


def overload(group: int, paths: list[str]) -> None:
    """Say what more and more connections get, beside what a few get."""
    best = max(measure(group, PORT, paths, connections).per_s for connections in (16, CONNECTIONS))
    for times in (5, 50):
        got = measure(group, PORT, paths, times * CONNECTIONS)
        print(
            f"{times} x {CONNECTIONS} connections: {got.per_s / best:.0%} of the best answered,"
            f" {got.refused_per_s:,.0f}/s refused, median {got.median_ms:.0f} ms, p99 {got.p99_ms:.0f} ms"
        )


def memory(group: int, paths: list[str]) -> None:
    """Say how the memory of all workers grows over many calls."""
    before, calls = memory_mb(group), 0.0
    while calls < MOST_CALLS_FOR_MEMORY:
        calls += measure(group, PORT, paths).per_s * SECONDS
    after = memory_mb(group)
    print(
        f"memory of the service: {before:.1f} MB, after {calls:,.0f} calls {after:.1f} MB ({after / before - 1:+.1%})"
    )


if __name__ == "__main__":
    main()
