"""Runs playbooks against the clusters of tests/web, as the command does."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scalelite.core.holds import name_of_run
from scalelite.flows.playbooks import Asked, Journal
from scalelite.inventory.templates import Lookups
from scalelite.playbook.options import Options
from scalelite.playbook.output import Masker, RecordingOutput, TextOutput
from scalelite.playbook.parse import load_playbook
from scalelite.playbook.run import Runner
from scalelite.playbook.templates import Environment, Templates
from scalelite.playbook.world import World
from tests.playbook.reading import MODULES, VAULTS
from tests.web.conftest import Cluster, cluster

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping, Sequence

    from scalelite.playbook.output import Ended, Output
    from scalelite.playbook.tasks import Done
    from scalelite.store.db import Connection

__all__ = ["Cluster", "Stage", "cluster", "stage"]

SHIPPED = Path(__file__).parents[2] / "playbooks"


class Killed(BaseException):
    """What a run that is killed at a task ends with."""


class Death:
    """Kills a run as it begins its n-th task (0: never); as of kill -9, Postgres only sees its connection gone."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.has_come = False
        self.connection: Connection | None = None

    def look(self) -> None:
        self.left -= 1
        if not self.left and self.connection:
            self.has_come = True
            self.connection.pgconn.finish()
            raise Killed

    async def __aenter__(self) -> None:
        return

    async def __aexit__(self, *error: object) -> None:
        if self.has_come:
            raise Killed from None


@dataclass
class Told:
    """What a run said, and how it ended."""

    ended: Ended
    text: str
    events: list[tuple[str, dict[str, str]]]

    @property
    def counts(self) -> Mapping[str, Counter[str]]:
        return self.ended.counts

    @property
    def changed(self) -> int:
        return sum(count["changed"] for count in self.counts.values())


class Events(TextOutput):
    """Text, and each task with the statuses of its targets."""

    def __init__(self, masker: Masker, begun: Callable[[], None]) -> None:
        self.begun = begun
        self.lines: list[str] = []
        self.events: list[tuple[str, dict[str, str]]] = []
        super().__init__(self.lines.append, masker, diff=True)

    def task(self, task: Any, targets: Sequence[str], *, handler: bool) -> None:
        super().task(task, targets, handler=handler)
        self.events.append((task.name, {}))
        self.begun()

    def result(self, target: str, done: Done, *, rescued: bool) -> None:
        super().result(target, done, rescued=rescued)
        self.events[-1][1][target] = "ignored" if done.ignored else done.status


@dataclass
class Stage:
    """A cluster with playbooks in a folder."""

    cluster: Cluster
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def write(self, text: str, name: str = "play.yml") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    async def steps(self) -> int:
        """How many results the journal has."""
        cursor = await self.cluster.connection.execute("SELECT count(*) AS n FROM playbook_step")
        return int((await cursor.fetchone() or {})["n"])

    async def run(
        self,
        playbook: Path | str,
        *,
        name: str = "play.yml",
        resume: bool = False,
        form: str = "",
        check: bool = False,
        killed_at: int = 0,
        **options: Any,
    ) -> Told:
        """Run a playbook, a text or a file; one that is killed at its n-th task raises Killed."""
        path = playbook if isinstance(playbook, Path) else self.write(playbook, name)
        masker = Masker()
        templates = Templates(Lookups(Environment(self.environment, masker.hide), VAULTS), VAULTS, masker.hide)
        book = load_playbook([path], MODULES, templates, VAULTS)
        services = await self.cluster.poller()
        death = Death(killed_at)
        events = Events(masker, death.look)
        said: list[str] = []
        output: Output = RecordingOutput(said.append, said.append, masker, form) if form else events
        async with death, services.database.dedicated() as death.connection:
            connection = death.connection
            begin = Journal.resume if resume else Journal.begin
            journal = None if check else await begin(services, connection, Asked(path.name, book.digest))
            reason = name_of_run(path.name, journal.run if journal else 0)
            environment = {**os.environ, **self.environment}
            world = World(services, f"tests {reason}", reason, environment)
            runner = Runner(book, Options(check=check, **options), world, templates, output, journal)
            ended = await runner.run()
        return Told(ended, "\n".join(said or events.lines), events.events)


@pytest.fixture
def stage(cluster: Cluster, tmp_path: Path) -> Stage:
    return Stage(cluster, tmp_path)
