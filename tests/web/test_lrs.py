"""The xAPI payload of a create: decrypted as bbb-webhooks does it, and what happens when no token can be had."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from scalelite.core.model import LrsBasic, LrsOidc, Secret
from scalelite.flows.lrs import TOKEN_FAILURES
from tests.web.conftest import NOT_CREATED, Cluster
from tests.web.receiver import receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.web.receiver import Receiver

PARAM = "meta_secret-lrs-payload"
ENDPOINT = "https://lrs.example.com/data/"
BASIC = LrsBasic(username="lrs-user", password=Secret("lrs-pässword"))


def decrypted(payload: str, secret: str) -> Any:
    """What bbb-webhooks reads (src/out/xapi/decrypt.js): 8 bytes that it skips, 8 of salt, AES-256-CBC with PKCS#7."""
    raw = base64.b64decode(payload)
    derived = hashlib.pbkdf2_hmac("sha256", secret.encode(), raw[8:16], 10_000, 48)
    decryptor = Cipher(algorithms.AES(derived[:32]), modes.CBC(derived[32:])).decryptor()
    padded = decryptor.update(raw[16:]) + decryptor.finalize()
    assert 1 <= padded[-1] <= 16
    assert padded[-padded[-1] :] == padded[-1:] * padded[-1]
    return json.loads(padded[: -padded[-1]].decode())


def sent(cluster: Cluster, meeting_id: str = "room-1") -> Any:
    """The payload that the meeting's server got, decrypted with its secret; None for none."""
    (server,) = cluster.hosts_of(meeting_id)
    asked = [request.params for request in server.requests if request.call == "create"][-1]
    return decrypted(asked[PARAM], server.secret) if PARAM in asked else None


@pytest.fixture
async def provider() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        receiver.answer = {"access_token": "token-1", "expires_in": 300}
        yield receiver


def oidc(provider: Receiver) -> LrsOidc:
    return LrsOidc(
        token_url=f"{provider.url}/token",
        client_id="bbb",
        client_secret=Secret("client-secret"),
        username="svc",
        password=Secret("oidc-password"),
    )


@pytest.mark.shows("XA-4", "bbb-api: xAPI payload")
async def test_the_payload_opens_with_the_secret_of_the_server_that_got_it(cluster: Cluster) -> None:
    service = await cluster.start()
    cluster.lrs("tenant1", endpoint=ENDPOINT, basic=BASIC)
    await cluster.apply()
    await service.create("room-1")
    known = {"lrs_endpoint": ENDPOINT, "lrs_username": "lrs-user", "lrs_password": "lrs-pässword"}
    assert sent(cluster) == known
    first = cluster.last_params("create")[PARAM]
    await service.create("room-1")
    assert sent(cluster) == known
    assert cluster.last_params("create")[PARAM] != first
    await service.create("room-2", tenant="tenant2")
    assert sent(cluster, "room-2") is None


@pytest.mark.shows("XA-5", "bbb-api: create 5", "bbb-api: create 6")
async def test_a_clients_payload_is_stripped_and_ours_is_in_no_answer(cluster: Cluster) -> None:
    service = await cluster.start(1)
    for param in (PARAM, "meta_Secret-LRS-Payload"):
        await service.create("room-1", **{param: "forged"})
        assert not [name for name in cluster.last_params("create") if name.lower() == PARAM]
    cluster.lrs("tenant1", endpoint=ENDPOINT, basic=BASIC)
    await cluster.apply()
    await service.create("room-2", **{PARAM: "forged", "meta_mine": "kept"})
    assert sent(cluster, "room-2")["lrs_endpoint"] == ENDPOINT
    for answer in (await service.about("getMeetingInfo", "room-2"), await service.call("getMeetings")):
        assert answer.succeeded
        assert b"payload" not in answer.body.lower()
        assert b"<mine>kept</mine>" in answer.body


