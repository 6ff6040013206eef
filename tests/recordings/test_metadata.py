"""metadata.xml comes from outside: what it says is taken, or it is refused, and it costs little to find out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest

from scalelite.core.recording import parse_metadata
from scalelite.errors import RecordingInvalid
from scalelite.sim.recording import metadata_xml
from tests.recordings.conftest import recorded

if TYPE_CHECKING:
    from scalelite.core.recording import Recording

WHAT: Final = recorded()
XML: Final = metadata_xml(WHAT, "video").decode()
HEAD: Final = '<?xml version="1.0"?>'
START: Final = f"<start_time>{WHAT.start_ms}</start_time>"
LINK: Final = f"https://bbb1.example.com/playback/video/{WHAT.record_id}/"


def parsed(old: str, new: str) -> Recording:
    """What is read of a metadata.xml in which something else stands."""
    assert old in XML
    return parse_metadata(XML.replace(old, new).encode(), WHAT.record_id, "video", ("video", "notes"))


HOSTILE: Final = {
    "entities": (HEAD, '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'),
    "a file as an entity": (HEAD, '<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]>'),
    "a DTD from elsewhere": (HEAD, '<!DOCTYPE r SYSTEM "http://127.0.0.1:9/x.dtd">'),
    "deep": ("</meta>", "<x>" * 10_000 + "</x>" * 10_000 + "</meta>"),
    "not closed": ("</recording>", "<x>" * 100_000),
    "huge": ("</recording>", " " * (4 << 20) + "</recording>"),
    "very many metadata": ("</meta>", "".join(f"<k{number}/>" for number in range(100_000)) + "</meta>"),
    "very many pictures": (
        "</playback>",
        f"<extensions><preview><images>{'<image>/a</image>' * 100_000}</images></preview></extensions></playback>",
    ),
    "control character": ("Math", "&#1;"),
    "noncharacter": ("Math", "&#xFFFE;"),
    "surrogate": ("Math", "&#xD800;"),
    "unknown encoding": (HEAD, '<?xml version="1.0" encoding="x-unknown"?>'),
    "another's id": (f"<id>{WHAT.record_id}", "<id>another"),
    "another format": ("<format>video", "<format>notes"),
    "no format": ("<format>video</format>", ""),
    "unknown state": ("<state>available", "<state>deleted"),
    "another document": ("<recording>", '<recording xmlns="urn:x">'),
    "impossible time": (START, f"<start_time>{'9' * 18}</start_time>"),
    "link without a path": (LINK, "https://bbb1.example.com"),
    "link with a space": (LINK, "/playback/a b"),
    "link with a backslash": (LINK, "/playback/..\\a"),
    "link that is none": (LINK, "http://[x/"),
    "script as a link": (LINK, "javascript:alert(1)"),
}


@pytest.mark.shows("RE-4", "recordings: archives are hostile", "issue F: hostile archives")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_metadata_are_refused_at_once(name: str) -> None:
    began = time.process_time()
    with pytest.raises(RecordingInvalid) as refused:
        parsed(*HOSTILE[name])
    assert time.process_time() - began < 5
    assert "root:" not in refused.value.message


@pytest.mark.shows("recordings: import")
def test_what_is_odd_but_harmless_is_taken() -> None:
    assert parsed("Math", "a&#9;&#10;&lt;&#x10FFFF;b").metadata["bbb-context"] == "a\t\n<\U0010ffffb"
    assert parsed("</meta>", "<bbb-context>B</bbb-context></meta>").metadata["bbb-context"] == "B"
    assert parsed("</meta>", '<x xmlns="urn:y">z</x><!-- w --></meta>').metadata == parsed("Math", "Math").metadata
    included = '<x xmlns:i="http://www.w3.org/2001/XInclude"><i:include href="file:///etc/passwd" parse="text"/></x>'
    assert parsed("</meta>", f"{included}</meta>").metadata["x"] == ""
    assert parsed(START, "<start_time>-5</start_time>").start_ms == 0
    assert parsed("<participants>1</participants>", "").participants is None
    assert parsed(LINK, f"//evil.example.com/video/{WHAT.record_id}/").formats[0].url == f"/video/{WHAT.record_id}/"


@pytest.mark.shows("recordings: import")
@pytest.mark.parametrize(
    ("state", "published", "wanted"),
    [
        ("available", "true", (True, "published")),
        ("published", "", (True, "published")),
        ("", "", (True, "published")),
        ("unpublished", "", (False, "unpublished")),
        ("unpublished", "false", (False, "unpublished")),
        ("published", "false", (False, "unpublished")),
        ("processed", "false", (False, "processed")),
        ("processing", "true", (True, "processing")),
    ],
)
def test_formats_that_say_nothing_else_are_published(state: str, published: str, wanted: tuple[bool, str]) -> None:
    old = "<state>available</state>\n  <published>true</published>"
    found = parsed(old, f"<state>{state}</state><published>{published}</published>")
    assert (found.published, found.state) == wanted
