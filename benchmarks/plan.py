"""What plan and apply cost: `python -m benchmarks.plan`; whole processes, best and median of five, peak memory.

10,000 servers and 1,000 tenants with 10 settings each, against an embedded Postgres; the growth from 100 servers; and
beside it, where they are installed, Terraform (as many `terraform_data` at 1,000) and octoDNS (YAML to YAML).
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.inventory import BIN, ROUNDS, SERVERS, SETTINGS, TENANTS, Cost, measured, report, server, tenant
from scalelite.flows import reconcile
from scalelite.flows.acting import Acting
from scalelite.inventory.load import load_inventory
from scalelite.store.db import connect
from scalelite.store.embedded import embedded
from scalelite.store.specs import Author
from scalelite.wiring import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZES = (100, 300, 1_000, 3_000, 10_000)
PEER_SIZE = 1_000
CHANGED_IN_TRANSACTION = 1_000


def inventory(path: Path, servers: int, tenants: int, changed: int = 0) -> Path:
    """Write an inventory; of each 10 objects, the first `changed` differ from those of `changed=0`."""
    parts = ["servers:\n"]
    parts += [_changed(server(at), at % 10 < changed) for at in range(1, servers + 1)]
    parts.append("tenants:\n")
    parts += [_changed(tenant(at), at % 10 < changed) for at in range(tenants)]
    path.write_text("".join(parts))
    return path


def _changed(lines: str, really: bool) -> str:
    if not really:
        return lines
    return re.sub(r"'value (\d+)", r"'other \1", lines.replace("multiplier: 1.5", "multiplier: 1.75"))


class Bench:
    """One embedded Postgres, and databases in it."""

    def __init__(self, conninfo: str, folder: Path) -> None:
        self.conninfo = conninfo
        self.folder = folder
        self._numbers = iter(range(10_000))

    def database(self) -> str:
        """Return the URL of a new, migrated database."""
        name = f"plan_{next(self._numbers)}"
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        made = make_conninfo(self.conninfo, dbname=name)
        asyncio.run(prepare(made))
        return made

    def run(self, database: str, *arguments: str | Path) -> Cost:
        """Run scalelite on a database."""
        os.environ["DATABASE_URL"] = database
        return measured([BIN / "scalelite", *arguments])

    def rounds(self, database: str, *arguments: str | Path) -> list[Cost]:
        return [self.run(database, *arguments) for _ in range(ROUNDS)]


def ours(bench: Bench) -> None:
    """Measure our own plan and apply."""
    same = inventory(bench.folder / "same.yml", SERVERS, TENANTS)
    other = inventory(bench.folder / "other.yml", SERVERS, TENANTS, changed=1)
    print(f"{SERVERS:,} servers, {TENANTS:,} tenants x {SETTINGS} settings: {same.stat().st_size / 1e6:.1f} MB of YAML")
    empty = [bench.run(bench.database(), "apply", same, "-y") for _ in range(ROUNDS)]
    report("apply from empty", empty, "< 3 s", 0)
    live = bench.database()
    bench.run(live, "apply", same, "-y")
    with psycopg.connect(live, autocommit=True) as connection:
        connection.execute("ANALYZE")
    report("plan, nothing changed", bench.rounds(live, "plan", same), "< 1 s, < 200 MB", 0)
    report("plan, nothing changed, json", bench.rounds(live, "plan", same, "--format", "json"), "-", 0)
    report("plan, 10 % changed", bench.rounds(live, "plan", other), "< 1.3 s", 0)
    report("plan, 10 % changed, not simulated", bench.rounds(live, "plan", other, "--no-simulate"), "-", 0)
    report("plan, 10 % changed, json", bench.rounds(live, "plan", other, "--format", "json"), "-", 0)
    one = bench.rounds(live, "plan", same, "--limit", "bbb00001.example.com")
    report("plan of one server by --limit", one, "not slower than all", 0)
    print(f"1,000 changed servers in the transaction: {in_transaction(live, same) * 1000:.0f} ms (aim 100 ms)")


def in_transaction(database: str, path: Path) -> float:
    """Return the median seconds from having the lock to the commit, of applies of 1,000 changed servers."""
    text = path.read_text()
    return statistics.median(asyncio.run(_apply(database, _wanted(text, turn), path)) for turn in range(ROUNDS))


def _wanted(text: str, turn: int) -> str:
    return text.replace("multiplier: 1.5", f"multiplier: {2 + turn}", CHANGED_IN_TRANSACTION)


async def _apply(database: str, text: str, path: Path) -> float:
    changed = path.with_name("changed.yml")
    changed.write_text(text)
    request = reconcile.Request(load_inventory([changed], environment={}).wanted)
    async with connect(database, "benchmark") as connection:
        planned = await reconcile.compare(connection, request)
        assert len(planned.plan.changes) == CHANGED_IN_TRANSACTION, len(planned.plan.changes)
        acting = Acting(Author("benchmark", "", {"inventory": []}), uuid.uuid4)
        started = time.perf_counter()
        await reconcile.carry_out(connection, request, planned, acting)
        return time.perf_counter() - started


def growth(bench: Bench) -> None:
    """Measure how the CPU time of plan grows with the cluster, without what a process costs at least."""
    points = []
    for size in SIZES:
        path = inventory(bench.folder / f"size{size}.yml", size, size // 10)
        live = bench.database()
        bench.run(live, "apply", path, "-y")
        points.append((size, min(cost.cpu_seconds for cost in bench.rounds(live, "plan", path))))
    base = points[0][1]
    print("plan by servers, CPU: " + ", ".join(f"{size:,}: {seconds:.2f} s" for size, seconds in points))
    (first, low), (last, high) = points[2], points[-1]  # below, noise is as large as what is measured
    exponent = math.log((high - base) / (low - base)) / math.log((last - SIZES[0]) / (first - SIZES[0]))
    print(f"growth exponent of what is above {SIZES[0]} servers: {exponent:.2f} (1: linear)")


# --- peers -----------------------------------------------------------------------------------------------------------


def terraform(folder: Path) -> None:
    """Measure a plan of Terraform over as many objects as it can bear, unchanged."""
    program = shutil.which("terraform")
    if program is None:
        print("terraform: not installed")
        return
    folder.mkdir()
    blocks = [
        f'resource "terraform_data" "s{at}" {{\n  input = {{ tag = "gpu", n = {at} }}\n}}\n' for at in range(PEER_SIZE)
    ]
    (folder / "main.tf").write_text("".join(blocks))
    command = [program, f"-chdir={folder}"]
    for step in (["init", "-input=false"], ["apply", "-auto-approve", "-input=false"]):
        if subprocess.run([*command, *step], capture_output=True, check=False).returncode:
            print(f"terraform {step[0]}: failed")
            return
    report(
        f"terraform plan of {PEER_SIZE:,}",
        [measured([*command, "plan", "-input=false"]) for _ in range(ROUNDS)],
        "(a peer)",
        0,
    )


def octodns(folder: Path) -> None:
    """Measure octoDNS' plan from YAML to the same YAML, of as many records as we have servers."""
    program = BIN / "octodns-sync"
    if not program.exists():
        print("octodns: not installed")
        return
    folder.mkdir()
    records = "".join(f"bbb{at:05}:\n  - type: TXT\n    ttl: 60\n    value: v{at}\n" for at in range(1, SERVERS + 1))
    for name in ("from", "to"):
        (folder / name).mkdir()
        (folder / name / "example.com.yaml").write_text(f"---\n{records}")
    (folder / "config.yaml").write_text(
        "providers:\n"
        f"  from: {{class: octodns.provider.yaml.YamlProvider, directory: {folder}/from, enforce_order: false}}\n"
        f"  to: {{class: octodns.provider.yaml.YamlProvider, directory: {folder}/to, enforce_order: false}}\n"
        "zones:\n  example.com.: {sources: [from], targets: [to]}\n"
    )
    runs = [measured([program, f"--config-file={folder}/config.yaml"]) for _ in range(ROUNDS)]
    report(f"octoDNS plan, YAML to YAML, of {SERVERS:,}", runs, "(a peer)", 0)


def main(parts: Sequence[str]) -> None:
    """Measure all of it, or the parts that are named: ours, growth, peers."""
    with tempfile.TemporaryDirectory() as temporary, embedded(Path(temporary) / "home", linger_s=0.5) as conninfo:
        bench = Bench(conninfo, Path(temporary))
        steps: dict[str, Callable[[], None]] = {
            "ours": lambda: ours(bench),
            "growth": lambda: growth(bench),
            "terraform": lambda: terraform(bench.folder / "terraform"),
            "octodns": lambda: octodns(bench.folder / "octodns"),
        }
        for name, step in steps.items():
            if not parts or name in parts:
                step()


if __name__ == "__main__":
    main(sys.argv[1:])
