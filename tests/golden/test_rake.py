"""The recorded rake tasks, replayed: what differs is in rake-differences.yaml, as it is instead, with its reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from ruamel.yaml import YAML

from tests.golden.rake import load, replaying, resolver, running_servers
from tests.golden.rake_compare import recorded, without_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalelite.sim import RunningServer

FILES: Final = ("16-rake-servers", "17-rake-sync", "18-rake-poll", "19-rake-meetings", "20-rake-tenants")
RULES: Final[list[dict[str, Any]]] = YAML(typ="safe").load(Path(__file__).parent / "rake-differences.yaml")
PARTS: Final = [
    (name, part, now) for rule in RULES for name, instead in rule["records"].items() for part, now in instead.items()
]
EXPECTED: Final = {
    name: {part: now for of, part, now in PARTS if of == name} for name in {name for name, _, _ in PARTS}
}
# 297 tasks, and 22 times what was kept afterwards.
RECORDED: Final = 319
# The one that runs until it is stopped has a test of its own.
ENDLESS: Final = "18-rake-poll/039"


@pytest.fixture(scope="module")
def servers() -> Iterator[list[RunningServer]]:
    with running_servers() as running:
        yield running


@pytest.mark.shows("issue G: golden, rake", "cli: old spelling")
@pytest.mark.parametrize("file", FILES)
def test_output_status_log_and_requests_are_as_recorded(
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
    assert all(rule["why"] for rule in RULES)
    assert len({(name, part) for name, part, _ in PARTS}) == len(PARTS)
    for name, part, now in PARTS:
        was = sorted(recorded(records[name], part)) if isinstance(now, list) else records[name].get(part)
        assert was != now, (name, part)


@pytest.mark.shows("issue G: golden, rake", "cli: poll:all")
def test_the_poller_runs_until_it_is_told_to_end(
    database: str, servers: list[RunningServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is printed, and SIGTERM is a good end."""
    monkeypatch.chdir(tmp_path)
    with replaying(database, servers) as replay:
        replay.reset(servers=())
        process = subprocess.Popen(
            [sys.executable, "-m", "scalelite", "rake", "poll[1]"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "LOG_LEVEL": "info"},
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while not replay.polled() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    err, logged = without_log(err)
    (record,) = (record for record in load("18-rake-poll") if record["id"] == ENDLESS)
    assert (process.returncode, out, err) == (record["exit"], record["stdout"], record["stderr"])
    assert logged == EXPECTED[ENDLESS]["log"]
