"""The engine against a cluster: changes, holds, check mode, the journal, locks, outputs."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING

import pytest

from scalelite.core import commands
from scalelite.errors import ServersBusy, UsageError
from scalelite.flows import admin
from scalelite.flows.acting import Acting
from scalelite.store.specs import Author
from tests.junit import junit
from tests.web.conftest import eventually

if TYPE_CHECKING:
    from scalelite.core.model import State
    from tests.playbook.conftest import Stage

CORDON = """
- servers: all
  tasks:
    - server: {state: cordoned}
    - server: {load_multiplier: 2.0, tag: gpu}
"""


@pytest.mark.shows("playbooks: server", "playbooks: holds")
async def test_a_cordon_is_a_hold_with_the_runs_name_and_a_second_run_changes_nothing(stage: Stage) -> None:
    await stage.cluster.start(2)
    told = await stage.run(CORDON)
    assert {count["changed"] for count in told.counts.values()} == {2}
    assert told.ended.held == {server.name: "cordoned" for server in stage.cluster.servers}
    assert {row.state for row in (await stage.cluster.rows()).values()} == {"cordoned"}
    cursor = await stage.cluster.connection.execute("SELECT DISTINCT by, why FROM hold")
    hold = await cursor.fetchone()
    assert hold is not None
    assert hold["why"] == f"playbook play.yml #{told.ended.run}"
    again = await stage.run(CORDON)
    assert again.changed == 0
    await stage.cluster.apply()
    assert {row.state for row in (await stage.cluster.rows()).values()} == {"cordoned"}


@pytest.mark.shows("playbooks: holds", "data: hold")
async def test_a_playbook_lifts_the_holds_of_playbooks_and_an_operators_only_when_told_to(stage: Stage) -> None:
    await stage.cluster.start(3)
    mine, theirs, both = (server.name for server in stage.cluster.servers)
    operator = Acting(Author("ops@lb1"), uuid.uuid4)

    async def operate(server: str, state: State, why: str) -> None:
        await admin.change(stage.cluster.connection, operator, commands.set_state(server, state, why))

    await stage.run(f"- servers: {mine}:{both}\n  tasks:\n    - server: {{state: cordoned}}\n", name="other.yml")
    await operate(theirs, "disabled", "disk swap")
    await operate(both, "cordoned", "looks odd")  # takes over what the playbook holds
    again = await stage.run("- servers: all\n  tasks:\n    - server: {state: cordoned}\n")
    assert again.changed == 0
    for check in (True, False):
        told = await stage.run("- servers: all\n  tasks:\n    - server: {state: enabled}\n", check=check)
        assert told.events[0][1] == {mine: "changed", theirs: "failed", both: "failed"}
        assert "held disabled by ops@lb1 since" in told.text
        assert "disk swap" in told.text
        assert "looks odd" in told.text
    assert {name: row.state for name, row in (await stage.cluster.rows()).items()} == {
        mine: "enabled", theirs: "disabled", both: "cordoned"
    }  # fmt: skip
    told = await stage.run("- servers: all\n  tasks:\n    - server: {state: enabled, release_holds: true}\n")
    assert told.changed == 2
    assert {row.state for row in (await stage.cluster.rows()).values()} == {"enabled"}


@pytest.mark.shows("playbooks: server")
async def test_what_many_servers_change_at_once_is_one_revision(stage: Stage) -> None:
    await stage.cluster.start(4)
    before = await stage.cluster.connection.execute("SELECT max(number) AS n FROM revision")
    first = (await before.fetchone() or {})["n"]
    await stage.run("- servers: all\n  tasks:\n    - server: {state: cordoned}\n")
    after = await stage.cluster.connection.execute("SELECT max(number) AS n FROM revision")
    assert (await after.fetchone() or {})["n"] == first + 1


@pytest.mark.shows("playbooks: check")
async def test_check_mode_changes_nothing_and_predicts_what_the_run_changes(stage: Stage) -> None:
    await stage.cluster.start(2)
    text = CORDON + "    - server: {state: enabled}\n    - server: {state: enabled, tag: gpu}\n"
    predicted = await stage.run(text, check=True)
    assert {row.state for row in (await stage.cluster.rows()).values()} == {"enabled"}
    done = await stage.run(text)
    assert predicted.counts == done.counts
    assert predicted.events == done.events
    assert "tag: '' -> gpu" in predicted.text


@pytest.mark.shows("playbooks: patterns")
@pytest.mark.parametrize(
    ("pattern", "places"),
    [
        ("all", [0, 1, 2]),
        ("bbb[1:2]", [0, 1]),
        ("bbb[2:9]", None),
        ("{0}:{2}", [0, 2]),
        ("all:!{1}", [0, 2]),
        ("large:&online", [0, 1]),
        ("gpu", [2]),
        ("cordoned", []),
        ("~{0}|{2}", [0, 2]),
    ],
)
async def test_patterns_name_ids_groups_states_and_tags(stage: Stage, pattern: str, places: list[int] | None) -> None:
    await stage.cluster.start(3)
    names = [server.name for server in stage.cluster.servers]
    stage.cluster.server(2, tag="gpu")
    await stage.cluster.apply()
    groups = {"large": frozenset(names[:2])}
    text = f"- servers: '{pattern.format(*names)}'\n  tasks:\n    - debug:\n"
    if places is None:
        with pytest.raises(UsageError):
            await stage.run(text, groups=groups)
        return
    told = await stage.run(text, groups=groups)
    assert sorted(told.counts) == sorted(names[place] for place in places)


@pytest.mark.shows("playbooks: exit 64")
@pytest.mark.parametrize("limit", ["nope", "bb9*"])
async def test_a_limit_that_matches_nothing_is_an_error(stage: Stage, limit: str) -> None:
    await stage.cluster.start(1)
    with pytest.raises(UsageError):
        await stage.run(CORDON, limit=(limit,))


@pytest.mark.shows("DR-6", "playbooks: min_available")
async def test_a_step_that_would_leave_too_few_waits_and_then_fails(stage: Stage) -> None:
    await stage.cluster.start(3)
    told = await stage.run(
        "- servers: all\n  min_available: 2\n  tasks:\n    - server: {state: cordoned, timeout: 0.2s}\n"
    )
    assert sorted(told.events[0][1].values()) == ["changed", "failed", "failed"]
    assert "min_available: 2" in told.text
    assert len(told.ended.held) == 1


@pytest.mark.shows("DR-6", "playbooks: min_available")
async def test_a_step_that_would_leave_too_few_goes_on_as_soon_as_it_may(stage: Stage) -> None:
    await stage.cluster.start(3)
    names = [server.name for server in stage.cluster.servers]
    operator = Acting(Author("ops@lb1"), uuid.uuid4)
    connection = stage.cluster.connection
    await admin.change(connection, operator, commands.set_state(names[0], "cordoned"))
    play = "- servers: all\n  min_available: 50 %\n  tasks:\n    - server: {state: cordoned}\n"
    running = asyncio.create_task(stage.run(f"{play}      when: server.id == '{names[1]}'\n"))
    done, _ = await asyncio.wait([running], timeout=0.5)
    assert not done
    await admin.change(connection, operator, commands.set_state(names[0], "enabled"))
    told = await running
    assert (told.changed, told.ended.failed) == (1, False)


@pytest.mark.shows("playbooks: templates are sandboxed")
@pytest.mark.parametrize(
    "template",
    ["{{ ''.__class__.__mro__ }}", "{{ 'a' * 10**10 }}", "{{ range(10**9) | list }}", "{{ server.__init__ }}"],
)
async def test_a_hostile_template_fails_its_task_and_nothing_else(stage: Stage, template: str) -> None:
    await stage.cluster.start(1)
    told = await stage.run(f'- servers: all\n  tasks:\n    - debug: {{msg: "{template}"}}\n      ignore_errors: true\n')
    name = stage.cluster.servers[0].name
    assert told.events == [("debug", {name: "ignored"})], told.text


@pytest.mark.shows("DR-6", "playbooks: max_unavailable")
async def test_servers_that_a_failure_left_behind_count_as_unavailable(stage: Stage) -> None:
    await stage.cluster.start(3)
    told = await stage.run(
        """
