"""What a call costs: signed calls beside bare Sanic, in one run: `python -m benchmarks.service`; needs wrk.

CPU microseconds a request of the service's processes (its main process and workers, from /proc), and requests/s with
wrk at 64 connections; client, Postgres and simulated servers share the machine. Medians of the rounds.
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
from contextlib import ExitStack, contextmanager
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

ROUNDS = 3
SECONDS = 4
SERVERS = 3
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


def measure(group: int, port: int, paths: Sequence[str]) -> Figure:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "paths").write_text("\n".join(paths))
        (Path(folder) / "script.lua").write_text(SCRIPT % f"{folder}/paths")
        command = ["wrk", "-t2", "-c64", f"-d{SECONDS}s", "-H", f"Host: {HOST}:{port}", "-s", f"{folder}/script.lua"]
        before = cpu_s(group)
        out = subprocess.run([*command, f"http://127.0.0.1:{port}/"], check=True, capture_output=True, text=True).stdout
        used = cpu_s(group) - before
    found = re.search(r"(\d+) requests in", out)
    if found is None or "Non-2xx" in out:
        raise SystemExit(f"wrk: {out}")
    return Figure(used / int(found[1]) * 1e6, int(found[1]) / SECONDS)


def main() -> None:
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        conninfo = stack.enter_context(embedded(Path(home), linger_s=1))
        asyncio.run(seed(conninfo))
        environment = dict(os.environ) | {
            "DATABASE_URL": conninfo, "MULTITENANCY_ENABLED": "true", "URL_HOST": "sl.localhost", "LOG_LEVEL": "error",
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
        known = [
            signed("create", meetingID=f"known-{n}", name="Known", attendeePW="ap", moderatorPW="mp") for n in range(50)
        ]
        for path in known:
            urllib.request.urlopen(
                urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", headers={"Host": HOST})
            ).close()
        report(group, bare, known)


def report(group: int, bare: int, known: list[str]) -> None:
    rooms = [f"known-{n}" for n in range(50)]
    figures: dict[str, list[Figure]] = {}
    for round_ in range(ROUNDS):
        new = [
            signed("create", meetingID=f"new-{round_}-{n}", name="New", attendeePW="ap", moderatorPW="mp")
            for n in range(60_000)
        ]
        calls = {
            "bare Sanic": (bare, BARE_PORT, ["/"]),
            "isMeetingRunning": (group, PORT, [signed("isMeetingRunning", meetingID=room) for room in rooms]),
            "getMeetingInfo": (group, PORT, [signed("getMeetingInfo", meetingID=room) for room in rooms]),
            "join": (group, PORT, [signed("join", meetingID=room, fullName="A", role="VIEWER") for room in rooms]),
            "create, existing": (group, PORT, known),
            "create, new": (group, PORT, new),
        }
        for name, (of, port, paths) in calls.items():
            figures.setdefault(name, []).append(measure(of, port, paths))
    base = statistics.median(figure.cpu_us for figure in figures["bare Sanic"])
    print("| call | CPU µs a request | x bare Sanic | requests/s |\n|---|---|---|---|")
    for name, measured in figures.items():
        cpu = statistics.median(figure.cpu_us for figure in measured)
        per_s = statistics.median(figure.per_s for figure in measured)
        print(f"| {name} | {cpu:,.0f} | {cpu / base:.1f} | {per_s:,.0f} |")


if __name__ == "__main__":
    main()
