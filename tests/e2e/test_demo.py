"""The README's demo: alone in its folder, gone when it is killed, and well when it runs again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120


def start(said: Path, *options: str) -> subprocess.Popen[bytes]:
    """Run the demo in the folder of the file that gets what it says."""
    environment = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "SCALELITE_HOME"}}
    command = [sys.executable, "-m", "scalelite", "demo", *options]
    with said.open("wb") as file:
        return subprocess.Popen(
            command, cwd=said.parent, env=environment | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def ports(said: str) -> Sequence[int]:
    """The ports of the service and of the first simulated server."""
    found = [re.search(pattern, said) for pattern in (r"serve --host \S+ --port (\d+)", r"--first-port (\d+)")]
    return [int(match[1]) for match in found if match]


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.shows("issue A1: the demo", "issue A: idempotent, in a path with spaces")
def test_the_demo_runs_alone_ends_whole_when_it_is_killed_and_runs_again(tmp_path: Path) -> None:
    """The last run finds a port of the first one taken, so that a guard has to be told of the meeting on it."""
    folder = tmp_path / "a clone"
    shutil.copytree(ROOT / "inventories" / "demo", folder / "inventories" / "demo")
    said, second, third = (folder / name for name in ("first", "second", "third"))
    first = start(said)
    try:
        wait_until(lambda: "All of it runs until Ctrl-C" in said.read_text(), TIMEOUT_S)
        told = said.read_text()
        assert "<returncode>SUCCESS" in told
        assert "No changes. 3 servers, 2 tenants, 3 settings match the cluster." in told
        running = ports(told)
        assert len(running) == 2
        assert all(map(is_open, running))
        assert start(second, "--once").wait(TIMEOUT_S) == 64
        assert "error: a demo is running in this folder" in second.read_text()
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    wait_until(lambda: not any(map(is_open, running)), TIMEOUT_S)
    with socket.create_server(("127.0.0.1", running[1])):
        assert start(third, "--once").wait(TIMEOUT_S) == 0, third.read_text()
    told = third.read_text()
    assert ports(told)[1] != running[1]
    assert "--allow reach=1" in told
    assert "<returncode>SUCCESS" in told
    wait_until(lambda: not any(map(is_open, ports(told))), TIMEOUT_S)
