"""Runs that were cut off or have failed, and go on: what is done again, what is not, with which variables."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from scalelite.errors import UsageError
from tests.playbook.test_command import Shell
from tests.web.conftest import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.playbook.conftest import Stage, Told

FAILS = """
- servers: all
  max_unavailable: 2
  tasks:
    - name: once
      command: {{argv: [bash, -c, "echo once >> {log}"]}}
      run_once: true
      register: said
    - name: each
      command: {{argv: [bash, -c, "echo each-{{{{ server.id }}}} >> {log}"]}}
    - name: block
      block:
        - name: inner
          command: {{argv: [bash, -c, "echo inner-{{{{ server.id }}}} >> {log}; test -e {folder}/mended"]}}
          when: server.id == '{bad}'
      rescue:
        - name: mends nothing
          command: {{argv: [bash, -c, "echo rescue-{{{{ server.id }}}} >> {log}; test -e {folder}/mended"]}}
      always:
        - name: always
          command: {{argv: [bash, -c, "echo always-{{{{ server.id }}}} >> {log}"]}}
    - name: rescued for good
      block:
        - fail:
      rescue:
        - name: rescue
          command: {{argv: [bash, -c, "echo rescued-{{{{ server.id }}}} >> {log}"]}}
    - name: last
      command: {{argv: [bash, -c, "echo last-{{{{ server.id }}}} >> {log}"]}}
      notify: told
  handlers:
    - name: told
      command: {{argv: [bash, -c, "echo told-{{{{ server.id }}}} >> {log}"]}}
"""


def lines(log: Path) -> list[str]:
    """What was done since the last look, sorted: targets go at the same time."""
    text = log.read_text()
    log.write_text("")
    return sorted(text.split())


@pytest.mark.shows("playbooks: resume", "issue H: a failed run resumes at the failed task")
async def test_a_failed_run_goes_on_at_the_failed_task_and_does_all_that_follows(stage: Stage) -> None:
    await stage.cluster.start(2)
    good, bad = (server.name for server in stage.cluster.servers)
    log = stage.folder / "log"
    path = stage.write(FAILS.format(log=log, folder=stage.folder, bad=bad))
    told = await stage.run(path)
    assert told.ended.failed
    assert lines(log) == sorted(
        ["once", f"inner-{bad}", f"rescue-{bad}", f"rescued-{good}", f"last-{good}", f"told-{good}"]
        + [f"{what}-{name}" for what in ("each", "always") for name in (good, bad)]
    )
    again = await stage.run(path, resume=True)
    assert again.ended.failed
    assert lines(log) == sorted([f"inner-{bad}", f"rescue-{bad}", f"always-{bad}"])
    (stage.folder / "mended").touch()
    assert not (await stage.run(path, resume=True)).ended.failed
    assert lines(log) == sorted([f"inner-{bad}", f"always-{bad}", f"rescued-{bad}", f"last-{bad}", f"told-{bad}"])
    with pytest.raises(UsageError, match="has ended well"):
        await stage.run(path, resume=True)


@pytest.mark.shows("playbooks: resume")
async def test_a_run_that_began_nothing_does_not_stand_in_the_way_of_the_one_before_it(stage: Stage) -> None:
    await stage.cluster.start(1)
    path = stage.write("- servers: \"{{ who | default('all') }}\"\n  tasks:\n    - fail:\n")
    first = await stage.run(path)
    with pytest.raises(UsageError):
        await stage.run(path, extra_vars={"who": "nobody"})
    assert (await stage.run(path, resume=True)).ended.run == first.ended.run


@pytest.mark.shows("playbooks: resume", "DR-6", "playbooks: max_unavailable")
async def test_a_run_that_goes_on_counts_among_the_servers_that_its_pattern_named_at_first(stage: Stage) -> None:
    await stage.cluster.start(3)
    path = stage.write("""
- servers: enabled:&online
  serial: 1
  max_unavailable: 1
  max_fail_percentage: 0
  tasks:
    - server: {state: cordoned, timeout: 0.2s}
    - fail:
      when: not lookup('env', 'GO', default='')
""")
    told = await stage.run(path)
    assert len(told.ended.held) == 1
    stage.environment["GO"] = "1"
    told = await stage.run(path, resume=True)
    assert "max_unavailable: 1" in told.text  # one server is away already, though it is no longer `enabled`
    assert len(told.ended.held) == 1


KEY = "a-key-with-much-randomness-of-its-own"
VARS = """
- servers: all
  tasks:
    - debug: {msg: "{{ plain }} {{ api_token }}"}
    - command: {argv: ["test", "-e", "mended"]}
    - assert: {that: [plain == 'seen', api_token == 'hunter2-token']}
"""


async def stored(stage: Stage) -> str:
    """All that Postgres has of playbooks, as text."""
    found = ""
    for table in ("playbook_run", "playbook_step", "playbook_target"):
        cursor = await stage.cluster.connection.execute(f"SELECT t::text AS line FROM {table} t")
        found += "\n".join(row["line"] for row in await cursor.fetchall())
    return found


@pytest.mark.shows("playbooks: resume", "playbooks: masks", "issue H: extra-vars are kept")
@pytest.mark.parametrize("key", ["", KEY])
async def test_a_run_goes_on_with_its_variables_and_no_secret_is_kept_in_clear(stage: Stage, key: str) -> None:
    await stage.cluster.start(1)
    path = stage.write(VARS)
    shell = Shell(stage)
    shell.environment["SCALELITE_ENCRYPTION_KEY"] = key
    if key:  # as an operator would: a database of clear secrets is sealed first
        assert shell.scalelite("db", "rotate-keys")[0] == 0
    options = ["-e", "plain=seen", "-e", "api_token=hunter2-token", "--limit", "all"]
    status, out, err = shell.run("run", path, *options)
    assert status == 8, err
    assert "--resume" in err
    assert "hunter2" not in out + err
    (stage.folder / "mended").touch()
    assert ("seen" in await stored(stage)) is not bool(key)
    assert "hunter2" not in await stored(stage)
    if not key:
        status, _, err = shell.run("run", path, "--resume")
        assert (status, "api_token: secret" in err) == (64, True)
        status, out, err = shell.run("run", path, "--resume", "-e", "api_token=hunter2-token")
    else:
        shell.environment["SCALELITE_ENCRYPTION_KEY"] = f"a-newer-key-with-much-randomness-too:{key}"
        assert shell.scalelite("db", "rotate-keys")[0] == 0
        shell.environment["SCALELITE_ENCRYPTION_KEY"] = "a-newer-key-with-much-randomness-too"
        status, out, err = shell.run("run", path, "--resume")
    assert status == 0, out + err
    assert "TASK [debug]" not in out
    assert "hunter2" not in await stored(stage)


async def cut_off(stage: Stage, path: Path, steps: int) -> None:
    """Interrupt a run when so many results are there."""
    running: asyncio.Task[Told] = asyncio.create_task(stage.run(path))

    async def far_enough() -> bool:
        return await stage.steps() == steps

    await eventually(far_enough, 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.shows("playbooks: resume")
async def test_a_file_that_was_changed_meanwhile_does_not_go_on(stage: Stage) -> None:
    await stage.cluster.start(1)
    path = stage.write("- servers: all\n  tasks:\n    - debug:\n    - wait_for: {seconds: 60}\n")
    await cut_off(stage, path, 1)
    path.write_text(path.read_text() + "    - debug:\n")
    with pytest.raises(UsageError, match="no longer what run 1 did"):
        await stage.run(path, resume=True)
