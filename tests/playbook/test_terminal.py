"""The command on a terminal, as an operator sits before it: progress, questions, colours."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.playbook.test_command import PROGRAM, Shell

if TYPE_CHECKING:
    from pathlib import Path

    from tests.playbook.conftest import Stage

_IN_TIME_S = 60.0


class Terminal:
    """A pseudo-terminal on which the command runs; `said` is all that it has shown."""

    def __init__(self, stage: Stage, *arguments: str | Path) -> None:
        self.end, theirs = pty.openpty()
        environment = {**Shell(stage).environment, "TERM": "xterm-256color", "COLUMNS": "120"}
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [PROGRAM, "playbook", "run", *map(str, arguments)],
            cwd=stage.folder,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.said = ""

    def _more(self) -> bool:
        try:
            data = os.read(self.end, 65_536)
        except OSError:  # the other end is closed
            return False
        self.said += data.decode()
        return bool(data)

    async def wait_for(self, pattern: str) -> None:
        """Read until something is shown; then forget what was before it."""
        deadline = time.monotonic() + _IN_TIME_S
        while not (found := re.search(pattern, self.said)):
            assert time.monotonic() < deadline, self.said
            assert await asyncio.to_thread(self._more), self.said
        self.said = self.said[found.end() :]

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    async def ends(self) -> int:
        while await asyncio.to_thread(self._more):
            pass
        os.close(self.end)
        return await asyncio.to_thread(self.process.wait)


@pytest.mark.shows("cli: progress of long work", "playbooks: progress")
async def test_a_terminal_shows_which_task_runs_with_how_many_servers(stage: Stage) -> None:
    await stage.cluster.start(2)
    first, second = (server.name for server in stage.cluster.servers)
    path = stage.write(f"""
- servers: all
  tasks:
    - name: Tell of one
      debug: {{msg: here, }}
      changed_when: server.id == '{first}'
    - name: Wait for all
      command: {{argv: [bash, -c, "until test -e {stage.folder}/{{{{ server.id }}}}; do sleep 0.05; done"]}}
      changed_when: false
""")
    terminal = Terminal(stage, path)
    await terminal.wait_for(r"\x1b\[33mchanged: \[\w+\]")
    await terminal.wait_for(r"Wait for all .*0/2")
    (stage.folder / first).touch()
    await terminal.wait_for(r"1/2")
    (stage.folder / second).touch()
    await terminal.wait_for(r"PLAY RECAP")
    assert await terminal.ends() == 0
    assert f"{second}    : ok=2" in terminal.said


@pytest.mark.shows("playbooks: --step", "playbooks: pause")
async def test_step_asks_before_each_task_and_pause_asks_to_go_on(stage: Stage) -> None:
    await stage.cluster.start(1)
    path = stage.write("""
- servers: all
  tasks:
    - {name: first, debug: {msg: said-first}}
    - {name: second, debug: {msg: said-second}}
    - {name: third, debug: {msg: said-third}}
    - {name: asks, pause: {prompt: Shall it go on}}
    - {name: fourth, debug: {msg: said-fourth}}
""")
    terminal = Terminal(stage, path, "--step")
    await terminal.wait_for("Perform task: first .*: ")
    terminal.type("y\n")
    await terminal.wait_for("said-first")
    await terminal.wait_for("Perform task: second .*: ")
    terminal.type("\n")
    await terminal.wait_for("Perform task: third .*: ")
    assert "said-second" not in terminal.said
    terminal.type("c\n")
    await terminal.wait_for("said-third")
    await terminal.wait_for("Shall it go on ")
    assert "said-fourth" not in terminal.said
    terminal.type("\n")
    await terminal.wait_for("said-fourth")
    await terminal.wait_for("ok=4")
    assert await terminal.ends() == 0


@pytest.mark.shows("playbooks: --step")
async def test_step_without_a_terminal_is_an_error(stage: Stage) -> None:
    await stage.cluster.start(0)
    path = stage.write("- tasks:\n    - debug:\n")
    status, _, err = Shell(stage).run("run", path, "--step")
    assert (status, "nobody is there to ask" in err) == (64, True)
