"""Files of recordings in local folders: FOLDER/FORMAT/RECORD_ID/…, one folder for published ones and one for others.

The rows decide what is shown; this only keeps files. Ids and formats were checked before they come here.
"""

from __future__ import annotations

import asyncio
import errno
import os
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from scalelite.core.recording import RECORD_ID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from pathlib import Path

    from scalelite.edge.disk import Disk

CHUNK: Final = 1 << 20
# Ends the names of copies from another file system that are not in their place yet; no record id ends so.
_COPIED: Final = "~"


class Place(NamedTuple):
    """Where a format of a recording is; published None: the storage does not tell by the place."""

    format: str
    record_id: str
    published: bool | None
    generation: str = ""


class Storage(Protocol):
    """Where the files of recordings are; names are those of `folder_of`, and the path in it."""

    async def stage(self, record_id: str, format_name: str, folder: Path) -> str:
        """Do the slow part of bringing a format's folder into the storage, before any row is locked.

        Returns its generation, whose files nobody sees until the row says so; '' where `place` exchanges them.
        """
        ...

    async def discard(self, record_id: str, format_name: str, generation: str) -> None:
        """Remove the files of a generation that no row counts."""
        ...

    async def place(self, record_id: str, format_name: str, folder: Path, *, published: bool) -> None:
        """Put a staged folder into its place, instead of what was there."""
        ...

    async def move(self, record_id: str, formats: Sequence[str], *, published: bool) -> bool:
        """Move the formats to where published or unpublished ones are; False if no file of them is there."""
        ...

    async def remove(self, record_id: str) -> None:
        """Remove all files of a recording, wherever they are."""
        ...

    async def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, or None if there is none."""
        ...

    def read(self, name: str, start: int, length: int) -> AsyncIterator[bytes]:
        """Yield a part of a file."""
        ...

    async def write(self, name: str, content: bytes) -> None:
        """Write a file of a recording that is there, instead of what was in it."""
        ...

    async def places(self) -> list[Place]:
        """Return what formats of what recordings are there."""
        ...

    async def tidy(self, before_s: float) -> None:
        """Remove what a crash left half copied before that time (seconds since 1970)."""
        ...


@dataclass(frozen=True, slots=True)
class Folders:
    """The storage in two local folders, which may be on different file systems."""

    published: Path
    unpublished: Path
    disk: Disk

    async def stage(self, record_id: str, format_name: str, folder: Path) -> str:  # noqa: ARG002
        """Do nothing: a rename is all that it takes."""
        return ""

    async def discard(self, record_id: str, format_name: str, generation: str) -> None:
        """Do nothing: there is one generation."""

    async def place(self, record_id: str, format_name: str, folder: Path, *, published: bool) -> None:
        """Rename the folder into its place; what was there is exchanged for it at once, and removed after."""
        await asyncio.to_thread(self._place, record_id, format_name, folder, published=published)

    def _place(self, record_id: str, format_name: str, folder: Path, *, published: bool) -> None:
        self._bring(folder, self._root(published=published) / format_name / record_id)
        self.disk.remove_tree(self._root(published=not published) / format_name / record_id)

    def _bring(self, source: Path, target: Path) -> None:
        self.disk.make_folder(target.parent)
        if source.stat().st_dev != target.parent.stat().st_dev:
            copied = target.with_name(f"{target.name}.{uuid.uuid4().hex}{_COPIED}")
            copy_tree(source, copied, self.disk)
            self._bring(copied, target)
        elif target.exists():
            self.disk.exchange(source, target)
        else:
            self.disk.rename(source, target)
        self.disk.remove_tree(source)

    async def move(self, record_id: str, formats: Sequence[str], *, published: bool) -> bool:
        """Rename each format's folder that is not yet where it belongs."""
        return await asyncio.to_thread(self._move, record_id, formats, published=published)

    def _move(self, record_id: str, formats: Sequence[str], *, published: bool) -> bool:
        there = False
        for format_name in formats:
            source = self._root(published=not published) / format_name / record_id
            target = self._root(published=published) / format_name / record_id
            if source.is_dir():
                self._bring(source, target)
            there |= target.is_dir()
        return there

    async def remove(self, record_id: str) -> None:
        """Remove the recording's folders of every format, known or not."""
        await asyncio.to_thread(self._remove, record_id)

    def _remove(self, record_id: str) -> None:
        for root in self._roots:
            for parent in _subfolders(root):
                self.disk.remove_tree(parent / record_id)

    async def size(self, name: str) -> int | None:
        """Return the size of a regular file."""
        path = await asyncio.to_thread(self._find, name)
        return path.stat().st_size if path else None

    async def read(self, name: str, start: int, length: int) -> AsyncIterator[bytes]:
        """Yield a part of a file; it goes on to the end of that file even if it is moved or replaced meanwhile."""
        path = await asyncio.to_thread(self._find, name)
        if path is None:
            return
        with path.open("rb") as file:
            file.seek(start)
            while length > 0 and (chunk := await asyncio.to_thread(file.read, min(CHUNK, length))):
                length -= len(chunk)
                yield chunk

    def _find(self, name: str) -> Path | None:
        """Return the file, if it is a regular one in its recording's folder; a link that leads out of that is none."""
        format_name, record_id, inside = name.split("/", 2)
        for root in self._roots:
            folder = (root / format_name / record_id).resolve()
            path = (folder / inside).resolve()
            if path.is_relative_to(folder) and path.is_file():
                return path
        return None

    async def write(self, name: str, content: bytes) -> None:
        """Write beside, and rename into the place."""
        await asyncio.to_thread(self._write, name, content)

    def _write(self, name: str, content: bytes) -> None:
        path = next((root / name for root in self._roots if (root / name).parent.is_dir()), None)
        if path is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        write_file(beside, [content], self.disk)
        self.disk.rename(beside, path)

    async def places(self) -> list[Place]:
        """List both folders."""
        return await asyncio.to_thread(self._places)

    def _places(self) -> list[Place]:
        return [
            Place(parent.name, folder.name, root == self.published)
            for root in self._roots
            for parent in _subfolders(root)
            for folder in _subfolders(parent)
            if RECORD_ID.fullmatch(folder.name)
        ]

    async def tidy(self, before_s: float) -> None:
        """Remove copies that were not put into their place."""
        await asyncio.to_thread(self._tidy, before_s)

    def _tidy(self, before_s: float) -> None:
        for root in self._roots:
            for parent in _subfolders(root):
                for left in parent.glob(f"*{_COPIED}"):
                    if left.stat().st_mtime < before_s:
                        self.disk.remove_tree(left)

    @property
    def _roots(self) -> tuple[Path, Path]:
        return self.published, self.unpublished

    def _root(self, *, published: bool) -> Path:
        return self.published if published else self.unpublished


def _subfolders(root: Path) -> list[Path]:
    return [entry for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else []


def write_file(path: Path, chunks: Iterable[bytes], disk: Disk) -> None:
    """Write a new file and bring it to the disk; nothing of it stays when that fails."""
    descriptor = disk.create(path)
    try:
        for chunk in chunks:
            disk.write(descriptor, chunk)
        disk.finish(descriptor)
    finally:
        os.close(descriptor)


def copy_tree(source: Path, target: Path, disk: Disk) -> None:
    """Copy folders and regular files."""
    for folder, _, names in os.walk(source):
        here = target / os.path.relpath(folder, source)
        disk.make_folder(here)
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:  # noqa: PTH118, PTH123 - os.walk's names
                write_file(here / name, iter(partial(file.read, CHUNK), b""), disk)
