"""Dial-in: what FreeSWITCH is told, who may ask, and what values from outside can do to its answer: nothing."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from scalelite.core import dialin
from tests.web.conftest import DOMAIN, FORM, Answer, Cluster

if TYPE_CHECKING:
    from tests.web.conftest import Service

PASSWORD = {"FSAPI_PASSWORD": "fs-password"}
NUMBER = {"section": "dialplan", "Caller-Destination-Number": "6135551234"}


async def ask(service: Service, password: str = "fs-password", host: str = DOMAIN, **form: str) -> Answer:
    credentials = base64.b64encode(f"fsapi:{password}".encode()).decode()
    headers = {**FORM, "Authorization": f"Basic {credentials}"}
    body = urlencode({**NUMBER, **form}).encode()
    return await service.send("/fsapi", method="POST", host=host, headers=headers, body=body)


def told(answer: Answer) -> tuple[str, str]:
    """The extension's name, or 'reject', and where the call is bridged to, or ''."""
    assert answer.status == 200
    extension = answer.root.find("section/context/extension")
    if extension is None:
        assert answer.root.find("section/result[@status='not found']") is not None
        return "reject", ""
    bridged = answer.root.xpath("//action[@application='bridge']/@data")
    return str(extension.get("name")), str(bridged[0]) if bridged else ""


async def bridge_of(cluster: Cluster, meeting_id: str) -> str:
    cursor = await cluster.connection.execute("SELECT voice_bridge FROM meeting WHERE meeting_id = %s", (meeting_id,))
    return str((await cursor.fetchone() or {})["voice_bridge"])


PROMPT, REPROMPT, BRIDGE = "match_did_and_prompt_for_pin", "reprompt_for_pin", "bridge_to_bbb_server"


@pytest.mark.shows("DI-1", "bbb-api: dial-in")
async def test_a_pin_is_asked_for_asked_again_and_bridged(cluster: Cluster) -> None:
    service = await cluster.start(1, environment=PASSWORD)
    await service.create("room-1")
    pin = await bridge_of(cluster, "room-1")
    assert told(await ask(service)) == (PROMPT, "")
    assert told(await ask(service, variable_pin="12345")) == (REPROMPT, "")
    assert told(await ask(service, variable_pin=pin)) == (BRIDGE, f"sofia/external/{pin}@127.0.0.1")
    assert told(await ask(service, variable_pin=f"{pin}3")) == (BRIDGE, f"sofia/external/{pin}3@127.0.0.1")
    assert told(await ask(service, variable_pin=f"{pin}31")) == (REPROMPT, "")
    for question in (await ask(service), await ask(service, variable_pin="1")):
        (data,) = question.root.xpath("//action[@application='play_and_get_digits']/@data")
        assert data.endswith(r" pin \d+")
    await service.about("end", "room-1")
    assert told(await ask(service, variable_pin=pin)) == (REPROMPT, "")


@pytest.mark.shows("bbb-api: dial-in")
@pytest.mark.parametrize("bad", ["1;2", "1a", "${x}", "1 2", "\u0661\u0662", "-1", "1\n2", "9" * 33])
async def test_numbers_and_pins_that_are_no_digits_are_rejected(cluster: Cluster, bad: str) -> None:
    service = await cluster.start(0, environment=PASSWORD)
    assert told(await ask(service, variable_pin=bad)) == ("reject", "")
    assert told(await ask(service, **{"Caller-Destination-Number": bad})) == ("reject", "")
    assert told(await ask(service, section="directory")) == ("reject", "")


@pytest.mark.shows("DI-3", "bbb-api: dial-in")
@pytest.mark.parametrize(
    ("environment", "password", "status"),
    [
        ({}, "", 403),
        ({"LOADBALANCER_SECRET": "lb"}, "lb", 200),
        ({"LOADBALANCER_SECRET": "lb"}, "", 401),
        ({"LOADBALANCER_SECRETS": "lb:other"}, "other", 401),
        ({"LOADBALANCER_SECRET": "lb", "FSAPI_PASSWORD": "pässword"}, "pässword", 200),
        ({"LOADBALANCER_SECRET": "lb", "FSAPI_PASSWORD": "own"}, "lb", 401),
        ({"FSAPI_PASSWORD": ""}, "", 200),
    ],
)
async def test_without_a_password_there_is_no_dial_in_unless_it_is_empty_on_purpose(
    cluster: Cluster, environment: dict[str, str], password: str, status: int
) -> None:
    service = await cluster.start(0, environment=environment)
    answer = await ask(service, password=password)
    assert answer.status == status
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