- servers: all
  serial: 1
  max_unavailable: 1
  tasks:
    - server: {state: cordoned, timeout: 0.1s}
    - fail:
      when: ansible_play_batch[0] == server.id
"""
    )
    assert told.ended.failed
    assert len(told.ended.held) == 1


@pytest.mark.shows("playbooks: lock")
async def test_one_playbook_at_a_time_per_server_and_the_second_is_told_who_has_it(stage: Stage) -> None:
    await stage.cluster.start(1)
    long = asyncio.create_task(stage.run("- servers: all\n  tasks:\n    - wait_for: {seconds: 20}\n"))

    async def locked() -> bool:
        cursor = await stage.cluster.connection.execute("SELECT count(*) AS n FROM playbook_lock")
        return bool((await cursor.fetchone() or {})["n"])

    await eventually(locked, 10)
    with pytest.raises(ServersBusy, match=r"run 1 of play.yml by t "):
        await stage.run(stage.write(CORDON, "other.yml"))
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    assert (await stage.run(stage.write(CORDON, "other.yml"))).changed


@pytest.mark.shows("playbooks: resume")
async def test_an_interrupted_run_goes_on_where_it_was_with_what_it_had_registered(stage: Stage) -> None:
    await stage.cluster.start(2)
    text = f"""
