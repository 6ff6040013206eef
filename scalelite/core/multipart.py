"""The parts of a multipart/form-data body (RFC 7578), which come from anybody: bounded, and never nested."""

from __future__ import annotations

from dataclasses import dataclass
from email import message_from_bytes
from typing import Final

MOST_PARTS: Final = 1000
_LONGEST_HEAD: Final = 8192


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form, or one file."""

    name: str
    is_file: bool
    content: bytes


def parts_of(body: bytes) -> list[Part]:
    """Return the parts that have names; the boundary is the body's first line. Raises ValueError for too many."""
    boundary = body.partition(b"\r\n")[0]
    if len(boundary) <= len(b"--"):
        return []
    raw = (b"\r\n" + body).split(b"\r\n" + boundary, MOST_PARTS + 2)[1:]
    if len(raw) > MOST_PARTS + 1:  # one more for what follows the last
        raise ValueError(f"more than {MOST_PARTS} parts")
    found = []
    for each in raw:
        head, _, content = each.partition(b"\r\n\r\n")
        headers = message_from_bytes(head[:_LONGEST_HEAD].lstrip())
        name, file = (headers.get_param(key, header="content-disposition") for key in ("name", "filename"))
        if isinstance(name, str):
            found.append(Part(name, file is not None, content))
    return found
