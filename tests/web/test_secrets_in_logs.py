"""No secret, password or checksum in a log, in clear or encoded, at the most detailed level, whatever goes wrong."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest

from scalelite.core.model import LrsBasic, LrsOidc, Secret
from scalelite.flows.callbacks import deliver_due, recording_ready
from scalelite.logs import scrub
from tests.web.conftest import API, DOMAIN, FORM, QUICK, Cluster
from tests.web.receiver import receiving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalelite.sim.faults import Mode
    from tests.web.conftest import Service

ENVIRONMENT = {
    **QUICK,
    "LOG_LEVEL": "debug",
    "LOADBALANCER_SECRET": "lb-secret <&> pässword",
    "FSAPI_PASSWORD": "freeswitch-password+/=",
}
LRS_PASSWORD, CLIENT_SECRET, OIDC_PASSWORD = "lrs password/1", "client secret/2", "oidc password/3"
PASSWORDS = {"attendeePW": "attendee/pw+1", "moderatorPW": "moderator/pw+1"}
SECRETS = {"tenant1": "tenant1-secret", "tenant2": "tenant2-secret"}
CALLS = ("create", "join", "isMeetingRunning", "getMeetingInfo", "getMeetings", "getSessions", "getRecordings",
         "publishRecordings", "updateRecordings", "deleteRecordings", "sendChatMessage", "insertDocument", "end",
         "noSuchCall")  # fmt: skip


def forms_of(secret: str) -> Iterator[str]:
    """A secret as it may stand in a text: in clear, percent-encoded, in JSON, in XML, base64, hex."""
    yield secret
    yield from {quote(secret, safe=""), quote_plus(secret), quote(secret), json.dumps(secret)[1:-1]}
    yield secret.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for before in ("", "a", "ab"):  # where in a group of three bytes it begins
        encoded = base64.b64encode(f"{before}{secret}".encode()).decode()
        yield encoded[4 if before else 0 : -4]
    yield secret.encode().hex()


async def make_all_calls(cluster: Cluster, service: Service, suffix: str) -> None:
    """Every call with right and wrong secrets, and those of servers and of FreeSWITCH."""
    for tenant, secret in SECRETS.items():
        params = {
            "meetingID": f"room-{tenant}-{suffix}",
            "name": "Room",
            "fullName": "Ada",
            "message": "hello",
            "recordID": "r",
            "password": PASSWORDS["moderatorPW"],
            "publish": "true",
            "meta_endCallbackUrl": "http://127.0.0.1:1/?token=client-token-1",
            "meta_analytics-callback-url": "http://127.0.0.1:1/",
            "meta_bn-recording-ready-url": "http://127.0.0.1:1/",
            **PASSWORDS,
        }
        for call in CALLS:
            how = {"method": "POST", "headers": {"Content-Type": "text/xml"}, "body": b"<modules/>"}
            for given in (secret, f"{secret}x"):
                await service.call(
                    call, params, tenant=tenant, secret=given, **(how if call == "insertDocument" else {})
                )
    for password in (ENVIRONMENT["FSAPI_PASSWORD"], "wrong"):
        basic = base64.b64encode(f"fsapi:{password}".encode()).decode()
        headers = {**FORM, "Authorization": f"Basic {basic}"}
        await service.send(
            "/fsapi", method="POST", host=DOMAIN, headers=headers, body=b"section=dialplan&variable_pin=1"
        )
    lb = ENVIRONMENT["LOADBALANCER_SECRET"]
    for call in ("getServers", "getTenants"):
        proof = hashlib.sha256(f"{call}{lb}".encode()).hexdigest()
        await service.send(f"/scalelite/api/{call}?checksum={proof}", host=DOMAIN)
        bearer = {"Authorization": f"Bearer {lb.encode().hex()}"}
        await service.send(f"/scalelite/api/{call}", host=DOMAIN, headers=bearer)
    for row in await (await cluster.connection.execute("SELECT token FROM callback_hook")).fetchall():
        await service.send(f"{API}/end_callback/{row['token']}")


@pytest.mark.shows("MO-3", "XA-5", "operations: logs", "issue D: secrets")
@pytest.mark.parametrize("style", ["text", "json"])
async def test_no_secret_is_in_the_log_of_all_calls_in_good_and_bad_times(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], style: str
) -> None:
    service = await cluster.start(2, environment={**ENVIRONMENT, "LOG_FORMAT": style})
    async with receiving() as provider:
        provider.answer = {"access_token": "access-token/4", "expires_in": 300}
        oidc = LrsOidc(
            token_url=f"{provider.url}/token",
            client_id="bbb",
            client_secret=Secret(CLIENT_SECRET),
            username="u",
            password=Secret(OIDC_PASSWORD),
        )
        basic = LrsBasic(username="u", password=Secret(LRS_PASSWORD))
        cluster.lrs("tenant1", endpoint="https://lrs.example/", oidc=oidc)
        cluster.lrs("tenant2", endpoint="https://lrs.example/", basic=basic)
        await cluster.apply()
        poller = await cluster.poller()
        modes: tuple[Mode | None, ...] = (None, "status", "garbage", "close", "hang")
        for place, mode in enumerate(modes):
            for server in cluster.servers:
                server.heal()
                if mode and mode != "hang":
                    server.fail(mode)
                elif mode:
                    server.fail(mode, calls=["create", "getMeetings"])
            await make_all_calls(cluster, service, str(place))
            await cluster.poll()
            await deliver_due(poller)
        cluster.servers[0].refuse()
        await make_all_calls(cluster, service, "refused")
        rows = await (await cluster.connection.execute("SELECT id FROM tenant WHERE name <> ''")).fetchall()
        for row in rows:
            await recording_ready(cluster.connection, row["id"], "room-tenant1-0", "r")
        await asyncio.gather(deliver_due(poller), cluster.poll())
        await cluster.connection.execute("ALTER TABLE meeting RENAME TO meeting_away")
        await make_all_calls(cluster, service, "away")
    logged = capsys.readouterr()
    text = logged.err + logged.out
    assert len(text.splitlines()) > 50, "the log is there"
    payloads = [
        request.params["meta_secret-lrs-payload"]
        for server in cluster.servers
        for request in server.requests
        if "meta_secret-lrs-payload" in request.params
    ]
    assert payloads
    sent = {request.params.get("checksum", "") for server in cluster.servers for request in server.requests} - {""}
    tokens = [row["token"] for row in await (await cluster.connection.execute("TABLE callback_hook")).fetchall()]
    known = [
        *SECRETS.values(),
        *PASSWORDS.values(),
        *(server.secret for server in cluster.servers),
        ENVIRONMENT["LOADBALANCER_SECRET"],
        ENVIRONMENT["FSAPI_PASSWORD"],
        LRS_PASSWORD,
        CLIENT_SECRET,
        OIDC_PASSWORD,
        "access-token/4",
        "client-token-1",
        *payloads,
        *sent,
        *tokens,
    ]
    for secret in known:
        for form in forms_of(secret):
            assert form not in text, f"a secret is logged: {lines_with(text, form)}"
    assert not re.search(r"[0-9a-f]{40,}", text), f"looks like a checksum: {re.findall('.*[0-9a-f]{40,}.*', text)[:3]}"


@pytest.mark.shows("operations: logs")
@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ("/api/end_callback/" + "ab12" * 10 + " failed", "/api/end_callback/******** failed"),
        (
            "recording " + "ab12" * 10 + "-1700000000000 imported",
            "recording " + "ab12" * 10 + "-1700000000000 imported",
        ),
        ("GET http://u:p@h/?a=b&checksum=xyz&c=d", "GET http://h/?a=b&checksum=********&c=d"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_a_line(text: str, logged: str) -> None:
    assert scrub(text) == logged


def lines_with(text: str, form: str) -> list[str]:
    return [line[:300] for line in text.splitlines() if form in line][:3]
