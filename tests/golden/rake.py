"""Replays the recorded rake tasks through `scalelite rake`, one after another, as they were recorded: each starts from
what the one before it has left, but where the driver began anew or did something to the servers (BEFORE).

The command runs in this process, on a real Postgres and simulated servers that have the recorded names.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import sys
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scalelite import cli
from scalelite.core.model import SENTINEL_TENANT, Declared, Key, Kind
from scalelite.flows.admin import read_live
from scalelite.store.db import connect
from tests.golden.rake_compare import DRAWN, entries, recorded, request_line, tenant_line, undrawn, without_log
from tests.golden.rake_stage import BEFORE, RECORDS, Stage, resolver, running_servers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from scalelite.sim import RunningServer

__all__ = ["load", "replaying", "resolver", "running_servers"]
_WITHOUT_API: Final = re.compile(r"(http://\w+\.test/)(?=[,\]\\]|\.\.\.|$)", re.MULTILINE)


def load(name: str) -> list[dict[str, Any]]:
    """Return the recorded tasks of a file, and what was kept or took place afterwards.

    Urls without /api are refused here: a record with one comes again with it (`…+api`), for what else it is about.
    """
    found = []
    for line in (RECORDS / f"{name}.jsonl").read_text().splitlines():
        record = json.loads(line)
        found.append(record)
        completed = _WITHOUT_API.sub(r"\1bigbluebutton/api", line)
        if "rake" in record and completed != line:
            found.append({**json.loads(completed), "id": f"{record['id']}+api"})
    return found


class RakeReplay(Stage):
    """A stage, and the command."""

    def __init__(self, conninfo: str, servers: list[RunningServer]) -> None:
        super().__init__(conninfo, servers)
        self.drawn: dict[str, str] = {}
        self.took_s = 0.0  # of the last task

    # --- replay ------------------------------------------------------------------------------------------------------

    def differences(self, record: dict[str, Any], instead: Mapping[str, Any]) -> list[str]:
        """Replay a record and return what is not as recorded, or not as it is `instead`."""
        if "rake" not in record:
            return _line_differences(record, "state", instead, self._state(record))
        # The recorded servers told their version; simulated ones tell that of the API, as a stock server does.
        self.sql("UPDATE server_status SET bbb_version = '3.0.4' WHERE bbb_version = '2.0'")
        if do := BEFORE.get(record["id"]):
            do(self)
        self._write_files(record)
        status, out, err = self._run(record)
        err, logged = without_log(err)
        expected = {"exit": record["exit"], "stdout": record["stdout"], "stderr": record["stderr"], **instead}
        if pattern := instead.get("without lines"):
            lines = record["stdout"].splitlines(keepends=True)
            expected["stdout"] = "".join(line for line in lines if not re.match(pattern, line))
        self._pair(record["stdout"], out)
        found = []
        if status != expected["exit"]:
            found.append(f"exit {expected['exit']} is {status}: {out}{err}")
        for name, text in (("stdout", out), ("stderr", err)):
            theirs, ours = entries(expected[name]), entries(text)
            if theirs != ours:
                found.append(f"{name} {theirs} is {ours}")
        for part, now in (("log", logged), ("upstream", self._upstream())):
            found += _line_differences(record, part, instead, now)
        return found

    def _state(self, record: dict[str, Any]) -> list[str]:
        if "seconds" in record:
            return [] if self.took_s < record["seconds"] else [f"{self.took_s} s"]
        if record["case"] == "counters":
            return [f"{name} failed {score}" for name, score in self.query("SELECT server, score FROM server_status")]
        if "rows" in record:
            return [
                " ".join(row)
                for row in self.query(
                    "SELECT record_id, key, value FROM recording_metadata m JOIN recording r ON r.id = m.recording"
                )
            ]
        declared = asyncio.run(self._declared())
        tenants = {spec.name: spec for _, spec in declared.of_kind(Kind.TENANT) if spec.id != SENTINEL_TENANT}
        settings = [(tenants[key.name].id, spec) for key, spec in declared.of_kind(Kind.SETTING)]
        return [
            *(tenant_line(spec, declared.objects.get(Key(Kind.LRS, spec.name))) for spec in tenants.values()),
            *(f"setting {tenant} {spec.param}={spec.value} {str(spec.override).lower()}" for tenant, spec in settings),
        ]

    async def _declared(self) -> Declared:
        async with connect(self.conninfo, "replay") as connection:
            return (await read_live(connection)).declared

    def _upstream(self) -> set[str]:
        """Return the requests that servers saw."""
        return {
            request_line(server.name, asked.call, asked.params.items())
            for server in self.servers.values()
            for asked in server.requests
        }

    def _write_files(self, record: dict[str, Any]) -> None:
        note = record.get("note", "")
        Path("gold").mkdir(exist_ok=True)
        if note.startswith("file gold/s.yml:\n"):
            Path("gold/s.yml").write_text(note.removeprefix("file gold/s.yml:\n"))
        elif "addAll" in record["rake"]:
            Path("gold/a.yml").write_text(note)

    def _run(self, record: dict[str, Any]) -> tuple[int, str, str]:
        task = DRAWN.sub(lambda found: self.drawn.get(found[0], found[0]), record["rake"])
        environment = {
            "URL_HOST": "sl.localhost",
            "LOG_LEVEL": "info",
            **({"MULTITENANCY_ENABLED": "true"} if record["multitenancy"] else {}),
        }
        for server in self.servers.values():
            server.requests.clear()
        began = time.monotonic()
        with _set({**environment, **record.get("env", {})}), _standard_input(record.get("stdin", "")):
            out, err = io.StringIO(), io.StringIO()
            with redirect_stdout(out), redirect_stderr(err):
                status = cli.run(["rake", task])
        self.took_s = time.monotonic() - began
        return status, out.getvalue(), err.getvalue()

    def _pair(self, was: str, now: str) -> None:
        """Keep which drawn id stands for which recorded one: later tasks name them."""
        if len(DRAWN.findall(was)) == len(DRAWN.findall(now)) == 1:
            self.drawn[DRAWN.findall(was)[0]] = DRAWN.findall(now)[0]


def _line_differences(record: dict[str, Any], part: str, instead: Mapping[str, Any], now: Iterable[str]) -> list[str]:
    was = instead.get(part, recorded(record, part))
    before, after = sorted(map(undrawn, was)), sorted(map(undrawn, now))
    return [f"{part} {before} is {after}"] if before != after else []


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _standard_input(text: str) -> Iterator[None]:
    before, sys.stdin = sys.stdin, io.StringIO(text)
    try:
        yield
    finally:
        sys.stdin = before


@contextmanager
def replaying(conninfo: str, servers: list[RunningServer]) -> Iterator[RakeReplay]:
    """Replay on a database; logs are as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with _set({"DATABASE_URL": conninfo, "SCALELITE_ACTOR": "replay"}):
        os.environ.pop("LOG_LEVEL", None)
        yield RakeReplay(conninfo, servers)
    root.handlers[:] = handlers
    root.setLevel(level)
