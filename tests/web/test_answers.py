"""Servers' answers, whatever they send: a reply that can be passed on, or an answer of no use, and nothing else."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
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


PIECES = st.sampled_from([
    "<a>", "</a>", "<a/>", "</b>", "<b c='d'>", "<b c='1' c='2'/>", "<p:a/>", "<p:a xmlns:p='u'/>", "<a p:b='c'/>",
    "<!-- -- -->", "<![CDATA[<a>]]>", "<!DOCTYPE a>", "<?a b?>", "<?p:a?>", "<:a/>", "<?xml version='1.0'?>",
    "<messageKey>notFound</messageKey>", "<returncode>FAILED</returncode>", "</response>", "<response>", "<é>", "<1/>",
    "text", "&#10;", "]]>", "<!-- x -->", "&amp;", "&lt;", "&#0;", "&#xFFFE;", "&#xD800;", "&a;", "&", "<", ">", "\0",
    "<a xml:lang='x'/>", "<a xml:id='1'/>", "<a:b:c/>", "<a b/>", "\r\n", "<\u0e33/>", "\ufeff", "\x85", "\uffff",
])  # fmt: skip
KEYS = PIECES.map(lambda piece: f"<messageKey>{piece}</messageKey>")
BEGINNINGS = st.sampled_from(
    ["<response><returncode>SUCCESS</returncode>", "<response>\n<returncode>FAILED</returncode>"]
)


@pytest.mark.shows("bbb-api: an upstream answer without returncode", "issue D: XML")
@settings(max_examples=500, deadline=None)
@given(
    BEGINNINGS,
    st.lists(PIECES | PIECES.map(lambda piece: f"<x>{piece}</x>") | KEYS, max_size=5),
    st.sampled_from(["</response>", "</response>\n", "</response> x", ""]),
)
def test_what_is_read_without_a_tree_is_what_the_tree_says(beginning: str, pieces: list[str], end: str) -> None:
    body = "".join((beginning, *pieces, end)).encode()
    if (plain := wire._plain_reply(body)) is not None:
        root = etree.fromstring(body)
        assert root.tag == "response"
        assert plain.succeeded == (root.findtext("returncode") == "SUCCESS")
        assert plain.message_key == (root.findtext("messageKey") or "")
        assert plain.root.tag == "response"


@pytest.mark.shows("bbb-api: an upstream answer without returncode")
def test_usual_answers_need_no_tree() -> None:
    for key, body in (
        ("", b"<response>\n<returncode>SUCCESS</returncode>\n<running>true</running>\n</response>"),
        ("", "<response><returncode>SUCCESS</returncode><a>é &amp; <![CDATA[<ü>]]></a></response>".encode()),
        ("ä", "<response><returncode>SUCCESS</returncode><a>&lt;</a>\n<messageKey>ä</messageKey></response>".encode()),
    ):
        plain = wire._plain_reply(body)
        assert plain
        assert (plain.succeeded, plain.message_key) == (True, key)
        assert wire.passed_on(plain) == body


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
