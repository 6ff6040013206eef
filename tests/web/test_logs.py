"""What the log looks like, whoever writes to it."""

from __future__ import annotations

import io
import json
import logging

import pytest

from scalelite import logs


@pytest.mark.shows("operations: logs, one line an event")
@pytest.mark.parametrize("style", ["text", "json"])
def test_an_event_is_one_line_and_the_level_counts_for_libraries_too(style: str) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    library = logging.getLogger("tests.library")
    library.setLevel("DEBUG")
    stream = io.StringIO()
    try:
        logs.configure("error", style, stream)
        library.warning("not so bad")
        library.error("connection failed: refused\n\tIs the server running?\nforged 2026-01-01 info: all is well")
    finally:
        root.handlers[:], root.level = before
        library.setLevel(logging.NOTSET)
    (line,) = stream.getvalue().splitlines()
    assert "failed: refused Is the server running? forged" in (json.loads(line)["message"] if style == "json" else line)
