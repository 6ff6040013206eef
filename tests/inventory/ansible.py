"""Runs the programs of ansible-core, which are installed for the tests, as operators do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def ansible(program: str, *arguments: str | Path, folder: Path, text: str = "") -> str:
    """Run one of Ansible's programs in a folder of its own and return its standard output."""
    environment = {
        "PATH": os.defpath,
        "HOME": str(folder),
        "ANSIBLE_LOCAL_TEMP": str(folder / ".ansible"),
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_TRANSFORM_INVALID_GROUP_CHARS": "ignore",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        [Path(sys.executable).parent / program, *arguments],
        input=text, capture_output=True, text=True, timeout=120, cwd=folder, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