@pytest.mark.shows("XA-1", "XA-4")
async def test_a_change_of_the_lrs_counts_for_the_next_meeting_and_its_removal_ends_it(
    cluster: Cluster, provider: Receiver
) -> None:
    service = await cluster.start()
    cluster.lrs("tenant1", endpoint=ENDPOINT, basic=BASIC)
    await cluster.apply()
    cluster.lrs("tenant1", endpoint=ENDPOINT, oidc=oidc(provider))
    await cluster.apply()
    await service.create("room-1")
    assert sent(cluster) == {"lrs_endpoint": ENDPOINT, "lrs_token": "token-1"}
    (asked,) = provider.received
    assert {name: values[0] for name, values in parse_qs(asked.body.decode()).items()} == {
        "grant_type": "password",
        "client_id": "bbb",
        "client_secret": "client-secret",
        "username": "svc",
        "password": "oidc-password",
    }
    del cluster.specs[next(key for key in cluster.specs if key.kind == "lrs")]
    await cluster.apply()
    await service.create("room-2")
    assert sent(cluster, "room-2") is None


@pytest.mark.shows("XA-3", "bbb-api: xAPI payload")
async def test_a_token_is_fetched_once_until_it_expires(cluster: Cluster, provider: Receiver) -> None:
    service = await cluster.start()
    cluster.lrs("tenant1", endpoint=ENDPOINT, oidc=oidc(provider))
    await cluster.apply()
    created = await asyncio.gather(*(service.create(f"room-{number}") for number in range(5)))
    assert all(answer.succeeded for answer in created)
    await service.create("room-0")
    assert sent(cluster, "room-0")["lrs_token"] == "token-1"
    assert len(provider.received) == 1
    provider.answer = {"access_token": "token-2", "expires_in": 0}
    (kept,) = service.app.ctx.proxy.creates.payloads._kept.items()
    service.app.ctx.proxy.creates.payloads._kept.clear()
    await service.create("room-0")
    assert len(provider.received) == 1, "a repeated create fetches none"
    assert sent(cluster, "room-0") is None
    await service.create("room-5")
    await service.create("room-6")
    assert sent(cluster, "room-6")["lrs_token"] == "token-2"
    assert len(provider.received) == 3, "one that expires at once is not kept"
    assert kept[1].until_ms - time.time() * 1000 == pytest.approx(270_000, abs=30_000)


ANSWERS: dict[str, tuple[int, Any]] = {
    "refusal": (401, {"error": "invalid_grant"}),
    "error": (500, {}),
    "redirect": (302, {"access_token": "x"}),
    "no token": (200, {"expires_in": 5}),
    "no object": (200, ["access_token"]),
    "token of another type": (200, {"access_token": 7}),
}


@pytest.mark.shows("XA-2", "bbb-api: xAPI payload")
@pytest.mark.parametrize("answer", ANSWERS)
async def test_without_a_token_a_meeting_starts_and_the_log_says_so(
    cluster: Cluster, provider: Receiver, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    service = await cluster.start(environment={"LOG_LEVEL": "warning"})
    before = TOKEN_FAILURES.labels("tenant1")._value.get()
    provider.statuses, provider.answer = [ANSWERS[answer][0]], ANSWERS[answer][1]
    cluster.lrs("tenant1", endpoint=ENDPOINT, oidc=oidc(provider))
    await cluster.apply()
    assert (await service.create("room-1")).succeeded
    assert sent(cluster) is None
    assert "no token for the LRS of tenant tenant1" in capsys.readouterr().err
    assert TOKEN_FAILURES.labels("tenant1")._value.get() > before
    await service.create("room-2")
    assert len(provider.received) == 1, "a provider that has just failed is left alone"


@pytest.mark.shows("XA-2", "bbb-api: xAPI payload")
@pytest.mark.parametrize("policy", ["start", "fail"])
async def test_a_provider_that_hangs_costs_three_seconds_at_most(
    cluster: Cluster, provider: Receiver, policy: str
) -> None:
    service = await cluster.start()
    provider.delay_s = 10
    cluster.lrs("tenant1", endpoint=ENDPOINT, oidc=oidc(provider), on_error=policy)
    await cluster.apply()
    lag, answer = await asyncio.gather(longest_lag(), service.create("room-1"))
    assert 2.5 < answer.took_s < 6
    assert lag < 1
    if policy == "start":
        assert answer.succeeded
    else:
        assert answer.failure == NOT_CREATED
        assert await cluster.meetings() == []


async def longest_lag() -> float:
    """How long the event loop was away, in 2.5 s."""
    loop, longest = asyncio.get_running_loop(), 0.0
    until = loop.time() + 2.5
    while (before := loop.time()) < until:
        await asyncio.sleep(0.01)
        longest = max(longest, loop.time() - before)
    return longest
