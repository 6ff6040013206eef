"""The page of each code of a problem: what it is, why it counts, an example wrong and right."""

from __future__ import annotations

import re
from importlib import resources

from scalelite.inventory.problems import CODES

_SECTION = re.compile(r"^## (SL\d+)\n\n(.*?)(?=\n## |\Z)", re.MULTILINE | re.DOTALL)


def pages() -> dict[str, str]:
    """Return the explanations of all codes, as Markdown without a heading."""
    text = (resources.files("scalelite.inventory") / "explanations.md").read_text(encoding="utf-8")
    return {code: body.rstrip() for code, body in _SECTION.findall(text)}


def page(code: str) -> str:
    """Return what is to be said of a code, as Markdown."""
    return f"{code}: {CODES[code]}\n\n{pages()[code]}"
