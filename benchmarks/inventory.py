"""What loading costs: `python -m benchmarks.inventory`; whole processes, best and median of five, peak memory.

10,000 servers and 1,000 tenants with 10 settings each, in one file; with 500 mistakes in it; in 1,000 files with group
and host variables; and `ansible-inventory --list` of 1,000 hosts beside it, where ansible-core is installed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROUNDS = 5
SERVERS, TENANTS, SETTINGS = 10_000, 1_000, 10
MISTAKES = 500
FILES = 1_000
BIN = Path(sys.executable).parent


class Cost(NamedTuple):
    """What one run of a process took; of the CPU, too: that tells on a busy machine."""

    seconds: float
    megabytes: float
    status: int
    cpu_seconds: float


def server(number: int, *, mistake: bool = False) -> str:
    """Return one server's lines."""
    multiplier = "-1" if mistake else "1.5"
    return (
        f"  bbb{number:05}.example.com:\n"
        f"    url: https://bbb{number:05}.example.com/bigbluebutton/api\n"
        f'    secret: "{number:064x}"\n'
        f"    load_multiplier: {multiplier}\n"
        f"    tag: 'group{number % 7}'\n"
    )


def tenant(number: int) -> str:
    """Return one tenant's lines, with its settings."""
    settings = "".join(f"      param{at}: {{value: 'value {number} {at}', override: true}}\n" for at in range(SETTINGS))
    return f'  tenant{number}:\n    secrets: ["{number:064x}"]\n    settings:\n{settings}'


def one_file(path: Path, mistakes: int = 0) -> Path:
    """Write the inventory as one file."""
    every = SERVERS // mistakes if mistakes else SERVERS + 1
    servers = "".join(server(at, mistake=at % every == 0) for at in range(1, SERVERS + 1))
    path.write_text(f"servers:\n{servers}tenants:\n{''.join(map(tenant, range(TENANTS)))}")
    return path


def many_files(folder: Path) -> Path:
    """Write the inventory as a folder of 1,000 files: servers, tenants, groups, group and host variables."""
    hosts, sections = FILES // 2, FILES // 2 - 10
    for name in ("group_vars", "host_vars"):
        (folder / name).mkdir(parents=True)
    each = SERVERS // (sections // 2)
    for part in range(sections // 2):
        first = part * each + 1
        last = SERVERS if part == sections // 2 - 1 else first + each - 1
        (folder / f"servers-{part}.yml").write_text("servers:\n" + "".join(map(server, range(first, last + 1))))
    share = -(-TENANTS // (sections // 2))
    for part in range(sections // 2):
        names = range(part * share, min(TENANTS, (part + 1) * share))
        (folder / f"tenants-{part}.yml").write_text(
            "tenants:\n" + "".join(map(tenant, names)) if names else "vars: {}\n"
        )
    _group_files(folder, hosts)
    return folder


def _group_files(folder: Path, hosts: int) -> None:
    groups = "".join(f'  group{at}:\n    servers: ["bbb*{at}.example.com"]\n' for at in range(8))
    (folder / "groups.yml").write_text(f"groups:\n{groups}  half:\n    children: [group0, group1, group2]\n")
    (folder / "group_vars" / "all.yml").write_text("max_meetings: 50\nregion: eu\n")
    for at in range(8):
        (folder / "group_vars" / f"group{at}.yml").write_text(f"max_users: {at + 1}00\n")
    for at in range(1, hosts + 1):
        (folder / "host_vars" / f"bbb{at:05}.example.com.yml").write_text(f"max_users: {at}\n")


def ansible_hosts(path: Path, count: int) -> Path:
    """Write an inventory of Ansible with as many variables a host."""
    hosts = "".join(f"        {line}\n" for at in range(1, count + 1) for line in server(at).splitlines())
    path.write_text(f"all:\n  children:\n    bbb:\n      hosts:\n{hosts}")
    return path


def measured(arguments: Sequence[str | Path]) -> Cost:
    """Run a process and return its time and its peak memory; with its bytecode at hand, as pip installs it."""
    compiled = Path(tempfile.gettempdir(), f"scalelite-benchmarks-{os.getuid()}")
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(compiled)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Cost(time.perf_counter() - started, usage.ru_maxrss / 1024, process.returncode, cpu_seconds)


def report(name: str, costs: Iterable[Cost], aim: str, status: int) -> None:
    """Print one line of the table."""
    costs = list(costs)
    wrong = {cost.status for cost in costs} - {status}
    seconds = [cost.seconds for cost in costs]
    memory = max(cost.megabytes for cost in costs)
    cpu = min(cost.cpu_seconds for cost in costs)
    told = f"best {min(seconds):.2f} s (cpu {cpu:.2f}), median {statistics.median(seconds):.2f} s, {memory:.0f} MB"
    print(f"{name:<48} {told:<54} aim {aim}{f'  EXIT {wrong}' if wrong else ''}", flush=True)


def main() -> None:
    """Measure all of it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        validate: list[str | Path] = [BIN / "scalelite", "validate"]
        whole = one_file(folder / "whole.yml")
        wrong = one_file(folder / "wrong.yml", MISTAKES)
        many = many_files(folder / "many")
        files = sum(1 for path in many.rglob("*") if path.is_file())
        runs: list[tuple[str, list[str | Path], str, int]] = [
            (f"one file of {whole.stat().st_size / 1e6:.1f} MB", [*validate, whole], "< 0.8 s, < 150 MB", 0),
            (f"{MISTAKES} mistakes in it", [*validate, wrong], "< 3 s", 3),
            (f"{files:,} files with group and host variables", [*validate, many], "< 2.5 s", 0),
        ]
        if (BIN / "ansible-inventory").exists():
            hosts = ansible_hosts(folder / "hosts.yml", 1_000)
            command: list[str | Path] = [BIN / "ansible-inventory", "-i", hosts, "--list"]
            runs.append(("ansible-inventory --list, 1,000 hosts", command, "(a peer)", 0))
        for name, arguments, aim, status in runs:
            report(name, [measured(arguments) for _ in range(ROUNDS)], aim, status)


if __name__ == "__main__":
    main()
