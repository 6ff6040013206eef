"""Writes files whole or not at all: a reader sees the old file or the new one, and no secret is ever open to others."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from scalelite.errors import FileNotWritten

if TYPE_CHECKING:
    from pathlib import Path


def write_whole(path: Path, text: str, *, private: bool) -> None:
    """Put a text into a file (UTF-8); `private`: only this user may read it. Raises FileNotWritten."""
    try:
        _write(path, text, 0o600 if private else 0o666 & ~_umask())
    except OSError as error:
        raise FileNotWritten(str(path), (error.strerror or type(error).__name__).lower()) from None


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # What is there may be a link: the file that it leads to is written, and the link stays.
    path = path.resolve()
    if path.exists() and not path.is_file():  # a pipe or a device, which must not be replaced: /dev/null, say
        path.write_text(text, encoding="utf-8")
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fchmod(handle, mode)
            os.fsync(handle)
        os.replace(temporary, path)  # noqa: PTH105 - Path.replace is the same
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108
        raise


def _umask() -> int:
    """The one way to read it is to set it; nothing else is written meanwhile."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
