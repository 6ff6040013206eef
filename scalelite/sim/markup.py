"""The XML of BigBlueButton's answers as text: elements one a line, no declaration; knows nothing of meetings."""

from __future__ import annotations

from xml.sax.saxutils import escape

QUOTES = {'"': "&quot;", "'": "&apos;"}


def text(value: str) -> str:
    """The value as XML text: escaped as FreeMarker does, which lets pass what XML cannot hold."""
    return escape(value, QUOTES)


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
