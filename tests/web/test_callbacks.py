"""Callbacks: what a server is told instead of a client's URLs, who may call us, and what reaches the client."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from scalelite.flows.callbacks import AT_ONCE, deliver_due, deliver_forever, recording_ready
from tests.web.conftest import API, BAD_CHECKSUM, DOMAIN, QUICK, TENANTS, UNSUPPORTED, Answer, Cluster, eventually
from tests.web.receiver import receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.web.conftest import Service
    from tests.web.receiver import Receiver

PRIVATE = {"CALLBACK_ALLOW_PRIVATE": "true"}
ENDED, END_CALLBACK, ANALYTICS = "meetingEndedURL", "meta_endCallbackUrl", "meta_analytics-callback-url"
READY = ("meta_bn-recording-ready-url", "meta_bbb-recording-ready-url", "meta_canvas-recording-ready-url")


# Parts of tokens that anybody may send, since they are read before the signature is.
ODD_HEADS = (b'{"alg":"HS512"}', b'{"alg":"none"}', b"[]", b"1", b"[" * 3000)
ODD_CLAIMS = (b"{}", b'{"exp":1' + b"0" * 400 + b"}", b'{"exp":Infinity}', b'{"exp":"x"}', b'{"exp":null}', b"\xff")


@pytest.fixture
async def client() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwt(secret: str, *, exp_in_s: float = 60, algorithm: str = "HS512") -> str:
    """A token as BigBlueButton signs its analytics."""
    head = encoded(json.dumps({"alg": algorithm}).encode())
    signed = f"{head}.{encoded(json.dumps({'exp': time.time() + exp_in_s}).encode())}"
    function = {"HS512": hashlib.sha512, "HS256": hashlib.sha256}[algorithm]
    return f"{signed}.{encoded(hmac.new(secret.encode(), signed.encode(), function).digest())}"


def claims(token: str, secret: str, function: Any) -> dict[str, Any]:
    """The claims of a token that this secret has signed."""
    signed, _, mac = token.rpartition(".")
    assert encoded(hmac.new(secret.encode(), signed.encode(), function).digest()) == mac
    payload = signed.partition(".")[2]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return decoded


def path_given(cluster: Cluster, param: str, meeting_id: str = "room-1") -> str:
    """The path of the URL that the meeting's server has got in place of the client's."""
    asked = [
        request.params
        for server in cluster.hosts_of(meeting_id)
        for request in server.requests
        if request.call == "create" and request.params["meetingID"] == meeting_id and param in request.params
    ]
    url = urlsplit(asked[-1][param])
    assert (url.scheme, url.netloc) == ("https", f"tenant1.{DOMAIN}")
    return url.path


async def delivered(cluster: Cluster) -> int:
    return await deliver_due(await cluster.poller())


async def queue(cluster: Cluster) -> list[dict[str, Any]]:
    cursor = await cluster.connection.execute("SELECT kind, state, attempts, outcome, due_at FROM callback ORDER BY id")
    return await cursor.fetchall()


async def hooks(cluster: Cluster) -> list[tuple[str, str]]:
    cursor = await cluster.connection.execute("SELECT name, url FROM callback_hook ORDER BY name")
    return [(row["name"], row["url"]) for row in await cursor.fetchall()]


async def analytics(service: Service, token: str, meeting_id: str = "room-1", tenant: str = "tenant1") -> Answer:
    body = json.dumps({"meeting_id": meeting_id, "data": {"duration": 60}}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    target = f"{API}/analytics_callback"
    return await service.send(target, method="POST", host=f"{tenant}.{DOMAIN}", headers=headers, body=body)


# --- the end of a meeting --------------------------------------------------------------------------------------------


@pytest.mark.shows("CB-1", "bbb-api: callbacks")
@pytest.mark.parametrize(("param", "added"), [(ENDED, ""), (END_CALLBACK, "recordingmarks=true&meetingID=room-1")])
async def test_the_end_of_a_meeting_is_known_at_once_and_its_client_is_called(
    cluster: Cluster, client: Receiver, param: str, added: str
) -> None:
    service = await cluster.start(environment=PRIVATE)
    other = await cluster.serve()
    await service.create("room-1", **{param: f"{client.url}/ended?room=1"})
    assert (await other.about("getMeetingInfo", "room-1")).succeeded
    path = path_given(cluster, param)
    assert len(path.rpartition("/")[2]) >= 32
    delivering = asyncio.create_task(deliver_forever(await cluster.poller()))
    cluster.hosts_of("room-1")[0].forget("room-1")
    assert (await service.send(f"{path}?recordingmarks=true&meetingID=room-1")).status == 204

    async def known_everywhere() -> bool:
        answers = [await one.about("getMeetingInfo", "room-1") for one in (service, other)]
        return all(answer.key == "notFound" for answer in answers) and len(client.received) == 1

    async def nothing_waits() -> bool:
        return await queue(cluster) == []

    await eventually(known_everywhere, 2)
    await eventually(nothing_waits, 2)
    delivering.cancel()
    assert await cluster.meetings() == []
    assert [(call.method, call.path) for call in client.received] == [("GET", "/ended")]
    assert client.received[0].query == "&".join(part for part in ("room=1", added) if part)


@pytest.mark.shows("CB-1", "CB-5")
async def test_nobody_guesses_the_url_of_an_end_and_it_works_once(cluster: Cluster, client: Receiver) -> None:
    service = await cluster.start(environment=PRIVATE)
    await service.create("room-1", **{ENDED: client.url})
    path = path_given(cluster, ENDED)
    for wrong in (
        path[:-1],
        path[:-1] + ("0" if path[-1] != "0" else "1"),
        path.replace("meeting_ended", "end_callback"),
    ):
        assert (await service.send(wrong)).failure == UNSUPPORTED
    assert (await service.send(path, host="a.example")).status == 403
    assert (await service.send(path, method="POST")).failure == UNSUPPORTED
    assert len(await cluster.meetings()) == 1
    assert (await service.send(path)).status == 204
    assert (await service.send(path)).failure == UNSUPPORTED
    assert len(await queue(cluster)) == 1


@pytest.mark.shows("CB-1")
async def test_an_ended_meeting_still_tells_its_client(cluster: Cluster, client: Receiver) -> None:
    service = await cluster.start(environment=PRIVATE)
    await service.create("room-1", **{END_CALLBACK: client.url})
    path = path_given(cluster, END_CALLBACK)
    assert (await service.about("end", "room-1")).succeeded
    assert (await service.send(f"{path}?meetingID=room-1&recordingmarks=false")).status == 204
    assert await delivered(cluster) == 1
    assert client.received[0].query == "meetingID=room-1&recordingmarks=false"


@pytest.mark.shows("CB-1", "PO-13")
async def test_a_server_that_lost_a_meeting_to_another_does_not_end_it(cluster: Cluster, client: Receiver) -> None:
    service = await cluster.start(environment=PRIVATE)
    cluster.server(1, load_multiplier=10.0)
    await cluster.apply()
    await service.create("room-1", **{ENDED: client.url})
    before = path_given(cluster, ENDED)
    cluster.server(0, state="disabled")
    await cluster.apply()
    assert (await service.create("room-1", **{ENDED: client.url})).succeeded
    assert (await service.send(before)).failure == UNSUPPORTED
    assert len(await cluster.meetings()) == 1
    assert (await service.send(path_given(cluster, ENDED))).status == 204
    assert await cluster.meetings() == []


@pytest.mark.shows("bbb-api: callbacks", "bbb-api: create 6")
async def test_answers_show_none_of_our_urls(cluster: Cluster, client: Receiver) -> None:
    service = await cluster.start(environment=PRIVATE)
    await service.create("room-1", **{END_CALLBACK: client.url, ANALYTICS: client.url, "meta_mine": "kept"})
    for answer in (await service.about("getMeetingInfo", "room-1"), await service.call("getMeetings")):
        assert answer.succeeded
        assert b"callback" not in answer.body
        assert b"<mine>kept</mine>" in answer.body


# --- repeated and failed creates -------------------------------------------------------------------------------------


@pytest.mark.shows("CB-4")
async def test_a_repeated_create_adds_hooks_and_takes_none_away(cluster: Cluster, client: Receiver) -> None:
    service = await cluster.start(environment=PRIVATE)
    first, second = f"{client.url}/1", f"{client.url}/2"
    await service.create("room-1", **{READY[0]: first, ENDED: first})
    path = path_given(cluster, ENDED)
    await service.create("room-1")
    await service.create("room-1", **{ANALYTICS: second})
    assert await hooks(cluster) == [(ENDED, first), (ANALYTICS, second), (READY[0], first)]
    await service.create("room-1", **{ENDED: second})
    assert path_given(cluster, ENDED) == path
    assert (ENDED, second) in await hooks(cluster)


@pytest.mark.shows("CR-3", "CB-4")
async def test_a_create_that_fails_leaves_no_hook(cluster: Cluster, client: Receiver) -> None:
    service = await cluster.start(1, environment={**PRIVATE, **QUICK})
    cluster.servers[0].fail("status", status=500, calls=["create"])
    await service.create("room-1", **{READY[0]: client.url, ENDED: client.url})
    assert await hooks(cluster) == []
    assert await cluster.meetings() == []


# --- recordings ------------------------------------------------------------------------------------------------------


@pytest.mark.shows("bbb-api: callbacks", "SE-1")
@pytest.mark.parametrize("param", READY)
async def test_a_ready_recording_is_told_with_the_secret_that_created_its_meeting(
    cluster: Cluster, client: Receiver, param: str
) -> None:
    service = await cluster.start(environment=PRIVATE)
    await service.create("room-1", **{param: f"{client.url}/ready", "meta_x": "1"})
    assert not [name for name in cluster.last_params("create") if "recording-ready" in name]
    (tenant,) = {row["tenant"] for row in await (await cluster.connection.execute("TABLE meeting")).fetchall()}
    await service.about("end", "room-1")
    assert await recording_ready(cluster.connection, tenant, "room-1", "record-1") == 1
    assert await delivered(cluster) == 1
    (call,) = client.received
    assert (call.method, call.path, call.headers["Content-Type"]) == (
        "POST",
        "/ready",
        "application/x-www-form-urlencoded",
    )
    (token,) = parse_qs(call.body.decode())["signed_parameters"]
    told = claims(token, TENANTS["tenant1"], hashlib.sha256)
    assert told == {"meeting_id": "room-1", "record_id": "record-1"}


@pytest.mark.shows("CB-3")
async def test_tenants_with_equal_meeting_ids_are_told_of_their_own_recordings(
    cluster: Cluster, client: Receiver
) -> None:
    service = await cluster.start(environment=PRIVATE)
    for tenant in TENANTS:
        await service.create("room-1", tenant=tenant, **{READY[0]: f"{client.url}/{tenant}"})
    rows = await (await cluster.connection.execute("SELECT id, name FROM tenant WHERE name <> ''")).fetchall()
    for row in rows:
        assert await recording_ready(cluster.connection, row["id"], "room-1", f"record of {row['name']}") == 1
    await delivered(cluster)
    assert {call.path for call in client.received} == {"/tenant1", "/tenant2"}
    for call in client.received:
        tenant = call.path[1:]
        (token,) = parse_qs(call.body.decode())["signed_parameters"]
        assert claims(token, TENANTS[tenant], hashlib.sha256)["record_id"] == f"record of {tenant}"


@pytest.mark.shows("bbb-api: callbacks")
async def test_recordings_are_told_with_sha512_where_sha256_is_not_allowed(cluster: Cluster, client: Receiver) -> None:
    service = await cluster.start(environment={**PRIVATE, "LOADBALANCER_CHECKSUM_ALGORITHM": "SHA512"})
    params = {"meetingID": "room-1", "name": "Room", READY[0]: client.url}
    query = "&".join(f"{name}={value}" for name, value in params.items())
    proof = hashlib.sha512(f"create{query}{TENANTS['tenant1']}".encode()).hexdigest()
    assert (await service.send(f"{API}/create?{query}&checksum={proof}")).succeeded
    (row,) = await (await cluster.connection.execute("SELECT tenant FROM meeting")).fetchall()
    await recording_ready(cluster.connection, row["tenant"], "room-1", "record-1")
    await delivered(cluster)
    (token,) = parse_qs(client.received[0].body.decode())["signed_parameters"]
    assert claims(token, TENANTS["tenant1"], hashlib.sha512)["record_id"] == "record-1"


# --- analytics -------------------------------------------------------------------------------------------------------


@pytest.mark.shows("bbb-api: callbacks", "SE-1")
async def test_analytics_go_to_the_client_signed_with_the_secret_of_the_create(
    cluster: Cluster, client: Receiver
) -> None:
    service = await cluster.start(environment=PRIVATE)
    await service.create("room-1", **{ANALYTICS: f"{client.url}/analytics"})
    assert path_given(cluster, ANALYTICS) == f"{API}/analytics_callback"
    (server,) = cluster.hosts_of("room-1")
    answer = await analytics(service, jwt(server.secret))
    assert (answer.status, answer.body) == (204, b"")
    await delivered(cluster)
    (call,) = client.received
    assert (call.method, call.path, call.headers["Content-Type"]) == ("POST", "/analytics", "application/json")
    assert json.loads(call.body) == {"meeting_id": "room-1", "data": {"duration": 60}}
    token = call.headers["Authorization"].removeprefix("Bearer ")
    assert claims(token, TENANTS["tenant1"], hashlib.sha512)["exp"] > time.time()


@pytest.mark.shows("CB-5", "CB-3")
async def test_analytics_that_no_server_signed_are_refused_and_of_other_servers_meetings_dropped(
    cluster: Cluster, client: Receiver
) -> None:
    service = await cluster.start(environment=PRIVATE)
    await service.create("room-1", **{ANALYTICS: client.url})
    (server,) = cluster.hosts_of("room-1")
    (other,) = (one for one in cluster.servers if one is not server)
    bad = [
        "",
        "x",
        "a.b.c",
        jwt("wrong"),
        jwt(server.secret, exp_in_s=-1),
        jwt(server.secret, algorithm="HS256"),
        "é" * 9,
        *(f"{encoded(head)}.{encoded(claims)}.{encoded(b'x')}" for head in ODD_HEADS for claims in ODD_CLAIMS),
    ]
    for token in [*bad, jwt(server.secret)[:-1], TENANTS["tenant1"], jwt(TENANTS["tenant1"])]:
        answer = await analytics(service, token)
        assert (answer.status, answer.body) == (401, b""), token
    assert (await service.send(f"{API}/analytics_callback", method="POST", body=b"{}")).status == 401
    for token, meeting_id, tenant in (
        (jwt(other.secret), "room-1", "tenant1"),
        (jwt(server.secret), "nowhere", "tenant1"),
        (jwt(server.secret), "room-1", "tenant2"),
    ):
        assert (await analytics(service, token, meeting_id, tenant)).status == 204
    assert (await analytics(service, jwt(server.secret), tenant="tenant9")).failure == BAD_CHECKSUM
    body = json.dumps({"meeting_id": "room-1"}).encode()
    headers = {"Authorization": f"Bearer {jwt(server.secret)}"}
    outside = await service.send(
        f"{API}/analytics_callback", method="POST", host="a.example", headers=headers, body=body
    )
    assert (outside.status, outside.body) == (403, b"")
    assert await queue(cluster) == []


# --- the queue -------------------------------------------------------------------------------------------------------


@pytest.mark.shows("CB-2", "bbb-api: callbacks")
@pytest.mark.parametrize(
    ("status", "state"),
    [
        (204, ""),
        (404, "refused"),
        (410, "refused"),
        (500, "waiting"),
        (401, "waiting"),
        (302, "waiting"),
        (0, "waiting"),
    ],
)
async def test_a_delivery_is_stopped_at_2xx_404_and_410_and_else_tried_again(
    cluster: Cluster, client: Receiver, status: int, state: str
) -> None:
    service = await cluster.start(environment=PRIVATE)
    client.statuses = [status or 200]
    url = client.url if status else "http://127.0.0.1:1"
    await service.create("room-1", **{ENDED: url})
    await service.send(path_given(cluster, ENDED))
    assert await delivered(cluster) == 1
    assert [row["state"] for row in await queue(cluster)] == ([state] if state else [])
    assert await delivered(cluster) == 0


@pytest.mark.shows("CB-2")
async def test_a_delivery_outlives_the_deliverer_and_is_given_up_after_a_day(
    cluster: Cluster, client: Receiver
) -> None:
    service = await cluster.start(environment=PRIVATE)
    client.statuses = [500, 503, 200]
    await service.create("room-1", **{ENDED: client.url})
    await service.send(path_given(cluster, ENDED))
    for attempts in (1, 2):
        assert await delivered(cluster) == 1
        (row,) = await queue(cluster)
        assert (row["state"], row["attempts"]) == ("waiting", attempts)
        await cluster.connection.execute("UPDATE callback SET due_at = now()")
    assert await delivered(cluster) == 1
    assert await queue(cluster) == []
    client.statuses = [500]
    await service.create("room-2", **{ENDED: client.url})
    await service.send(path_given(cluster, ENDED, "room-2"))
    await cluster.connection.execute("UPDATE callback SET created_at = now() - interval '24 hours'")
    assert await delivered(cluster) == 1
    assert [(row["state"], row["outcome"]) for row in await queue(cluster)] == [("given up", "HTTP 500")]


@pytest.mark.shows("CB-2")
async def test_what_two_deliverers_take_is_delivered_once(cluster: Cluster, client: Receiver) -> None:
    service = await cluster.start(environment=PRIVATE)
    for number in range(20):
        await service.create(f"room-{number}", **{ENDED: f"{client.url}/{number}"})
        await service.send(path_given(cluster, ENDED, f"room-{number}"))
    poller = await cluster.poller()
    assert sum(await asyncio.gather(*(deliver_due(poller) for _ in range(4)))) == 20
    assert sorted(call.path for call in client.received) == sorted(f"/{number}" for number in range(20))


@pytest.mark.shows("CB-2", "bbb-api: callbacks")
async def test_a_client_that_is_slow_holds_up_no_other(cluster: Cluster, client: Receiver) -> None:
    service = await cluster.start(1, environment=PRIVATE)
    async with receiving() as slow:
        slow.delay_s = 60
        for number in range(AT_ONCE - 1):
            await service.create(f"room-{number}", **{ENDED: f"{slow.url}/{number}"})
            await service.send(path_given(cluster, ENDED, f"room-{number}"))
        delivering = asyncio.create_task(deliver_due(await cluster.poller()))
        for number in range(AT_ONCE):
            await service.create(f"late-{number}", **{ENDED: f"{client.url}/{number}"})
            await service.send(path_given(cluster, ENDED, f"late-{number}"))

        async def all_called() -> bool:
            return len(client.received) == AT_ONCE

        await eventually(all_called, 8)
        assert not delivering.done()
        delivering.cancel()
        await asyncio.wait([delivering])


@pytest.mark.shows("CB-5", "bbb-api: callbacks")
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "[::ffff:127.0.0.1]:{port}", "0.0.0.0:{port}",
        "2130706433:{port}", "10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "[fe80::1]",
        "[fd00::1]", "[fec0::1]", "[64:ff9b::7f00:1]",
    ],
)  # fmt: skip
async def test_callers_cannot_have_us_ask_private_addresses(cluster: Cluster, client: Receiver, host: str) -> None:
    service = await cluster.start()
    await service.create("room-1", **{ENDED: f"http://{host.format(port=client.port)}/"})
    await service.send(path_given(cluster, ENDED))
    assert await delivered(cluster) == 1
    (row,) = await queue(cluster)
    assert row["state"] == "refused", row
    assert client.received == []


@pytest.mark.shows("CB-5")
@pytest.mark.parametrize(
    "url", ["ftp://example.com/", "file:///etc/passwd", "no url", "http://", "http://[::1", "//x/y"]
)
async def test_what_is_no_web_address_is_refused(cluster: Cluster, url: str) -> None:
    service = await cluster.start(environment=PRIVATE)
    assert (await service.create("room-1", **{ENDED: url})).succeeded
    await service.send(path_given(cluster, ENDED))
    assert await delivered(cluster) == 1
    assert [row["state"] for row in await queue(cluster)] == ["refused"]


@pytest.mark.shows("CB-5", "bbb-api: callbacks")
async def test_redirects_of_clients_are_not_followed(cluster: Cluster, client: Receiver) -> None:
    service = await cluster.start(environment=PRIVATE)
    client.statuses = [302]
    await service.create("room-1", **{ENDED: f"{client.url}/first"})
    await service.send(path_given(cluster, ENDED))
    await delivered(cluster)
    assert [call.path for call in client.received] == ["/first"]


@pytest.mark.shows("bbb-api: callbacks")
async def test_empty_urls_are_dropped_and_letter_case_of_metadata_does_not_matter(
    cluster: Cluster, client: Receiver
) -> None:
    service = await cluster.start(environment=PRIVATE)
    await service.create(
        "room-1", **{"meta_ENDCALLBACKURL": client.url, ANALYTICS: " ", ENDED: "", "meta_BN-recording-ready-url": ""}
    )
    assert await hooks(cluster) == [("meta_endcallbackurl", client.url)]
    asked = cluster.last_params("create")
    assert {name for name in asked if "callback" in name.lower() or name == ENDED} == {"meta_ENDCALLBACKURL"}
    assert dict(parse_qsl(urlsplit(asked["meta_ENDCALLBACKURL"]).query)) == {}
