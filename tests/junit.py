"""JUnit reports, held to junit-10.xsd: the schema of Jenkins' xUnit plugin, as pytest's own tests have it (MIT)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lxml import etree

_SCHEMA = etree.XMLSchema(file=str(Path(__file__).with_name("junit-10.xsd")))


def junit(text: str) -> Any:
    """Return the root of a report that the schema allows."""
    root = etree.fromstring(text.encode())
    _SCHEMA.assertValid(root)
    return root
