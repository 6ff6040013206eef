"""Modules one by one: what each changes, what a second run finds, what check mode predicts."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from scalelite.core.model import Key, Kind, LrsSpec
from scalelite.store import specs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.playbook.conftest import Stage


async def same_thrice(stage: Stage, text: str, changed: int, **options: Any) -> None:
    """Check mode predicts what the run changes, and a second run changes nothing."""
    for check, expected in ((True, changed), (False, changed), (False, 0)):
        told = await stage.run(text, check=check, **options)
        assert not told.ended.failed, told.text
        assert told.changed == expected, told.text


@pytest.mark.shows("playbooks: lrs", "playbooks: tenant", "playbooks: tenant_setting", "XA-1")
async def test_tenants_with_settings_and_lrs_are_made_changed_and_removed(stage: Stage) -> None:
    await stage.cluster.start(1)
    stage.environment["LRS_PASSWORD"] = "hunter2-lrs"
    make = """
- tasks:
    - tenant: {name: acme, secrets: [s1, s2], hosts: [meet.acme.example], limits: {max_meetings: 5}}
    - tenant_setting: {tenant: acme, param: record, value: false, override: true, calls: [create]}
    - lrs: {tenant: acme, endpoint: "https://lrs.example.com/x/", basic: {username: u, password: "{{ pass }}"}}
  vars: {pass: "{{ lookup('env', 'LRS_PASSWORD') }}"}
"""
    await same_thrice(stage, make, 3)

    async def lrs() -> LrsSpec | None:
        live = await specs.load_live(stage.cluster.connection)
        found = live.declared.objects.get(Key(Kind.LRS, "acme"))
        assert found is None or isinstance(found, LrsSpec)
        return found

    found = await lrs()
    assert found is not None
    assert found.basic is not None
    assert found.basic.password.reveal() == "hunter2-lrs"
    secret = "{{ lookup('env', 'LRS_PASSWORD') }}"
    oidc = "{token_url: 'https://id.example.com/token', client_id: c, username: u,"
    oidc += f' client_secret: "{secret}", password: "{secret}"}}'
    told = await stage.run(f"""
- tenants: acme
  tasks:
    - lrs: {{endpoint: "https://lrs.example.com/x/", oidc: {oidc}, on_error: fail}}
""")
    assert not told.ended.failed, told.text
    assert "hunter2" not in told.text
    found = await lrs()
    assert found is not None
    assert (found.basic, found.on_error) == (None, "fail")
    gone = """
- tasks:
    - lrs: {tenant: acme, state: absent}
    - tenant_setting: {tenant: acme, param: record, state: absent}
"""
    await same_thrice(stage, gone, 2)
    assert await lrs() is None
    await same_thrice(stage, "- tasks:\n    - tenant: {name: acme, state: absent}\n", 1)


@pytest.mark.shows("playbooks: end_meetings")
async def test_meetings_are_ended_by_age_tenant_and_whether_anybody_is_there(stage: Stage) -> None:
    service = await stage.cluster.start(1)
    for meeting, tenant in (("old", "tenant1"), ("new", "tenant1"), ("full", "tenant1"), ("other", "tenant2")):
        assert (await service.create(meeting, tenant=tenant)).succeeded
    connection = stage.cluster.connection
    await connection.execute("UPDATE meeting SET counted = true, users = CASE meeting_id WHEN 'full' THEN 2 ELSE 0 END")
    await connection.execute("UPDATE meeting SET claimed_at = now() - interval '13 hours' WHERE meeting_id = 'old'")

    async def ending(where: str) -> list[str]:
        await same_thrice(stage, f"- servers: all\n  tasks:\n    - end_meetings: {{where: {where}}}\n", 1)
        assert {server for _, server, _ in await stage.cluster.meetings()} <= {stage.cluster.servers[0].name}
        left = [meeting for meeting, _, _ in await stage.cluster.meetings()]
        assert sorted(stage.cluster.servers[0].meetings) == left
        return left

    assert await ending("{older_than: 12h}") == ["full", "new", "other"]
    assert await ending("{empty: true, tenant: tenant1}") == ["full", "other"]
    assert await ending("{empty: false}") == ["other"]
    told = await stage.run("- tenants: tenant2\n  tasks:\n    - end_meetings:\n")
    assert told.changed == 1
    assert await stage.cluster.meetings() == []


@pytest.mark.shows("playbooks: end_meetings")
async def test_meetings_that_cannot_be_ended_fail_the_task_and_stay_known(stage: Stage) -> None:
    service = await stage.cluster.start(1)
    assert (await service.create("stays")).succeeded
    await stage.cluster.connection.execute("UPDATE server SET url = 'http://127.0.0.1:9/bigbluebutton/api'")
    told = await stage.run("- servers: all\n  tasks:\n    - end_meetings:\n")
    assert told.ended.failed
    assert "1 of 1 meetings could not be ended" in told.text
    assert [meeting for meeting, _, _ in await stage.cluster.meetings()] == ["stays"]


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """An HTTP server that tells what it was asked; /slow never answers, /broken says 500."""
    asked: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await asyncio.sleep(60)
        asked.append(
            {"method": request.method, "path": request.path, "text": await request.text(), "headers": request.headers}
        )
        status = 500 if request.path == "/broken" else 200
        return web.json_response({"said": [1, 2]}, status=status)

    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}", asked
    finally:
        await runner.cleanup()


@pytest.mark.shows("playbooks: uri")
async def test_requests_are_made_and_their_answers_registered(stage: Stage) -> None:
    await stage.cluster.start(1)
    async with listening() as (url, asked):
        stage.environment["CHAT_HOOK"] = f"{url}/hook?token=hunter2"
        text = """
