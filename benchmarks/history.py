"""What history costs: `python -m benchmarks.history`; whole processes, best and median of five, peak memory.

10,000 servers and 1,000 tenants with 10 settings each, in an embedded Postgres of its own, of which 100 servers were
changed by hand: drift, a rollback's plan, and `export --update` of these, each time of the same files.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import uuid
from pathlib import Path

from benchmarks.inventory import BIN, ROUNDS, measured, one_file, report
from scalelite.core.model import Kind
from scalelite.core.plan import Update
from scalelite.store import db, specs
from scalelite.store.embedded import embedded

CHANGED = 100


async def change_by_hand(conninfo: str) -> None:
    async with db.connect(conninfo, "benchmark") as connection, db.apply_lock(connection, 5):
        live = (await specs.load_live(connection)).declared
        servers = list(live.of_kind(Kind.SERVER))[:: 10_000 // CHANGED]
        changes = [Update(key, spec, spec.model_copy(update={"load_multiplier": 7.5})) for key, spec in servers]
        await specs.write(connection, changes, specs.Author("ops@lb1"), uuid.uuid4)


def main() -> None:
    """Measure all of it."""
    with tempfile.TemporaryDirectory() as temporary, embedded(Path(temporary) / "home") as conninfo:
        os.environ["DATABASE_URL"] = conninfo
        scalelite = BIN / "scalelite"
        whole = one_file(Path(temporary) / "whole.yml")
        subprocess.run([scalelite, "apply", "-y", whole], check=True, stdout=subprocess.DEVNULL)
        asyncio.run(change_by_hand(conninfo))
        commands: list[tuple[str, list[str | Path], float, int]] = [
            ("plan with drift", ["plan", whole, "--summary"], 1.3, 0),
            ("drift", ["drift"], 0, 0),
            ("drift -i", ["drift", "-i", whole], 0, 0),
            ("rollback, its plan", ["rollback", "1"], 0, 64),
            ("export --update, 100 edits", ["export", "--update", whole, "--yes"], 1.0, 0),
        ]
        original = whole.read_bytes()
        for name, arguments, aim_s, status in commands:
            runs = []
            for _ in range(ROUNDS):
                whole.write_bytes(original)
                runs.append(measured([scalelite, *arguments]))
            report(name, runs, f"under {aim_s} s" if aim_s else "(none set)", status)


if __name__ == "__main__":
    main()
