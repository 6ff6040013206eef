"""Paths to the sources of an inventory: a file, a folder with its group and host variables, or standard input."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, BinaryIO, Final, Literal

from scalelite.errors import VaultError
from scalelite.inventory.source import Mark, Origin, Source
from scalelite.inventory.vault import HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scalelite.inventory.problems import Report
    from scalelite.inventory.vault import Vaults

InventoryPath = FilePath | Literal["-"]

MAX_BYTES: Final = 64 * 1024 * 1024
# Folders of an inventory that hold variables: of which kind of thing, by file name.
VARIABLES: Final = ("group_vars", "host_vars")
_SUFFIXES: Final = frozenset({".yml", ".yaml"})
# Variables may be in files without a suffix, too, as in Ansible; JSON is YAML.
_VARIABLE_SUFFIXES: Final = frozenset({".yml", ".yaml", ".json"})
# Folders beside the sections that hold something else.
_OTHERS: Final = frozenset({"policies"})
# What YAML does not allow in a text, and lone halves of UTF-16.
_NOT_TEXT: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufffe\uffff\ud800-\udfff]")
_OTHER_ENCODINGS: Final = {
    b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip


class Reader:
    """Reads the sources of inventories; what cannot be read is reported and left out."""

    def __init__(self, stdin: BinaryIO | None, vaults: Vaults, report: Report) -> None:
        self._stdin = stdin
        self._vaults = vaults
        self._report = report
        self._bytes = 0

    def read(self, path: InventoryPath) -> list[Source]:
        """Return the sources of one path: of a folder those with sections, then those of variables."""
        if path == "-":
            data = self._stdin.read(MAX_BYTES + 1) if self._stdin is not None else b""
            return _usable([self._source("-", data, Origin())])
        if not path.is_dir():
            # Also a pipe that the shell made: -i <(command).
            return _usable([self._file(path, Origin((), path.parent), os.O_RDONLY)])
        files = [(name, Origin((), path)) for name in self._sections(path)]
        if not files:
            message = "the folder holds no *.yml or *.yaml file. Write one, or correct the path."
            self._report("SL101", (), message, _nowhere(path))
        for kind in VARIABLES:
            files += [(file, Origin((kind, name), path)) for name, file in self._variables(path / kind)]
        return _usable([self._file(name, origin) for name, origin in files])

    def _sections(self, folder: FilePath) -> Iterator[FilePath]:
        """Yield the YAML files of a folder and the folders in it, sorted; links are followed, but not in circles."""
        seen: set[str] = set()
        for where, folders, files in os.walk(folder, followlinks=True):
            if where != str(folder):
                self._misplaced(where, folders)
            self._like_files(where, folders)
            real = os.path.realpath(where)
            skip = {*VARIABLES, *_OTHERS}
            folders[:] = [] if real in seen else sorted(n for n in folders if n not in skip and not n.startswith("."))
            if real not in seen:
                seen.add(real)
                yield from (
                    FilePath(where, name)
                    for name in sorted(files)
                    if FilePath(name).suffix in _SUFFIXES and not name.startswith(".")
                )

    def _misplaced(self, where: str, folders: Sequence[str]) -> None:
        for kind in VARIABLES:
            if kind in folders:
                message = f"{kind} has no effect here. Move it to the top folder of the inventory."
                self._report("SL140", (), message, _nowhere(FilePath(where, kind)))

    def _like_files(self, where: str, folders: Sequence[str]) -> None:
        for name in folders:
            if FilePath(name).suffix in _SUFFIXES:
                message = "is a folder, but has the name of a file. Rename it, or put the file there that was meant."
                self._report("SL101", (), message, _nowhere(FilePath(where, name)))

    def _variables(self, folder: FilePath) -> Iterator[tuple[str, FilePath]]:
        """Yield the names of groups or servers, each with a file of its variables: NAME.yml, NAME, or NAME/*.yml."""
        first: dict[str, FilePath] = {}
        for path in _entries(folder):
            is_folder = path.is_dir()
            name = path.stem if path.suffix in _VARIABLE_SUFFIXES and not is_folder else path.name
            if first.setdefault(name, path) != path:
                message = f"{first[name].name} is there, too, with the variables of the same name. Keep one of the two."
                self._report("SL121", (), message, _nowhere(path))
            elif is_folder:
                yield from ((name, file) for file in _files_below(path, set()))
            else:
                yield name, path

    def _file(self, path: FilePath, origin: Origin, flags: int = os.O_RDONLY | os.O_NONBLOCK) -> Source | None:
        """Read a file; without other `flags`, of a pipe, which no folder should hold, no writer is waited for."""
        try:
            with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
                if flags & os.O_NONBLOCK and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    self._report("SL101", (), "is no regular file. Give a file, or remove it.", _nowhere(path))
                    return None
                # Bytes are not read only to be refused; what has no size (a pipe) is read up to the bound.
                data = file.read(MAX_BYTES + 1) if os.fstat(file.fileno()).st_size <= MAX_BYTES else None
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            self._report("SL101", (), f"cannot be read: {reason}. Correct the path or its permissions.", _nowhere(path))
            return None
        return self._source(str(path), data, origin)

    def _source(self, path: str, data: bytes | None, origin: Origin) -> Source | None:
        if data is None or len(data) > MAX_BYTES:
            self._report("SL103", (), "is larger than 64 MiB. Split the inventory into files.", _nowhere(path))
            return None
        self._bytes += len(data)
        if self._bytes > MAX_BYTES:
            message = "makes the inventory larger than 64 MiB, together with the files before. Make it smaller."
            self._report("SL103", (), message, _nowhere(path))
            return None
        clear, vaulted = data, data.startswith(HEADER.encode())
        if vaulted:
            try:
                clear = self._vaults.open(data.decode("ascii", "replace"))
            except VaultError as error:
                message = f"the vaulted file {error.sentence}"
                self._report("SL141", (), message, _nowhere(path))
                return None
        text = self._text(path, clear, vaulted=vaulted)
        return None if text is None else Source(path, data, text, origin=origin, vaulted=vaulted)

    def _text(self, path: str, data: bytes, *, vaulted: bool) -> str | None:
        for mark, name in _OTHER_ENCODINGS.items():
            if data.startswith(mark):
                self._report("SL104", (), f"is encoded in {name}. Save it as UTF-8.", _nowhere(path))
                return None
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = data[: error.start].decode("utf-8-sig") + "\ufffd"
            source = Source(path, data, before, vaulted=vaulted)
            self._at(source, len(before) - 1, "is not UTF-8 from here on. Save it as UTF-8.")
            return None
        if match := _NOT_TEXT.search(text):
            what = "a NUL character" if match[0] == "\0" else f"the control character U+{ord(match[0]):04X}"
            message = f'holds {what}. Remove it, or write it in double quotes as "\\u{ord(match[0]):04x}".'
            self._at(Source(path, data, text, vaulted=vaulted), match.start(), message)
            return None
        return text

    def _at(self, source: Source, offset: int, message: str) -> None:
        self._report("SL104", (), message, Mark(source, offset, offset, offset))


def _usable(sources: Sequence[Source | None]) -> list[Source]:
    return [source for source in sources if source is not None]


def _nowhere(path: FilePath | str) -> Mark:
    return Mark(Source(str(path), b"", ""), 0, 0, 0)


def _entries(folder: FilePath) -> list[FilePath]:
    """Return what is in a folder of variables; not what editors and people leave there."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.name[0] != "." and path.name[-1] != "~" and path.stem != "README"
    )


def _files_below(folder: FilePath, seen: set[str]) -> Iterator[FilePath]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for path in _entries(folder):
        if path.is_dir():
            yield from _files_below(path, seen)
        elif not path.suffix or path.suffix in _VARIABLE_SUFFIXES:
            yield path