- servers: all
  tasks:
    - uri: {url: "{{ lookup('env', 'CHAT_HOOK') }}", method: POST, body: {text: "{{ server.id }} is back"}}
    - uri: {url: "{{ url }}/plain", return_content: true, headers: {X-Token: t}}
      register: got
    - assert: {that: [got.status == 200, got is not changed, "got.json.said == [1, 2]"]}
    - uri: {url: "{{ url }}/put", method: PUT, body: as it is, status_code: [200, 201]}
      changed_when: false
    - uri: {url: "{{ url }}/broken"}
      register: broken
      ignore_errors: true
    - assert: {that: [broken is failed, broken.status == 500]}
    - uri: {url: "{{ url }}/broken", status_code: 500}
    - uri: {url: "{{ url }}/slow", timeout: 0.1s}
      register: slow
      ignore_errors: true
    - assert: {that: slow is failed}
    - uri: {url: "http://127.0.0.1:9/nobody"}
      register: nobody
      until: nobody is succeeded
      retries: 1
      delay: 0
      ignore_errors: true
"""
        predicted = await stage.run("- tasks:\n    - uri: {url: '" + url + "/x', method: POST}\n", check=True)
        assert (predicted.changed, asked) == (1, [])
        told = await stage.run(text, extra_vars={"url": url})
    assert not told.ended.failed, told.text
    assert told.changed == 1
    assert "hunter2" not in told.text
    name = stage.cluster.servers[0].name
    assert [(each["method"], each["path"]) for each in asked] == [
        ("POST", "/hook"), ("GET", "/plain"), ("PUT", "/put"), ("GET", "/broken"), ("GET", "/broken")
    ]  # fmt: skip
    assert json.loads(asked[0]["text"]) == {"text": f"{name} is back"}
    assert asked[0]["headers"]["Content-Type"] == "application/json"
    assert asked[1]["headers"]["X-Token"] == "t"
    assert asked[2]["text"] == "as it is"


@pytest.mark.shows("playbooks: throttle", "playbooks: --forks")
@pytest.mark.parametrize(("how", "forks"), [("throttle: 1", 50), ("throttle: '{{ 1 }}'", 50), ("tags: x", 1)])
async def test_throttle_and_forks_bound_how_many_servers_are_worked_on_at_once(
    stage: Stage, how: str, forks: int
) -> None:
    await stage.cluster.start(3)
    log = stage.folder / "log"
    text = f"""
- servers: all
  tasks:
    - command: {{argv: [bash, -c, "echo begin >> {log}; sleep 0.05; echo end >> {log}"]}}
      {how}
"""
    await stage.run(text, forks=forks)
    assert log.read_text().split() == ["begin", "end"] * 3


@pytest.mark.shows("playbooks: wait_for")
async def test_waits_are_for_what_polls_see_and_end_in_time(stage: Stage) -> None:
    service = await stage.cluster.start(1)
    assert (await service.create("room")).succeeded
    told = await stage.run("""
- servers: all
  tasks:
    - wait_for: {online: true, version: "2.", load: 100, users: 0, meetings: 1, timeout: 5s}
    - wait_for: {seconds: 0.01s}
    - wait_for: {meetings: 0, timeout: 0.1s, every: 0.02s}
      ignore_errors: true
    - wait_for: {version: "9.", timeout: 0.1s, every: 0.02s}
      ignore_errors: true
""")
    name = stage.cluster.servers[0].name
    assert [results[name] for _, results in told.events] == ["ok", "ok", "ignored", "ignored"], told.text
    assert "not so within 0.1 s: meetings is 1" in told.text


@pytest.mark.shows("playbooks: --extra-vars", "playbooks: vars_files")
async def test_extra_variables_win_over_all_others(stage: Stage) -> None:
    await stage.cluster.start(1)
    stage.write("a: file\nb: file\n", "vars.yml")
    told = await stage.run(
        """
- servers: all
  vars: {a: play}
  vars_files: vars.yml
  tasks:
    - set_fact: {a: fact}
    - assert: {that: [a == 'extra', b == 'file']}
      vars: {a: task}
""",
        extra_vars={"a": "extra"},
    )
    assert not told.ended.failed, told.text
