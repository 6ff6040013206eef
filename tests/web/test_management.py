"""The management API with tokens, over HTTP; what Scalelite answers is replayed in tests/golden."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from jsonschema.validators import Draft202012Validator

from scalelite.flows import tokens
from scalelite.web.rest_table import OPERATIONS
from tests.web.conftest import API, DOMAIN, eventually

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalelite.core.tokens import Scope
    from tests.web.conftest import Answer, Cluster, Service

MANAGEMENT: Final = "/scalelite/api"
SECRET: Final = "load-balancer-secret"
NEW: Final = {"url": "https://bbb9.example.com/bigbluebutton/api", "secret": "canary-of-bbb9"}
SCOPES: Final[tuple[Scope, ...]] = ("read", "operate", "admin", "import")


async def started(cluster: Cluster, **environment: str) -> Client:
    service = await cluster.start(1, environment={"LOADBALANCER_SECRET": SECRET, **environment})
    made = {scope: await tokens.add(cluster.connection, scope, scope, "tests") for scope in SCOPES}
    return Client(service, made)


class Client:
    """Calls with the token of a scope; admin unless another is named."""

    def __init__(self, service: Service, made: Mapping[Scope, str]) -> None:
        self.service, self.tokens = service, made

    async def __call__(self, name: str, body: Any = None, *, scope: Scope = "admin", query: str = "") -> Answer:
        headers = {"Authorization": f"Bearer {self.tokens[scope]}"}
        return await self.send(name, body, headers=headers, query=query)

    async def send(
        self, name: str, body: Any = None, *, headers: dict[str, str], query: str = "", host: str = DOMAIN
    ) -> Answer:
        method = OPERATIONS[name].method if name in OPERATIONS else "GET"
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        if method == "POST":
            headers = {"Content-Type": "application/json", **headers}
        target = f"{MANAGEMENT}/{name}?{query}" if query else f"{MANAGEMENT}/{name}"
        return await self.service.send(
            target, method=method, host=host, headers=headers, body=content if method == "POST" else None
        )


def said(answer: Answer) -> Any:
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    return json.loads(answer.body)


# --- who may ---------------------------------------------------------------------------------------------------------


@pytest.mark.shows("bbb-api: management API, tokens", "DE-11")
async def test_each_call_needs_its_scope(cluster: Cluster) -> None:
    client = await started(cluster)
    may = {"read": {"read", "operate", "admin"}, "operate": {"operate", "admin"}, "admin": {"admin"}}
    for name, operation in OPERATIONS.items():
        for scope in SCOPES:
            refused = (await client(name, scope=scope)).status == 403
            assert refused == (scope not in may[operation.scope]), (name, scope)
    secret = {"id": cluster.servers[0].name, "server": {"secret": "x"}}
    assert (await client("updateServer", secret, scope="operate")).status == 403
    state = {"id": cluster.servers[0].name, "server": {"state": "cordon", "reason": "audio crackles"}}
    assert said(await client("updateServer", state, scope="operate"))["state"] == "cordoned"


@pytest.mark.shows("bbb-api: management API, tokens")
@pytest.mark.parametrize("header", ["Bearer slt_wrong", "Bearer", "Basic YTpi", "Bearer \xff", "slt_wrong"])
async def test_a_wrong_token_is_refused_whatever_else_is_right(cluster: Cluster, header: str) -> None:
    client = await started(cluster)
    query = f"checksum={hashlib.sha256(f'getServers{SECRET}'.encode()).hexdigest()}"
    answer = await client.send("getServers", headers={"Authorization": header}, query=query)
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="scalelite"')
    assert set(said(answer)) == {"error"}


@pytest.mark.shows("bbb-api: management API, MANAGEMENT_CHECKSUM_AUTH")
async def test_the_checksum_way_can_be_turned_off(cluster: Cluster) -> None:
    client = await started(cluster)
    strict = await cluster.serve(MANAGEMENT_CHECKSUM_AUTH="false")
    query = f"checksum={hashlib.sha256(f'getServers{SECRET}'.encode()).hexdigest()}"
    assert (await client.send("getServers", headers={}, query=query)).status == 200
    assert (await Client(strict, client.tokens).send("getServers", headers={}, query=query)).status == 401
    assert (await Client(strict, client.tokens)("getServers")).status == 200


@pytest.mark.shows("bbb-api: management API, secrets", "DE-8", "MO-3")
async def test_secrets_are_shown_to_an_admin_who_asks_and_to_nobody_else(cluster: Cluster) -> None:
    client = await started(cluster)
    await client("addServer", {"server": NEW})
    for name, canary in {"getServers": NEW["secret"], "getTenants": "tenant1-secret"}.items():
        for scope in ("read", "operate", "admin"):
            assert canary.encode() not in (await client(name, scope=scope)).body
        assert (await client(name, scope="operate", query="secrets=true")).status == 403
        assert canary.encode() in (await client(name, query="secrets=true")).body
    assert NEW["secret"].encode() not in (await client("getHistory", query="secrets=true")).body
    assert (await client("getServers", query="secrets=yes")).status == 400


@pytest.mark.shows("bbb-api: tenants, hosts")
async def test_hosts_of_no_tenant_and_outside_the_domain_get_nothing(cluster: Cluster) -> None:
    client = await started(cluster)
    headers = {"Authorization": f"Bearer {client.tokens['admin']}"}
    answer = await client.send("getServers", headers=headers, host="evil.example.com")
    assert (answer.status, answer.body) == (403, b"")
    for path in ("/", "/x", API, f"{API}/create", f"{API}/x", f"{API}/end_callback/x"):
        answer = await client.service.send(path, host="evil.example.com")
        assert (answer.status, answer.body) == (403, b""), path
    for path in ("/health_check", "/health/live", "/health/ready"):
        assert (await client.service.send(path, host="evil.example.com")).status == 200


# --- changes ---------------------------------------------------------------------------------------------------------


@pytest.mark.shows("bbb-api: management API", "DE-10", "DE-11", "plan: running services see it within a second")
async def test_a_change_is_a_revision_of_its_token_and_known_at_once(cluster: Cluster) -> None:
    client = await started(cluster)
    added = said(await client("addServer", {"server": NEW}))
    assert (added["state"], "secret" in added) == ("disabled", False)
    update = {"server": {"state": "enable", "tag": "gpu", "load_multiplier": "2.5"}}
    updated = said(await client("updateServer", {"id": added["id"], **update}))
    assert (updated["state"], updated["tag"], updated["load_multiplier"]) == ("enabled", "gpu", "2.5")

    async def known() -> bool:
        specs = client.service.app.ctx.proxy.snapshot.declared.servers
        return added["id"] in specs and bool(specs[added["id"]].tag == "gpu")

    await eventually(known)
    newest, first = said(await client("getHistory", query="limit=2"))
    assert (newest["actor"], newest["message"], first["message"]) == ("token admin", "updateServer", "addServer")
    assert newest["changes"][0]["address"] == f"server/{added['id']}"
    assert newest["number"] == first["number"] + 1
    assert said(await client("deleteServer", {"id": added["id"]})) == {
        "success": f"Server id={added['id']} was destroyed"
    }


@pytest.mark.shows("bbb-api: management API, settings")
async def test_a_setting_is_added_replaced_and_removed(cluster: Cluster) -> None:
    client = await started(cluster)
    first = said(await client("addTenantSetting", {"tenant": "tenant1", "setting": {"param": "record", "value": "1"}}))
    again = {"param": "record", "value": "2", "override": True, "calls": ["create"]}
    second = said(await client("addTenantSetting", {"tenant": first["tenant_id"], "setting": again}))
    assert second["id"] == first["id"]
    assert said(await client("getTenantSettings", query="tenant=tenant1")) == [second]
    assert again.items() <= second.items()
    assert said(await client("getTenantSettings", query="tenant=tenant2")) == []
    assert (await client("getTenantSettings", query="tenant=nope")).status == 404
    assert (await client("deleteTenantSetting", {"id": first["id"]})).status == 200
    assert (await client("deleteTenantSetting", {"id": first["id"]})).status == 404
    reserved = {"param": "moderatorPW", "value": "x"}
    assert (await client("addTenantSetting", {"tenant": "tenant1", "setting": reserved})).status == 400


@pytest.mark.shows("bbb-api: management API, updateTenantLrs", "XA-1")
async def test_an_lrs_is_set_switched_and_removed_and_shows_no_password(cluster: Cluster) -> None:
    client = await started(cluster)
    tenant = said(await client("getTenants"))[0]["id"]
    basic = {"endpoint": "https://lrs.example.com/xapi", "basic": {"username": "u", "password": "canary-of-lrs"}}
    answer = await client("updateTenantLrs", {"id": tenant, "lrs": basic})
    assert said(answer)["tenant"]["lrs_username"] == "u"
    assert b"canary" not in answer.body
    oidc = {
        "token_url": "https://kc.example.com/token", "client_id": "c", "client_secret": "s",
        "username": "v", "password": "canary-of-kc",
    }  # fmt: skip
    lrs = {"endpoint": "https://lrs.example.com/xapi", "oidc": oidc}
    switched = said(await client("updateTenantLrs", {"id": tenant, "lrs": lrs}, query="secrets=true"))["tenant"]
    assert "lrs_username" not in switched
    assert (switched["kc_username"], switched["kc_password"]) == ("v", "canary-of-kc")
    both = await client("updateTenantLrs", {"id": tenant, "lrs": {**basic, **lrs}})
    assert both.status == 400
    assert b"canary" not in both.body
    gone = said(await client("updateTenantLrs", {"id": tenant, "lrs": None}))["tenant"]
    assert "lrs_endpoint" not in gone


@pytest.mark.shows("bbb-api: management API", "DE-12")
async def test_a_tenant_that_is_named_by_its_name_can_be_renamed_and_switched_off(cluster: Cluster) -> None:
    client = await started(cluster)
    before = said(await client("getTenantInfo", query="id=tenant1"))
    after = said(await client("updateTenant", {"id": "tenant1", "tenant": {"name": "school", "enabled": False}}))
    assert after == {"tenant": {**before, "name": "school", "enabled": False}}
    assert (await client("getTenantInfo", query="id=tenant1")).status == 404
    assert said(await client("getTenantInfo", query=f"id={before['id']}")) == after["tenant"]


@pytest.mark.shows("bbb-api: management API, panicServer", "DR-4", "DR-7")
async def test_panic_says_what_became_of_each_meeting(cluster: Cluster) -> None:
    client = await started(cluster)
    name = cluster.servers[0].name
    await client.service.create("room")
    cluster.servers[0].fail("status", calls=["end"])
    done = said(await client("panicServer", {"id": name}, scope="operate"))
    assert [(end["meeting_id"], end["outcome"]) for end in done["meetings"]] == [("room", "unknown")]
    assert said(await client("panicServer", {"id": name}))["meetings"] == []
    assert said(await client("getStatus"))[0]["state"] == "disabled"


@pytest.mark.shows("bbb-api: management API, poll")
async def test_poll_asks_the_servers_and_status_does_not(cluster: Cluster) -> None:
    client = await started(cluster)
    asked = cluster.asked("getMeetings")
    assert said(await client("getStatus", scope="read"))[0]["health"] == "online"
    assert cluster.asked("getMeetings") == asked
    assert said(await client("poll", scope="operate")) == {"polled": 1, "failed": [], "suspect": False}
    assert cluster.asked("getMeetings") == asked + 1


# --- what is sent ----------------------------------------------------------------------------------------------------

HOSTILE: Final = {
    "no JSON": b"{",
    "not UTF-8": b'{"server": {"url": "\xff"}}',
    "NaN": b'{"server": {"url": "https://a/api", "secret": "s", "load_multiplier": NaN}}',
    "infinite": b'{"server": {"url": "https://a/api", "secret": "s", "load_multiplier": 1e999}}',
    "a number with many digits": b'{"server": {"url": "https://a/api", "secret": "s", "load_multiplier": 1'
    + b"0" * 5000
    + b"}}",
    "deep": b'{"server":' * 5000,
    "NUL": b'{"server": {"url": "https://a/api", "secret": "a\\u0000b"}}',
    "NUL in a tag": b'{"server": {"url": "https://a/api", "secret": "s", "tag": "a\\u0000b"}}',
    "half a surrogate pair": b'{"server": {"url": "https://a/api", "secret": "\\ud800"}}',
    "a list": b"[]",
    "texts for objects": b'{"server": "x"}',
}


@pytest.mark.shows("bbb-api: management API")
async def test_a_refusal_names_the_field_in_the_words_of_the_api(cluster: Cluster) -> None:
    client = await started(cluster)
    answer = await client("addServer", {"server": {"url": "https://a/api", "secret": "a\0b"}})
    assert (answer.status, json.loads(answer.body)) == (
        400,
        {"error": "server.secret: must not hold control characters"},
    )


@pytest.mark.shows("issue D: hostile requests", "bbb-api: management API")
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
async def test_what_cannot_be_meant_is_a_400_in_json(cluster: Cluster, body: bytes) -> None:
    client = await started(cluster)
    answer = await client("addServer", body)
    assert answer.status == 400, answer.body
    assert said(answer)["error"]


@pytest.mark.shows("issue D: hostile requests", "bbb-api: management API")
async def test_other_methods_calls_and_types_have_their_status(cluster: Cluster) -> None:
    client = await started(cluster)
    headers = {"Authorization": f"Bearer {client.tokens['admin']}"}
    for method, target, status in [
        ("DELETE", "getServers", 405), ("GET", "addServer", 405), ("OPTIONS", "getServers", 405),
        ("TRACE", "poll", 405),
        ("GET", "getFoo", 404), ("GET", "", 404), ("GET", "getServerInfo?id=a%00b", 404),
        ("GET", "getServerInfo?id=%ff", 400), ("GET", "getHistory?limit=0", 400), ("GET", "getHistory?limit=x", 400),
    ]:  # fmt: skip
        answer = await client.service.send(f"{MANAGEMENT}/{target}", method=method, host=DOMAIN, headers=headers)
        assert answer.status == status, (method, target, answer.body)
        assert ("Allow" in answer.headers) == (status == 405)
        assert said(answer)["error"]
    form = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
    answer = await client.service.send(f"{MANAGEMENT}/addServer", method="POST", host=DOMAIN, headers=form, body=b"a=b")
    assert answer.status == 415
    assert (await client("addServer", b" " * (1 << 20))).status == 413


# --- meetings and their servers --------------------------------------------------------------------------------------


@pytest.mark.shows("LB-14", "CR-12", "bbb-api: management API")
async def test_meetings_are_listed_with_their_servers_and_marked_where_those_are_silent(cluster: Cluster) -> None:
    client = await started(cluster)
    await client.service.create("room-1")
    await client.service.create("room-1", tenant="tenant2")
    await cluster.poll()

    async def listed(query: str = "") -> list[tuple[str, str, str, bool]]:
        found = said(await client("getMeetings", scope="read", query=query))
        return [(each["tenant"], each["meeting_id"], each["server"], each["silent"]) for each in found]

    assert await listed() == [("tenant1", "room-1", "bbb1", False)]
    assert (await listed("tenant=tenant1"), await listed("tenant=tenant2")) == (await listed(), [])
    assert (await listed("server=bbb1"), await listed("server=bbb2")) == (await listed(), [])
    assert (await client("getMeetings", query="tenant=nobody")).status == 404
    cluster.servers[0].refuse()
    await cluster.poll()
    assert await listed() == [("tenant1", "room-1", "bbb1", True)]


@pytest.mark.shows("LB-14")
@pytest.mark.parametrize("told", [False, True])
async def test_tenants_learn_the_server_of_a_meeting_only_where_that_was_chosen(cluster: Cluster, told: bool) -> None:
    client = await started(cluster, SERVER_ID_METADATA=str(told).lower())
    service = client.service
    created = await service.create("room-1", **({"meta_Server-ID": "mine"} if told else {}))
    answers = [created, await service.create("room-1"), await service.about("getMeetingInfo", "room-1")]
    answers.append(await service.call("getMeetings"))
    assert all(answer.succeeded for answer in answers)
    assert [b"bbb1" in answer.body for answer in answers] == [False, False, told, told]
    assert answers[2].text("metadata/server-id") == ("bbb1" if told else "")


# --- the document ----------------------------------------------------------------------------------------------------


@pytest.mark.shows("bbb-api: management API, OpenAPI")
async def test_the_document_names_every_call_and_its_schemas_are_schemas(cluster: Cluster) -> None:
    client = await started(cluster)
    document = said(await client.service.send(f"{MANAGEMENT}/openapi.json", host=DOMAIN))
    assert document["openapi"] == "3.1.0"
    assert {path.rpartition("/")[2] for path in document["paths"]} == {*OPERATIONS, "recordings"}
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.shows("bbb-api: management API, OpenAPI", "issue D: schemathesis")
async def test_the_service_holds_to_its_own_document(cluster: Cluster, tmp_path: Path) -> None:
    client = await started(cluster, RECORDING_SPOOL_DIR=str(tmp_path / "spool"))  # archives are sent, too
    url = f"http://127.0.0.1:{client.service.port}{MANAGEMENT}/openapi.json"
    checks = (
        "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
        "response_schema_conformance", "unsupported_method", "ignored_auth",
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", url, "--checks", ",".join(checks)),
        *("--header", f"Authorization: Bearer {client.tokens['admin']}", "--header", f"Host: {DOMAIN}"),
        *("--max-examples", "5", "--phases", "examples,coverage,fuzzing", "--seed", "1"),
        *("--no-color", "--warnings", "off"),
        cwd=tmp_path,  # it keeps notes there
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-6000:]