- servers: all
  serial: 1
  tasks:
    - command: {{argv: [bash, -c, "echo {{{{ server.id }}}} >> {stage.folder}/done; echo said"]}}
      register: first
      notify: told
    - wait_for: {{seconds: 30}}
      when: not lookup('env', 'GO', default='') and server.id == '{stage.cluster.servers[1].name}'
    - assert: {{that: first.stdout == 'said'}}
  handlers:
    - name: told
      command: {{argv: [bash, -c, "echo handler >> {stage.folder}/done"]}}
"""
    running = asyncio.create_task(stage.run(text))
    log = stage.folder / "done"

    async def waits_at_the_second_server() -> bool:
        return await stage.steps() == 5  # three tasks and a handler of the first one, and its own first task

    await eventually(waits_at_the_second_server, 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    stage.environment["GO"] = "1"
    told = await stage.run(stage.folder / "play.yml", resume=True)
    assert not told.ended.failed
    assert log.read_text().split() == [
        stage.cluster.servers[0].name,
        "handler",
        stage.cluster.servers[1].name,
        "handler",
    ]
    assert {count["ok"] for count in told.counts.values()} == {3}
    with pytest.raises(UsageError, match="has ended well"):
        await stage.run(stage.folder / "play.yml", resume=True)


@pytest.mark.shows("playbooks: masks")
async def test_no_log_and_secrets_are_masked_in_every_output(stage: Stage) -> None:
    await stage.cluster.start(1)
    stage.environment["API_TOKEN"] = "hunter2-token"
    text = """
- servers: all
  tasks:
    - debug: {msg: "it is {{ lookup('env', 'API_TOKEN') }}"}
    - debug: {msg: nobody-sees-this}
      no_log: true
    - command: {argv: ["false"], env: {T: "{{ lookup('env', 'API_TOKEN') }}"}}
      ignore_errors: true
    - server: {secret: "a-new-secret-{{ lookup('env', 'API_TOKEN') }}"}
"""
    for form in ("", "json", "junit"):
        told = await stage.run(text, form=form)
        assert "hunter2" not in told.text
        assert "nobody-sees-this" not in told.text


@pytest.mark.shows("playbooks: formats")
async def test_json_and_junit_say_what_the_text_says(stage: Stage) -> None:
    await stage.cluster.start(1)
    text = "- servers: all\n  tasks:\n    - server: {state: cordoned}\n    - fail: {msg: no further}\n"
    name = stage.cluster.servers[0].name
    document = json.loads((await stage.run(text, form="json")).text)
    assert document["recap"][name] == {
        "ok": 1, "changed": 1, "unreachable": 0, "failed": 1, "skipped": 0, "rescued": 0, "ignored": 0
    }  # fmt: skip
    assert document["left_held"] == {name: "cordoned"}
    assert document["tasks"][1]["results"][name]["result"]["msg"] == "no further"
    suite = junit((await stage.run(text, form="junit")).text)
    assert [case.find("failure") is None for case in suite] == [True, False]
