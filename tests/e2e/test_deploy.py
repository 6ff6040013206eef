"""What is shipped to run the service: commands that there are, settings that are read, files that exist."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from scalelite.settings import Settings

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
SETTINGS = {entry.metadata["env"] for entry in dataclasses.fields(Settings)}


def compose() -> Any:
    return YAML(typ="safe").load(ROOT / "compose.yaml")


def parse(arguments: list[str]) -> str:
    """Return the command that a command line runs; fails for one that the program does not take."""
    command = [sys.executable, "-m", "scalelite", *arguments, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[0].removeprefix("Usage: ").removesuffix(" [OPTIONS]")


@pytest.mark.shows("operations: compose.yaml")
def test_compose_runs_commands_with_settings_that_there_are() -> None:
    ours = {name: service for name, service in compose()["services"].items() if service.get("image") == "scalelite"}
    assert {name: parse(service["command"]) for name, service in ours.items()} == {
        "api": "scalelite serve",
        "poller": "scalelite poll",
        "importer": "scalelite recordings watch",
    }
    for service in ours.values():
        assert set(service["environment"]) <= SETTINGS
        assert service["read_only"]


@pytest.mark.shows("operations: compose.yaml")
def test_compose_mounts_what_exists_and_fills_in_all_of_nginx() -> None:
    found = compose()
    mounts = [mount for service in found["services"].values() for mount in service.get("volumes", [])]
    for mount in mounts:
        source = mount.partition(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in found["volumes"]
    script = found["services"]["nginx"]["command"][-1]
    config = (ROOT / "deploy" / "nginx" / "scalelite.conf").read_text()
    filled = dict(re.findall(r"s\|(\w+)\|([^|]*)\|", script))
    directives = re.sub(r"#.*", "", config)
    assert set(re.findall(r"\b[A-Z][A-Z_]{4,}\b", directives)) == set(filled)


@pytest.mark.shows("operations: systemd units")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_units_run_commands_that_there_are(path: Path) -> None:
    found = re.search(r"^ExecStart=/opt/scalelite/bin/scalelite (.*)$", path.read_text(), re.MULTILINE)
    assert found is not None
    assert parse(found[1].split()).startswith("scalelite ")


@pytest.mark.needs("systemd-analyze")
@pytest.mark.shows("operations: systemd units")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """The program is not where it would be installed, so that another stands for it."""
    assert len(UNITS) == 3
    for path in UNITS:
        text = path.read_text().replace("/opt/scalelite/bin/scalelite", "/bin/true")
        (tmp_path / path.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / path.name) for path in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
