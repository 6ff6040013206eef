"""Subtitles of recordings, over HTTP: listed from the files, and put among them."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from scalelite.core import tracks
from scalelite.flows import importer
from scalelite.sim import write_archive
from tests.web.conftest import DOMAIN
from tests.web.test_playback import theatre

if TYPE_CHECKING:
    from pathlib import Path

    from tests.web.conftest import Cluster
    from tests.web.test_playback import Theatre

SRT = b"1\r\n00:00:01,000 --> 00:00:02,500\r\nGr\xc3\xbc\xc3\x9fe\r\n"


async def get(it: Theatre, **params: str) -> dict[str, Any]:
    answer = await it.service.call("getRecordingTextTracks", params)
    assert answer.headers["Content-Type"] == "application/json"
    found: dict[str, Any] = json.loads(answer.body)["response"]
    return found


async def put(it: Theatre, content: bytes, **params: str) -> str:
    """Upload as browsers do; returns the key of the answer."""
    body = (
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.srt"\r\n\r\n' + content + b"\r\n--xyz--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    sent: Any = io.BytesIO(body)
    answer = await it.service.call("putRecordingTextTrack", params, method="POST", headers=headers, body=sent)
    return str(json.loads(answer.body)["response"]["messageKey"])


@pytest.mark.shows("bbb-api: getRecordingTextTracks, putRecordingTextTrack", "issue F: text tracks")
async def test_subtitles_are_put_listed_and_served(cluster: Cluster, tmp_path: Path) -> None:
    it = await theatre(cluster, tmp_path, {"RECORDING_SERVE_FILES": "true"})
    ours = it.open.record_id
    assert (await get(it, recordID=ours))["messageKey"] == "noCaptionsFound"
    track = {"recordID": ours, "kind": "subtitles", "lang": "de-DE", "label": "Deutsch"}
    assert await put(it, SRT, **track) == "upload_text_track_success"
    assert await put(it, b"WEBVTT\n\n00:01.000 --> 00:02.000\nHi", **{**track, "lang": "en", "label": "English"})
    assert await put(it, SRT, **{**track, "label": "German"}) == "upload_text_track_success"
    found = await get(it, recordID=ours)
    assert [(each["lang"], each["label"], each["kind"], each["source"]) for each in found["tracks"]] == [
        ("en", "English", "subtitles", "upload"),
        ("de-DE", "German", "subtitles", "upload"),
    ]
    href = found["tracks"][1]["href"]
    assert href == f"https://tenant1.{DOMAIN}/presentation/{ours}/caption_de-DE.vtt"
    served = await it.get(href.removeprefix(f"https://tenant1.{DOMAIN}"))
    assert served.headers["Content-Type"].startswith("text/vtt")
    assert served.body.decode() == "WEBVTT\n\n1\n00:00:01.000 --> 00:00:02.500\nGrüße\n"


@pytest.mark.shows("issue F: text tracks")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_subtitles_are_read_in_these_encodings(encoding: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + SRT.decode().encode(encoding) + b"\r\n--x--"
    assert tracks.uploaded(body) == "WEBVTT\n\n1\n00:00:01.000 --> 00:00:02.500\nGrüße\n"


@pytest.mark.shows("issue F: text tracks", "recordings: archives are hostile")
def test_what_is_no_multipart_upload_has_no_file() -> None:
    nested = b"".join(
        b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (level, level + 1) for level in range(50_000)
    )
    for body in (b"", b"x", b"--x", b"--x\r\n", b'--"\r\n\r\n--"--', b"--\xff\r\n\r\n", nested):
        assert tracks.uploaded(body) == ""


@pytest.mark.shows("issue F: text tracks", "recordings: archives are hostile")
def test_a_hostile_list_of_subtitles_has_none() -> None:
    one = {"locale": "de", "localeName": "Deutsch"}
    for content in (
        b"",
        b"\xff",
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
        b'"x"',
        b"[1, null, [], {}]",
        b'[{"locale": "../x"}]',
    ):
        assert tracks.read_tracks(content) == []
    odd = [{"locale": "fr", "localeName": ["x"], "kind": 1}, {"locale": {}}, one]
    assert tracks.read_tracks(json.dumps(odd).encode()) == [tracks.Track("fr", "fr"), tracks.Track("de", "Deutsch")]


@pytest.mark.shows("issue F: text tracks", "RE-2")
async def test_subtitles_that_people_put_survive_the_same_archive(cluster: Cluster, tmp_path: Path) -> None:
    it = await theatre(cluster, tmp_path, {"RECORDING_SERVE_FILES": "true"})
    ours = it.open.record_id
    track = {"recordID": ours, "kind": "subtitles", "label": "Mine"}
    assert await put(it, SRT, lang="de", **track) == "upload_text_track_success"
    folder = f"presentation/{ours}"
    theirs = b'[{"locale": "de", "localeName": "Theirs"}, {"locale": "fr", "localeName": "Fran\\u00e7ais"}]'
    replaced = {f"{folder}/captions.json": theirs, f"{folder}/caption_de.vtt": b"WEBVTT theirs"}
    write_archive(it.open, tmp_path / "spool", ("presentation",), replaced=replaced)
    (outcome,) = await importer.import_waiting(it.service.app.ctx.proxy.services, settled_s=-60)
    assert outcome.imported
    found = (await get(it, recordID=ours))["tracks"]
    assert [(each["lang"], each["label"], each["source"]) for each in found] == [
        ("fr", "Français", "live"),
        ("de", "Mine", "upload"),
    ]
    served = await it.get(f"/{folder}/caption_de.vtt")
    assert "Grüße" in served.body.decode()


@pytest.mark.shows("issue F: text tracks")
async def test_subtitles_that_are_put_at_the_same_moment_are_all_kept(cluster: Cluster, tmp_path: Path) -> None:
    it = await theatre(cluster, tmp_path, {})
    track = {"recordID": it.open.record_id, "kind": "subtitles", "label": "Mine"}
    languages = ["de", "en", "fr", "it", "nl", "pl"]
    keys = await asyncio.gather(*(put(it, SRT, lang=lang, **track) for lang in languages))
    assert set(keys) == {"upload_text_track_success"}
    found = (await get(it, recordID=it.open.record_id))["tracks"]
    assert sorted(each["lang"] for each in found) == languages


@pytest.mark.shows("bbb-api: getRecordingTextTracks, putRecordingTextTrack", "issue F: text tracks", "MT-2")
async def test_what_cannot_be_put_or_listed_is_told(cluster: Cluster, tmp_path: Path) -> None:
    it = await theatre(cluster, tmp_path, {})
    good = {"recordID": it.open.record_id, "kind": "subtitles", "lang": "de", "label": "Deutsch"}
    for changes, content, key in (
        ({"kind": "songs"}, SRT, "invalidKind"),
        ({"lang": "../../x"}, SRT, "invalidLang"),
        ({"label": ""}, SRT, "paramError"),
        ({"recordID": it.foreign.record_id}, SRT, "noRecordings"),
        ({"recordID": it.open.record_id[:20]}, SRT, "noRecordings"),
        ({"recordID": "../x"}, SRT, "noRecordings"),
        ({}, b"", "empty_uploaded_text_track"),
        ({}, b"no subtitles", "empty_uploaded_text_track"),
        ({}, b"\xff\xfe", "empty_uploaded_text_track"),
        ({}, SRT.decode().encode("latin-1"), "empty_uploaded_text_track"),
        ({}, b"WEBVTTnot", "empty_uploaded_text_track"),
        ({}, b"WEBVTT\n" + b"x\n" * (6 << 20), "empty_uploaded_text_track"),
    ):
        assert await put(it, content, **{**good, **changes}) == key, changes
    for record_id in (it.foreign.record_id, "unknown", "%"):
        assert (await get(it, recordID=record_id))["messageKey"] == "noRecordings"
    unsigned = await it.service.call("getRecordingTextTracks", {"recordID": "x"}, secret="wrong")
    assert unsigned.key == "checksumError"
