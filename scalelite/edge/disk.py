"""The system calls that change files, in one place: whoever hands in another Disk decides which of them fails.

Files and folders that are made can be read by everybody, since another process may serve them; nothing else of a mode
is taken over from outside. What is finished is on the disk, not only in memory.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
# File systems without an atomic exchange, such as NFS.
_NO_EXCHANGE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_libc = ctypes.CDLL(None, use_errno=True)


class Disk:
    """Changes files; every method raises OSError."""

    def make_folder(self, path: Path) -> None:
        """Make a folder and those above it; one that is there is fine."""
        path.mkdir(mode=0o755, parents=True, exist_ok=True)

    def create(self, path: Path) -> int:
        """Create a file that must not be there, and return its descriptor; a link in its place is not followed."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        os.fchmod(descriptor, 0o644)
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of the data."""
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def finish(self, descriptor: int) -> None:
        """Bring what was written to the disk."""
        os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Rename within a file system, atomically; the folders around and within are brought to the disk."""
        self._sync(_folders(source))
        source.rename(target)
        self._sync({source.parent, target.parent})

    def exchange(self, one: Path, other: Path) -> None:
        """Let two folders swap places; atomically, where the file system can."""
        self._sync(_folders(one))
        done = _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
        if done != 0:
            code = ctypes.get_errno()
            if code not in _NO_EXCHANGE:
                raise OSError(code, os.strerror(code), str(other))
            aside = one.with_name(f"{one.name}.old")
            other.rename(aside)
            one.rename(other)
            aside.rename(one)
        self._sync({one.parent, other.parent})

    def remove(self, path: Path) -> None:
        """Remove a file; one that is gone is fine."""
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder and all in it; one that is gone is fine."""
        if path.exists():
            shutil.rmtree(path)

    @staticmethod
    def _sync(folders: Iterable[Path]) -> None:
        """Bring the names of what is in these folders to the disk."""
        for folder in folders:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _folders(path: Path) -> list[Path]:
    """Return a folder and all folders in it; none for a file."""
    return [Path(folder) for folder, _, _ in os.walk(path)]
