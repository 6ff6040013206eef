"""What export costs: `python -m benchmarks.export`; whole processes, best and median of five, peak memory.

10,000 servers and 1,000 tenants with 10 settings each, sealed, in an embedded Postgres of its own; each way of writing
secrets, and a plan of what was exported beside it. Vaults once: each secret is 10,000 rounds of hashing.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks.inventory import BIN, ROUNDS, measured, one_file, report
from scalelite.store.embedded import embedded

NO_AIM = "(none set)"


def main() -> None:
    """Measure all of it."""
    with tempfile.TemporaryDirectory() as temporary, embedded(Path(temporary) / "home") as conninfo:
        folder = Path(temporary)
        os.environ |= {"DATABASE_URL": conninfo, "SCALELITE_ENCRYPTION_KEY": "k" * 40}
        scalelite = BIN / "scalelite"
        subprocess.run(
            [scalelite, "apply", "-y", one_file(folder / "whole.yml")], check=True, stdout=subprocess.DEVNULL
        )
        password, exported = folder / "password", folder / "exported.yml"
        password.write_text("a password")
        ways: list[tuple[str, list[str | Path], int]] = [
            ("plain", [], ROUNDS),
            ("env", ["--env-file", folder / "secrets.env"], ROUNDS),
            ("omit", [], ROUNDS),
            ("vault", ["--vault-password-file", password], 1),
        ]
        for way, options, rounds in ways:
            command: list[str | Path] = [scalelite, "export", "--secrets", way, *options, "-o", exported]
            report(f"export --secrets {way}", [measured(command) for _ in range(rounds)], NO_AIM, 0)
            if way == "plain":
                size = exported.stat().st_size / 1e6
                plan: list[str | Path] = [scalelite, "plan", exported, "--detailed-exitcode"]
                report(f"plan of it ({size:.1f} MB): no changes", [measured(plan) for _ in range(ROUNDS)], NO_AIM, 0)
        rotate: list[str | Path] = [scalelite, "db", "rotate-keys"]
        report("db rotate-keys", [measured(rotate) for _ in range(ROUNDS)], NO_AIM, 0)


if __name__ == "__main__":
    main()
