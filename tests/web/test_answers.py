"""Servers' answers, whatever they send: a reply that can be passed on, or an answer of no use, and nothing else."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from scalelite.core import wire
from scalelite.errors import UselessAnswer

NOT_XML = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("<>&\"']\0\ufffe\uffff"), max_size=20)
FIELDS = st.lists(
    st.tuples(st.sampled_from(["returncode", "messageKey", "running", "metadata", "x"]), TEXTS | st.just("SUCCESS")),
    max_size=5,
)


def document(fields: list[tuple[str, str]]) -> bytes:
    """An answer of a server, which escapes what is markup and nothing else."""
    texts = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in fields)
    return f"<response>{texts}</response>".encode()


@pytest.mark.shows("bbb-api: an upstream answer without returncode", "issue D: XML")
@given(st.binary(max_size=200) | FIELDS.map(document) | FIELDS.map(lambda fields: document(fields)[:-5]))
def test_any_bytes_are_a_reply_or_useless(body: bytes) -> None:
    try:
        reply = wire.parse_reply(body)
    except UselessAnswer:
        return
    assert (reply.body, reply.root.tag) == (NOT_XML.sub("\ufffd".encode(), body), "response")
    assert reply.succeeded == (reply.root.findtext("returncode") == "SUCCESS")
    assert etree.fromstring(wire.passed_on(reply)).tag == "response"


@pytest.mark.shows("bbb-api: an upstream answer without returncode")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>502</body></html>",
        b'{"returncode": "SUCCESS"}',
        b"<response><returncode>SUCCESS</returncode>",
        b"<response><returncode>MAYBE</returncode></response>",
        b"<other><returncode>SUCCESS</returncode></other>",
        b"<!DOCTYPE r><response><returncode>SUCCESS</returncode></response>",
        '<!DOCTYPE r [<!ENTITY a "b">]><response><returncode>SUCCESS</returncode></response>'.encode("utf-16"),
        b"<response><returncode>SUCCESS</returncode></response><response/>",
        b"<response><returncode>SUCCESS</returncode></response>" + b" " * wire.MAX_ANSWER_BYTES,
        b"<response>" * 300 + b"<returncode>SUCCESS</returncode>" + b"</response>" * 300,
    ],
)
def test_answers_of_no_use_are_told_apart(body: bytes) -> None:
    with pytest.raises(UselessAnswer):
        wire.parse_reply(body)


@pytest.mark.shows("bbb-api: create 6", "XA-5")
def test_only_what_is_ours_is_taken_out_of_an_answer() -> None:
    def answer(*ours: str) -> bytes:
        kept = "<tenant-id>t</tenant-id><a>https://x/bigbluebutton/api/create</a>"
        inner = f"<metadata>{kept}{''.join(ours)}</metadata><note>secret-lrs-payload</note>"
        return f"<response><returncode>SUCCESS</returncode>{inner}</response>".encode()

    shown = wire.passed_on(
        wire.parse_reply(
            answer(
                "<secret-lrs-payload>U2FsdA==</secret-lrs-payload>",
                "<endcallbackurl>https://t.x/bigbluebutton/api/end_callback/abc</endcallbackurl>",
                "<analytics-callback-url>https://t.x/bigbluebutton/api/analytics_callback</analytics-callback-url>",
            )
        )
    )
    assert shown == answer()
