"""Paths to the sources of an inventory: a file, a folder, or standard input."""

from __future__ import annotations

import os
import re
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, BinaryIO, Final, Literal

from scalelite.inventory.source import Mark, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scalelite.inventory.problems import Report

InventoryPath = FilePath | Literal["-"]

MAX_BYTES: Final = 64 * 1024 * 1024
_SUFFIXES: Final = frozenset({".yml", ".yaml"})
_VARIABLES: Final = frozenset({"group_vars", "host_vars"})
# Folders beside the sections that hold something else.
_OTHERS: Final = frozenset({"policies"})
# What YAML does not allow in a text, and lone halves of UTF-16.
_NOT_TEXT: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufffe\uffff\ud800-\udfff]")
_OTHER_ENCODINGS: Final = {
    b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip


def read(path: InventoryPath, stdin: BinaryIO | None, report: Report) -> list[Source]:
    """Return the sources of one path; what cannot be read is reported and left out."""
    if path == "-":
        data = stdin.read(MAX_BYTES + 1) if stdin is not None else b""
        return _usable([_source("-", data, report)])
    if not path.is_dir():
        return _usable([_file(path, report)])
    names = list(_below(path, report))
    if not names:
        message = "the folder holds no *.yml or *.yaml file. Write one, or correct the path."
        report("SL101", (), message, _nowhere(path))
    return _usable([_file(name, report) for name in names])


def _usable(sources: Sequence[Source | None]) -> list[Source]:
    return [source for source in sources if source is not None]


def _nowhere(path: FilePath | str) -> Mark:
    return Mark(Source(str(path), b"", ""), 0, 0, 0)


def _below(folder: FilePath, report: Report) -> Iterator[FilePath]:
    """Yield the YAML files of a folder and the folders in it, sorted; links are followed, but not in circles."""
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        for name in _VARIABLES.intersection(folders):
            message = f"{name} is not supported yet. Write the values at the servers."
            report("SL191", (), message, _nowhere(FilePath(where, name)))
        real = os.path.realpath(where)
        skip = _VARIABLES | _OTHERS
        folders[:] = [] if real in seen else sorted(n for n in folders if n not in skip and not n.startswith("."))
        if real not in seen:
            seen.add(real)
            yield from (
                FilePath(where, name)
                for name in sorted(files)
                if FilePath(name).suffix in _SUFFIXES and not name.startswith(".")
            )


def _file(path: FilePath, report: Report) -> Source | None:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        report("SL101", (), f"cannot be read: {reason}. Correct the path or its permissions.", _nowhere(path))
        return None
    return _source(str(path), data, report)


def _source(path: str, data: bytes, report: Report) -> Source | None:
    if len(data) > MAX_BYTES:
        report("SL103", (), "is larger than 64 MiB. Split the inventory into files.", _nowhere(path))
        return None
    for mark, name in _OTHER_ENCODINGS.items():
        if data.startswith(mark):
            report("SL104", (), f"is encoded in {name}. Save it as UTF-8.", _nowhere(path))
            return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        source = Source(path, data, data[: error.start].decode("utf-8-sig") + "�")
        offset = len(source.text) - 1
        report("SL104", (), "is not UTF-8 from here on. Save it as UTF-8.", Mark(source, offset, offset, offset))
        return None
    source = Source(path, data, text)
    if match := _NOT_TEXT.search(text):
        what = "a NUL character" if match[0] == "\0" else f"the control character U+{ord(match[0]):04X}"
        at = Mark(source, match.start(), match.start(), match.start())
        report("SL104", (), f'holds {what}. Remove it, or write it in double quotes as "\\u{ord(match[0]):04x}".', at)
        return None
    if text.startswith("$ANSIBLE_VAULT;"):
        report("SL193", (), "vaulted files are not supported yet. Use lookup('env', 'NAME').", Mark(source, 0, 0, 0))
        return None
    return source
