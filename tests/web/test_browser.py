"""Recordings in a real browser: it keeps the cookie of a link, and the page finds what belongs to it."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.web.test_playback import MINE, theatre

if TYPE_CHECKING:
    from pathlib import Path

    from tests.web.conftest import Cluster

PAGE: Final = """<!DOCTYPE html>
<title>A recording</title>
<link rel="stylesheet" href="css/video.css">
<p id="film"></p>
<script>
fetch("video-0.m4v").then(async (answer) => { film.textContent = `${answer.status} ${await answer.text()}`; });
</script>
"""
pytestmark = pytest.mark.needs("chromium")


async def browse(url: str, profile: Path) -> str:
    """Open a page in a browser that was never used, and return what it shows when all is loaded."""
    browser = await asyncio.create_subprocess_exec(
        "chromium",
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        "--virtual-time-budget=5000",  # ms, that do not pass while something is being fetched
        f"--user-data-dir={profile}",
        *("--dump-dom", url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        shown, _ = await asyncio.wait_for(browser.communicate(), 60)
    finally:
        if browser.returncode is None:
            browser.kill()
    return shown.decode()


@pytest.mark.shows("recordings: playback", "RE-7")
async def test_a_browser_plays_a_protected_recording_and_another_gets_nothing(cluster: Cluster, tmp_path: Path) -> None:
    it = await theatre(cluster, tmp_path, {"RECORDING_SERVE_FILES": "true"})
    for what in (it.closed, it.open):
        (tmp_path / "published" / "video" / what.record_id / "index.html").write_text(PAGE)
    here = f"http://{MINE}:{it.service.port}"
    link = (await it.links(it.closed))["video"]
    assert '<p id="film">200 video video-0.m4v</p>' in await browse(here + link, tmp_path / "first")
    for closed in (link, f"/video/{it.closed.record_id}/"):
        assert "<h1>No such recording</h1>" in await browse(here + closed, tmp_path / f"second{len(closed)}")
    assert re.search("film.*200 video", await browse(f"{here}/video/{it.open.record_id}/", tmp_path / "third"))