@pytest.mark.shows("DI-3")
@pytest.mark.parametrize("header", ["", "Basic", "Basic !", "Basic ZnNhcGk=", "Bearer fs-password", "Basic é"])
async def test_broken_credentials_are_refused(cluster: Cluster, header: str) -> None:
    service = await cluster.start(0, environment=PASSWORD)
    headers = {**FORM, "Authorization": header}
    assert (await service.send("/fsapi", method="POST", host=DOMAIN, headers=headers, body=b"a=b")).status == 401


@pytest.mark.shows("DI-4")
async def test_a_tenants_number_reaches_no_meeting_of_another(cluster: Cluster) -> None:
    service = await cluster.start(environment=PASSWORD)
    await service.create("room-1", tenant="tenant1")
    pin = await bridge_of(cluster, "room-1")
    assert told(await ask(service, variable_pin=pin))[0] == BRIDGE
    assert told(await ask(service, host=f"tenant1.{DOMAIN}", variable_pin=pin))[0] == BRIDGE
    foreign = await ask(service, host=f"tenant2.{DOMAIN}", variable_pin=pin)
    unknown = await ask(service, host=f"tenant2.{DOMAIN}", variable_pin="12345")
    assert foreign.body == unknown.body
    assert (await ask(service, host=f"tenant9.{DOMAIN}", variable_pin=pin)).status == 403
    assert (await ask(service, host="elsewhere.example.com", variable_pin=pin)).status == 403


@pytest.mark.shows("bbb-api: dial-in")
async def test_a_call_is_hung_up_after_the_longest_duration(cluster: Cluster) -> None:
    await cluster.start(0, environment=PASSWORD)
    for environment, expected in (
        ({}, []),
        ({"MAX_MEETING_DURATION": "90"}, ["+5400 normal_clearing"]),
        ({"MAX_MEETING_DURATION": "90", "FSAPI_MAX_DURATION": "60"}, ["+3600 normal_clearing"]),
        ({"MAX_MEETING_DURATION": "90", "FSAPI_MAX_DURATION": "0"}, []),
    ):
        service = await cluster.serve(**environment)
        answer = await ask(service)
        assert answer.root.xpath("//action[@application='sched_hangup']/@data") == expected


@pytest.mark.shows("bbb-api: dial-in")
@pytest.mark.parametrize(
    ("name", "hide", "shown"),
    [
        ("Alice", "", "Alice"),
        ("Alice", "Name", "Unavailable"),
        ("Alice", "Number", "Alice"),
        ("", "", "Unavailable"),
        ("16135551234", "", "1613555XXXX"),
        ("+1 (613) 555-1234", "", "+1 (613) 555-XXXX"),
        ("16135551234", "Number", "Unavailable"),
        ("123", "", "XXX"),
        (r"A${x}\B$ {", "", r"A\${x}\\B$ {"),
        ("<&\"'>\n\x00", "", "<&\"'>"),
    ],
)
async def test_callers_are_shown_as_they_want_and_their_numbers_in_part(name: str, hide: str, shown: str) -> None:
    form = {**NUMBER, "variable_pin": "12345", "Caller-Caller-ID-Name": name, f"Caller-Privacy-Hide-{hide}": "true"}
    call = dialin.dialled(form)
    assert call
    root = etree.fromstring(dialin.bridge(call, "room", "bbb1.example.com"))
    (data,) = root.xpath("//action[2]/@data")
    assert data.strip() == f"effective_caller_id_name={shown}"


@pytest.mark.shows("bbb-api: dial-in")
@settings(max_examples=200)
@given(st.text(), st.text(), st.text(), st.text())
def test_no_text_breaks_out_of_the_answer(number: str, pin: str, caller: str, meeting_id: str) -> None:
    form = {**NUMBER, "Caller-Destination-Number": number or "1", "variable_pin": pin, "Caller-Caller-ID-Name": caller}
    call = dialin.dialled(form) or dialin.dialled({**NUMBER, "variable_pin": "12345", "Caller-Caller-ID-Name": caller})
    assert call
    for body in (dialin.prompt(call, dialin.PinLength(5, 9), 60), dialin.bridge(call, meeting_id, "bbb1")):
        root = etree.fromstring(body)
        assert [child.tag for child in root.iter()][:5] == ["document", "section", "context", "extension", "condition"]
        for data in root.xpath("//action[@application='set']/@data"):
            assert "${" not in data.replace("\\\\", "").replace("\\${", "")
