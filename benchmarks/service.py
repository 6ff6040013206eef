"""What a call costs: signed calls beside bare Sanic, in one run: `python -m benchmarks.service [ROUNDS]`; needs wrk.

CPU microseconds a request of the service's processes (its main process and workers, from /proc), requests/s and
latency with wrk at 64 connections; client, Postgres and simulated servers share the machine. Medians of the rounds.
Then what 5 and 50 times as many connections get, and what memory the workers have grown by.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
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
LONGEST_START_S = 60
FIRST_PORT = 15_000
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
class Serving:
    """A server that runs: its process group and its port."""

    group: int
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@dataclass(frozen=True)
class Figure:
    cpu_us: float
    per_s: float
    median_ms: float
    p99_ms: float
    refused_per_s: float = 0.0


def signed(call: str, **params: str) -> str:
    return f"{PREFIX}/{call}?{wire.sign(call, urlencode(params), SECRET, 'SHA256')}"


async def seed(conninfo: str, first_port: int) -> None:
    servers = {
        Key(Kind.SERVER, f"bbb{n}"): ServerSpec(
            id=f"bbb{n}", url=f"http://127.0.0.1:{first_port + n}{PREFIX}", secret=Secret(f"sim-secret-{n + 1}")
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
    """Run a server until it answers, and then what follows; yield the id of its process group.

    It must be ours that answers: nobody may answer before it runs, and it must run when somebody does.
    """
    if answers(url):
        raise SystemExit(f"{url} is another's")
    child = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + LONGEST_START_S
        while not answers(url):
            if child.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(command)} does not answer at {url}")
            time.sleep(0.05)
        if child.poll() is not None:
            raise SystemExit(f"{url} is another's")
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def free_ports(count: int = 1) -> int:
    """Return the first of so many ports in a row that nobody listens on."""
    for first in range(FIRST_PORT, 32_000, max(count, 10)):
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise SystemExit("no free ports")


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


def measure(of: Serving, paths: Sequence[str], connections: int = CONNECTIONS) -> Figure:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "paths").write_text("\n".join(paths))
        (Path(folder) / "script.lua").write_text(SCRIPT % f"{folder}/paths")
        command = ["wrk", "-t2", f"-c{connections}", f"-d{SECONDS}s", "--latency", "--timeout", "20s"]
        command += ["-H", f"Host: {HOST}:{of.port}", "-s", f"{folder}/script.lua", of.url]
        before = cpu_s(of.group)
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        used = cpu_s(of.group) - before
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
        simulated = free_ports(SERVERS)
        asyncio.run(seed(conninfo, simulated))
        # One poll: later ones would read what the rounds have created, more than a server may answer.
        environment = dict(os.environ) | {
            "DATABASE_URL": conninfo, "MULTITENANCY_ENABLED": "true", "URL_HOST": "sl.localhost", "LOG_LEVEL": "error",
            "POLL_INTERVAL": "3600",
        }  # fmt: skip
        ours = [sys.executable, "-m", "scalelite"]
        simulate = [*ours, "simulate", "--servers", str(SERVERS), "--first-port", str(simulated)]
        stack.enter_context(running(simulate, f"http://127.0.0.1:{simulated}{PREFIX}", environment))
        port = free_ports()
        serve = [*ours, "serve", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
        ready = f"http://127.0.0.1:{port}/health/ready"
        service = Serving(stack.enter_context(running(serve, ready, environment)), port)
        port = free_ports()
        (Path(home) / "bare.py").write_text(BARE.format(port=port))
        command = [sys.executable, f"{home}/bare.py"]
        bare = Serving(stack.enter_context(running(command, f"http://127.0.0.1:{port}/", environment)), port)
        report(service, bare, rounds=int(sys.argv[1]) if sys.argv[1:] else ROUNDS)


def create(room: str, name: str) -> str:
    return signed("create", meetingID=room, name=name, attendeePW="ap", moderatorPW="mp")


def report(service: Serving, bare: Serving, rounds: int) -> None:
    rooms = [f"known-{n}" for n in range(ROOMS)]
    known = [create(room, "Known") for room in rooms]
    calls: dict[str, Sequence[str]] = {
        "isMeetingRunning": [signed("isMeetingRunning", meetingID=room) for room in rooms],
        "getMeetingInfo": [signed("getMeetingInfo", meetingID=room) for room in rooms],
        "join": [signed("join", meetingID=room, fullName="A", role="VIEWER") for room in rooms],
        "create, existing": known,
        f"getMeetings, {SERVERS} x {ROOMS // SERVERS}": [signed("getMeetings")],
    }
    for paths in (known, *calls.values()):
        for path in paths:
            check(service, path)
    rows = Rows()
    for _ in range(rounds):
        rows.add_round(measure(bare, ["/"]), {name: measure(service, paths) for name, paths in calls.items()})
    overload(service, calls["isMeetingRunning"])
    memory(service, [*calls["isMeetingRunning"], *calls["join"]])
    for round_ in range(rounds):
        new = [create(f"new-{round_}-{n}", "New") for n in range(NEW_ROOMS)]
        rows.add_round(measure(bare, ["/"]), {"create, new": measure(service, new)})
    rows.print()


def check(service: Serving, path: str) -> None:
    """See that a call succeeds before it is measured, once the servers have been polled: a failure would be quick."""
    deadline = time.monotonic() + LONGEST_START_S
    while not succeeds(service, path):
        if time.monotonic() > deadline:
            raise SystemExit(f"{path} fails")
        time.sleep(0.1)


def succeeds(service: Serving, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    connection.request("GET", path, headers={"Host": HOST})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status == 302 or b"<returncode>SUCCESS" in body


@dataclass
class Rows:
    """The figures of all rounds by call, and how many times the CPU of bare Sanic in the same round each took."""

    figures: dict[str, list[Figure]] = field(default_factory=dict)
    times_bare: dict[str, list[float]] = field(default_factory=dict)

    def add_round(self, bare: Figure, calls: dict[str, Figure]) -> None:
        for name, figure in {"bare Sanic": bare, **calls}.items():
            self.figures.setdefault(name, []).append(figure)
            self.times_bare.setdefault(name, []).append(figure.cpu_us / bare.cpu_us)

    def print(self) -> None:
        """Print the medians; the slowest 1 % must be served within ten times the median."""
        print("| call | CPU µs a request | x bare Sanic | requests/s | median ms | p99 ms | p99 / median | refused/s |")
        print("|---|---|---|---|---|---|---|---|")
        for name, figures in self.figures.items():
            cpu, per_s, refused, median, p99 = (
                statistics.median(getattr(figure, what) for figure in figures)
                for what in ("cpu_us", "per_s", "refused_per_s", "median_ms", "p99_ms")
            )
            times = statistics.median(self.times_bare[name])
            spread = statistics.median(figure.p99_ms / figure.median_ms for figure in figures)
            late = " (not under 10)" if spread >= 10 else ""
            print(
                f"| {name} | {cpu:,.0f} | {times:.1f} | {per_s:,.0f} | {median:.1f} | {p99:.1f} | {spread:.1f}{late} |"
                f" {refused:,.0f} |"
            )


def overload(service: Serving, paths: Sequence[str]) -> None:
    """Say what more and more connections get, beside what a few get."""
    best = max(measure(service, paths, connections).per_s for connections in (16, CONNECTIONS))
    for times in (5, 50):
        got = measure(service, paths, times * CONNECTIONS)
        print(
            f"{times} x {CONNECTIONS} connections: {got.per_s / best:.0%} of the best answered,"
            f" {got.refused_per_s:,.0f}/s refused, median {got.median_ms:.0f} ms, p99 {got.p99_ms:.0f} ms"
        )


def memory(service: Serving, paths: Sequence[str]) -> None:
    """Say how the memory of all workers grows over many calls."""
    before, calls = memory_mb(service.group), 0.0
    while calls < MOST_CALLS_FOR_MEMORY:
        calls += measure(service, paths).per_s * SECONDS
    after = memory_mb(service.group)
    print(
        f"memory of the service: {before:.1f} MB, after {calls:,.0f} calls {after:.1f} MB ({after / before - 1:+.1%})"
    )


if __name__ == "__main__":
    main()
