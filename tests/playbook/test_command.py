"""The command as operators and CI run it: exit statuses, lists, a kill at a task and the way on, plugins."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.playbook.conftest import SHIPPED
from tests.web.conftest import eventually

if TYPE_CHECKING:
    from tests.playbook.conftest import Stage

PROGRAM = str(Path(sys.executable).with_name("scalelite"))
MANY = """
- servers: all
  serial: 1
  tasks:
    - name: first
      server: {{state: cordoned}}
    - name: second
      command: {{argv: [bash, -c, "echo {{{{ server.id }}}} >> {log}"]}}
    - name: third
      server: {{state: enabled}}
"""


class Shell:
    """Runs the command on the stage's database."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.environment = {**os.environ, "DATABASE_URL": stage.cluster.conninfo, "SCALELITE_ACTOR": "ci"}

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        return self._begin("playbook", *map(str, arguments))

    def _begin(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=self.stage.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        return self._end(self.start(*arguments))

    def scalelite(self, *arguments: str) -> tuple[int, str, str]:
        """Run another command."""
        return self._end(self._begin(*arguments))

    def _end(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.mark.shows("playbooks: exit statuses", "playbooks: options", "plan: exit statuses")
async def test_exit_statuses_and_lists(stage: Stage) -> None:
    await stage.cluster.start(2)
    shell = Shell(stage)
    good = stage.write("- servers: all\n  tasks:\n    - {name: a, debug: , tags: x}\n    - {name: b, debug: }\n")
    bad = stage.write("- servers: all\n  tasks:\n    - fail: {msg: no}\n", "bad.yml")
    assert shell.run("run", bad)[0] == 8
    broken = stage.write("- servers: all\n  tasks:\n    - debg: {msg: no}\n", "broken.yml")
    status, _, err = shell.run("run", broken, "--syntax-check")
    assert (status, "broken.yml:3:7: error[SL203]" in err) == (3, True)
    for vain in (["--limit", "nope"], ["--tags", "nope"], ["--start-at-task", "nope"]):
        status, _, err = shell.run("run", good, *vain)
        assert status == 64, err
    assert shell.run("run", good, "--list-tasks", "--skip-tags", "x")[1].split("\n")[1:-1] == ["  b"]
    assert "  bbb1\n" in shell.run("run", good, "--list-servers", "--limit", "bbb1")[1]
    status, out, _ = shell.run("run", good, "--start-at-task", "b", "-e", "x=1")
    assert (status, "TASK [a]" in out, "TASK [b]" in out) == (0, False, True)
    assert "failed" in shell.run("runs")[1]


@pytest.mark.shows("playbooks: --extra-vars", "playbooks: masks")
async def test_variables_are_given_as_pairs_mappings_and_files_that_may_be_vaulted(stage: Stage) -> None:
    await stage.cluster.start(0)
    shell = Shell(stage)
    stage.write("y: [2, 3]\n", "vars.yml")
    password = ["--vault-password-file", str(stage.write("open sesame", "password"))]
    secret = stage.write("sealed: hunter2-in-a-vault\n", "vault.yml")
    assert shell.scalelite("vault", "encrypt", str(secret), *password)[0] == 0
    assert "hunter2" not in secret.read_text()
    path = stage.write("""
- tasks:
    - assert: {that: ["x == 1", "y == [2, 3]", "z == 'a b'"]}
    - debug: {msg: "it is {{ sealed }}"}
""")
    files = ["-e", "@vars.yml", "-e", "@vault.yml", *password]
    status, out, err = shell.run("run", path, "-e", '{"x": 1}', "-e", "z='a b'", *files)
    assert (status, "hunter2" in out, "it is ****" in out) == (0, False, True), out + err


@pytest.mark.shows("playbooks: resume", "issue H: a run killed at any task resumes")
@pytest.mark.parametrize("after", [1, 2, 4])
async def test_a_run_that_is_killed_at_a_task_is_resumed(stage: Stage, after: int) -> None:
    await stage.cluster.start(3)
    log = stage.folder / "log"
    path = stage.write(MANY.format(log=log))
    shell = Shell(stage)
    running = shell.start("run", path)
    assert running.stdout is not None
    for line in running.stdout:
        after -= line.startswith("TASK")
        if not after:
            break
    running.send_signal(signal.SIGKILL)
    running.communicate()

    async def given_up() -> bool:
        return "interrupted" in shell.run("runs")[1]

    await eventually(given_up, 20)  # Postgres notices that the connection is gone
    status, out, err = shell.run("run", path, "--resume")
    assert status == 0, out + err
    names = [server.name for server in stage.cluster.servers]
    assert sorted(set(log.read_text().split())) == names
    assert len(log.read_text().split()) <= len(names) + 1  # the task that was cut off is done again
    assert {row.state for row in (await stage.cluster.rows()).values()} == {"enabled"}
    assert "left held" not in out


@pytest.mark.shows("playbooks: interrupted")
async def test_ctrl_c_says_what_is_left_held_and_how_to_go_on(stage: Stage) -> None:
    await stage.cluster.start(1)
    path = stage.write("- servers: all\n  tasks:\n    - server: {state: cordoned}\n    - wait_for: {seconds: 60}\n")
    running = Shell(stage).start("run", path)
    assert running.stdout is not None
    said = ""
    while "TASK [wait_for]" not in said:
        said += running.stdout.readline()
    await asyncio.sleep(0.2)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "left held: bbb1 cordoned" in out
    assert "--resume" in err


@pytest.mark.shows("playbooks: plugins")
async def test_a_plugin_adds_a_module(stage: Stage) -> None:
    await stage.cluster.start(1)
    site = stage.folder / "site"
    (site / "mine-1.0.dist-info").mkdir(parents=True)
    (site / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (site / "mine-1.0.dist-info" / "entry_points.txt").write_text("[scalelite.modules]\ngreet = mine:GREET\n")
    (site / "mine.py").write_text(
        """
from scalelite.playbook.registry import Module, Outcome
from scalelite.playbook.values import Args

class GreetArgs(Args):
    who: str

async def greet(args, context):
    return Outcome(True, {"msg": f"{args.who}, {context.target.name}"})

GREET = Module("greet", "Greet.", GreetArgs, greet)
"""
    )
    shell = Shell(stage)
    shell.environment["PYTHONPATH"] = str(site)
    path = stage.write("- servers: all\n  tasks:\n    - greet: {who: hello}\n")
    status, out, err = shell.run("run", path, "-v")
    assert status == 0, err
    assert "hello, bbb1" in out
    assert "greet" in shell.run("doc")[1]


@pytest.mark.shows("playbooks: doc")
async def test_each_module_has_a_page_with_its_arguments_and_an_example(stage: Stage) -> None:
    await stage.cluster.start(0)
    shell = Shell(stage)
    status, page, _ = shell.run("doc", "wait_for")
    assert status == 0
    assert "timeout (number or string; default 300.0)" in page
    assert "- wait_for: {meetings: 0" in page
    assert shell.run("doc", "wait_fr")[0] == 64


@pytest.mark.shows("playbooks: shipped")
async def test_shipped_playbooks_have_no_problems(stage: Stage) -> None:
    assert Shell(stage).run("run", *sorted(SHIPPED.glob("*.yml")), "--syntax-check")[0] == 0
