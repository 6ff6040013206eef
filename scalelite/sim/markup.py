"""The XML of BigBlueButton's answers as text: elements one a line, no declaration; knows nothing of meetings."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

# What XML 1.0 cannot hold at all, not even escaped (XML 1.0, 2.2 Char).
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SPECIAL = re.compile("[&<>\"']|" + FORBIDDEN.pattern)
QUOTES = {'"': "&quot;", "'": "&apos;"}


def text(value: str) -> str:
    """The value as XML text: escaped as FreeMarker does, without the characters that XML forbids."""
    return escape(FORBIDDEN.sub("", value), QUOTES) if SPECIAL.search(value) else value


def flag(value: bool) -> str:
    """`true` or `false`."""
    return "true" if value else "false"


def element(name: str, value: str) -> str:
    """One element with text; the name must be a valid XML name."""
    return f"<{name}>{text(value)}</{name}>"


def elements(values: dict[str, str]) -> str:
    """One element a line, in the order of the dict."""
    return "\n".join(element(name, value) for name, value in values.items())


def success(*parts: str) -> str:
    """A whole answer with returncode SUCCESS; each part is one or more lines, empty parts are left out."""
    return "\n".join(("<response>", "<returncode>SUCCESS</returncode>", *filter(None, parts), "</response>"))


def failed(*parts: str) -> str:
    """A whole answer with returncode FAILED."""
    return "\n".join(("<response>", "<returncode>FAILED</returncode>", *parts, "</response>"))
