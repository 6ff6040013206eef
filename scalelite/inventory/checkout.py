"""Which git commit an inventory is of, and whether its files are as committed; for history and saved plans."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST_S: Final = 5.0


class Checkout(NamedTuple):
    """A commit; `dirty`: files of the inventory differ from it."""

    sha: str
    dirty: bool


def checkout_of(files: Sequence[str]) -> Checkout | None:
    """Return the commit that files are of, or None where they are of none, or there is no git."""
    paths = [str(Path(file).absolute()) for file in files if file != "-"]
    git = shutil.which("git")
    if not paths or git is None:
        return None
    command = [git, "-C", str(Path(paths[0]).parent), "--no-optional-locks", "-c", "core.fsmonitor=false"]
    try:
        done = subprocess.run(  # noqa: S603 - git itself, with paths after "--"
            [*command, "status", "--porcelain=v2", "--branch", "--untracked-files=all", "--", *paths],
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    sha = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    if done.returncode or sha == "(initial)":
        return None
    return Checkout(sha, any(not line.startswith("#") for line in lines))
