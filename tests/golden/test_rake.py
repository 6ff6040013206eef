"""The recorded rake tasks, replayed: what differs is in rake-differences.yaml, as it is instead, with its reason."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from ruamel.yaml import YAML

from tests.golden.rake import load, replaying, resolver, running_servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalelite.sim import RunningServer

FILES: Final = ("16-rake-servers", "17-rake-sync", "18-rake-poll", "19-rake-meetings", "20-rake-tenants")
RULES: Final[list[dict[str, Any]]] = YAML(typ="safe").load(Path(__file__).parent / "rake-differences.yaml")
EXPECTED: Final = {name: instead for rule in RULES for name, instead in rule["records"].items()}
RECORDED: Final = 297
# The one that runs until it is stopped has a test of its own.
ENDLESS: Final = "18-rake-poll/039"


@pytest.fixture(scope="module")
def servers() -> Iterator[list[RunningServer]]:
    with running_servers() as running:
        yield running


@pytest.mark.shows("issue G: golden, rake", "cli: old spelling")
@pytest.mark.parametrize("file", FILES)
def test_output_and_exit_status_are_as_recorded(
    file: str, database: str, servers: list[RunningServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.getaddrinfo", resolver(servers))
    unexpected = []
    with replaying(database, servers) as replay:
        for record in load(file):
            if record["id"] != ENDLESS:
                instead = EXPECTED.get(record["id"], {})
                differences = replay.differences(record, instead)
                unexpected += [f"{record['id']} {record['case']}: {difference}" for difference in differences]
    assert not unexpected, "\n".join(unexpected)


@pytest.mark.shows("issue G: golden, rake")
def test_each_difference_is_of_a_record_and_has_a_reason() -> None:
    records = {record["id"]: record for file in FILES for record in load(file)}
    assert len([name for name in records if not name.endswith("+api")]) == RECORDED
    for rule in RULES:
        assert rule["why"]
        for name, instead in rule["records"].items():
            recorded = records[name]
            assert any(instead[part] != recorded.get(part) for part in instead), name


@pytest.mark.shows("issue G: golden, rake", "cli: poll:all")
def test_the_poller_runs_until_it_is_told_to_end(
    database: str, servers: list[RunningServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded as 18-rake-poll/039: nothing is printed, and SIGTERM is a good end."""
    monkeypatch.chdir(tmp_path)
    with replaying(database, servers) as replay:
        replay.reset(servers=())
        process = subprocess.Popen(
            [sys.executable, "-m", "scalelite", "rake", "poll[1]"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 20
        while not replay.polled() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, b"", b"")
