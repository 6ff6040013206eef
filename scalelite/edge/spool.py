"""The spool: archives that wait to be imported, those that cannot be, and the folders in which they are unpacked.

An archive belongs to the importer that has its lock, where the file system has locks; they save work and nothing rests
on them. A work folder belongs to a process for as long as that lives, so what a dead one left can be removed.
"""

from __future__ import annotations

import fcntl
import os
import stat
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from scalelite.edge.folders import CHUNK, write_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scalelite.edge.disk import Disk

FAILED: Final = "failed"
_LOCK: Final = ".lock"


@dataclass(frozen=True, slots=True)
class Arrival:
    """An archive while it comes in."""

    disk: Disk
    descriptor: int
    part: Path
    target: Path

    def write(self, chunk: bytes) -> None:
        """Add to it."""
        self.disk.write(self.descriptor, chunk)

    def keep(self) -> Path:
        """Say that it is whole; returns where it is."""
        self.disk.finish(self.descriptor)
        self.disk.rename(self.part, self.target)
        return self.target


@dataclass(frozen=True, slots=True)
class Spool:
    """The folder with archives; its subfolder `failed` has those that cannot be imported, each with its reason."""

    folder: Path
    work: Path
    disk: Disk

    def waiting(self, settled_before_s: float) -> list[Path]:
        """Return the archives that were not written to since that time (seconds since 1970), oldest first.

        Hidden names are those of rsync's and our own unfinished files.
        """
        found = []
        for path in self.folder.glob("*.tar") if self.folder.is_dir() else ():
            with suppress(FileNotFoundError):  # another importer has just finished it
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_mtime <= settled_before_s and path.name[0] != ".":
                    found.append((status.st_mtime, path))
        return [path for _, path in sorted(found)]

    @contextmanager
    def claimed(self, archive: Path) -> Iterator[BinaryIO | None]:
        """Open an archive for this importer alone; None if another has it, or has just finished it."""
        try:
            file = archive.open("rb")
        except FileNotFoundError:
            yield None
            return
        with file:
            yield file if _locked(file) and _is_still(archive, file) else None

    def take(self, archive: Path) -> Path:
        """Copy an archive from elsewhere into the spool; returns where it is. It is there whole or not at all."""
        with archive.open("rb") as file, self.arrival(archive.name) as arrival:
            while chunk := file.read(CHUNK):
                arrival.write(chunk)
            return arrival.keep()

    @contextmanager
    def arrival(self, name: str) -> Iterator[Arrival]:
        """Write an archive into the spool under a hidden name; it stays only if it is kept."""
        self.disk.make_folder(self.folder)
        part = self.folder / f".{uuid.uuid4().hex}.part"
        target = self.folder / name
        while target.exists():
            target = self.folder / f"{uuid.uuid4().hex[:8]}-{name}"
        descriptor = self.disk.create(part)
        try:
            yield Arrival(self.disk, descriptor, part, target)
        finally:
            os.close(descriptor)
            self.disk.remove(part)

    def done(self, archive: Path) -> None:
        """Remove an archive whose recordings are all in place."""
        self.disk.remove(archive)

    def fail(self, archive: Path, reasons: str) -> Path:
        """Set an archive aside, with a file beside it that says why; returns where it is."""
        folder = self.folder / FAILED
        self.disk.make_folder(folder)
        target = folder / archive.name
        if target.exists():
            target = folder / f"{archive.stem}-{uuid.uuid4().hex[:8]}{archive.suffix}"
        reason = target.with_name(f"{target.name}.reason.txt")
        self.disk.remove(reason)
        write_file(reason, [reasons.encode()], self.disk)
        self.disk.rename(archive, target)
        return target

    @contextmanager
    def work_folder(self) -> Iterator[Path]:
        """Make a folder that is this process's own, and remove it at the end."""
        folder = self.work / uuid.uuid4().hex
        self.disk.make_folder(folder)
        with (folder / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                yield folder
            finally:
                self.disk.remove_tree(folder)

    def tidy(self, before_s: float) -> None:
        """Remove the work folders of processes that have died, and uploads that broke off before that time."""
        for folder in self.work.iterdir() if self.work.is_dir() else ():
            if (folder / _LOCK).is_file():
                with (folder / _LOCK).open("rb") as lock:
                    if _locked(lock):
                        self.disk.remove_tree(folder)
        for part in self.folder.glob(".*.part") if self.folder.is_dir() else ():
            with suppress(FileNotFoundError):
                if part.stat().st_mtime < before_s:
                    self.disk.remove(part)


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        return True
    return True


def _is_still(path: Path, file: BinaryIO) -> bool:
    """Whether the name still means the file that we opened."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def count_archives(folder: Path) -> tuple[int, int]:
    """Return how many archives wait in a spool's folder, and how many were set aside; none where it is not mounted."""
    return len(list(folder.glob("*.tar"))), len(list((folder / FAILED).glob("*.tar")))
