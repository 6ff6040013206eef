"""Unpacks archives of recordings, which are hostile until proved otherwise; makes plain folders and files of them.

We walk the members ourselves and write with our own open: tarfile's extraction has been got around more than once
(findings.md, Archives). Links, devices, sparse files and paths that leave the folder are refused, modes are not taken
over, and sizes are bounded before anything of that size is read.
"""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from scalelite.core.recording import RECORD_ID
from scalelite.edge.folders import CHUNK, write_file
from scalelite.errors import ArchiveIncomplete, RecordingInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from scalelite.edge.disk import Disk

_LONGEST_NAME: Final = 255
_LONGEST_PATH: Final = 1024
_DEEPEST: Final = 24
# What tarfile says where a file ends too early.
_CUT_OFF: Final = frozenset({"unexpected end of data", "empty file", "truncated header", "empty header"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may hold at most."""

    bytes: int = 256 << 30
    members: int = 200_000


class Unpacked(NamedTuple):
    """The folder of one format of a recording."""

    format: str
    record_id: str
    folder: Path


def unpack(archive: BinaryIO, target: Path, disk: Disk, limits: Limits = Limits()) -> list[Unpacked]:
    """Unpack into a new folder and return the formats in it, sorted.

    Raises RecordingInvalid, ArchiveIncomplete where the end is missing, OSError. What was written then stays, for the
    caller to remove.
    """
    disk.make_folder(target)
    found: set[tuple[str, str]] = set()
    folders = {target}
    for member in _members(archive, limits):
        parts = _parts(member)
        if len(parts) < 2:
            continue
        found.add((parts[0], parts[1]))
        path = target.joinpath(*parts)
        try:
            _make_folders(path if member.isdir() else path.parent, folders, disk)
            if not member.isdir():
                write_file(path, _content(archive, member), disk)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise RecordingInvalid(f"{member.name!r} is in it twice") from None
    return [Unpacked(name, record_id, target / name / record_id) for name, record_id in sorted(found)]


def _make_folders(path: Path, made: set[Path], disk: Disk) -> None:
    if path not in made:
        disk.make_folder(path)
        made.add(path)


def _members(archive: BinaryIO, limits: Limits) -> Iterator[tarfile.TarInfo]:
    """Yield the files and folders of an archive, and check that it ends as archives do."""
    size = count = 0
    try:
        with tarfile.open(fileobj=_Headers(archive), mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                count += 1
                size += _checked(member).size
                if count > limits.members or size > limits.bytes:
                    raise RecordingInvalid("it is too large")
                yield member
            _check_end(archive, tar.offset)
    except tarfile.ReadError as error:
        if str(error) in _CUT_OFF:
            raise ArchiveIncomplete from None
        raise RecordingInvalid(f"it is no tar archive: {str(error)[:200]}") from None
    except (tarfile.TarError, RecursionError, ValueError, OverflowError) as error:
        raise RecordingInvalid(f"it is no tar archive: {type(error).__name__}") from None


def _check_end(archive: BinaryIO, offset: int) -> None:
    """The walk ends where there is no header: at the block of zeros that archives end with, or too early."""
    archive.seek(offset)
    block = archive.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise ArchiveIncomplete
    if any(block):
        raise RecordingInvalid("there is something else between the files in it")


class _Headers(io.RawIOBase):
    """What tarfile reads through: headers alone, so a size that a header claims is never read into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Read as the file does; raises RecordingInvalid for more than headers need."""
        if not 0 <= size <= CHUNK:
            raise RecordingInvalid("a header in it is too large")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place in the file."""
        return self._file.tell()

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True


def _checked(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Refuse everything but plain files and folders; a negative size would send the walk back."""
    plain = member.type in {tarfile.REGTYPE, tarfile.AREGTYPE} and not member.issparse()
    if not plain and not member.isdir():
        raise RecordingInvalid(f"{member.name[:200]!r} is neither a file nor a folder")
    if member.size < 0 or (member.isdir() and member.size):
        raise RecordingInvalid(f"{member.name[:200]!r} has an impossible size")
    return member


def _parts(member: tarfile.TarInfo) -> list[str]:
    """Return the parts of a member's path, FORMAT/RECORD_ID/…; fewer than two for the folders above."""
    name = member.name.removeprefix("./")
    parts = [] if name in {"", "."} else name.split("/")
    if len(parts) > _DEEPEST or len(name) > _LONGEST_PATH or not all(map(_is_name, parts)):
        raise RecordingInvalid(f"{member.name[:200]!r} is not a path that is taken")
    if len(parts) < 3 and not member.isdir():
        raise RecordingInvalid(f"{member.name[:200]!r} is not in a folder FORMAT/RECORD_ID")
    if len(parts) > 1 and not RECORD_ID.fullmatch(parts[1]):
        raise RecordingInvalid(f"{parts[1][:200]!r} is not the id of a recording")
    return parts


def _is_name(part: str) -> bool:
    try:
        short = len(part.encode()) <= _LONGEST_NAME
    except UnicodeEncodeError:  # bytes that are not UTF-8
        return False
    return short and part not in {"", ".", ".."} and part.isprintable() and "\\" not in part


def _content(archive: BinaryIO, member: tarfile.TarInfo) -> Iterator[bytes]:
    """Yield a file's bytes; raises ArchiveIncomplete where they end too early."""
    archive.seek(member.offset_data)
    left = member.size
    while left:
        chunk = archive.read(min(CHUNK, left))
        if not chunk:
            raise ArchiveIncomplete
        left -= len(chunk)
        yield chunk
