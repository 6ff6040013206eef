"""What `playbook run` does with its options: reads the playbook, lists it, runs it, goes on with a run before it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from scalelite.cli.session import (
    DEFAULT_INVENTORY,
    read_inventory,
    settings_of_process,
    vault_passwords,
)
from scalelite.core.holds import name_of_run
from scalelite.errors import UsageError
from scalelite.settings import process_environment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from scalelite.cli.playbook_progress import ProgressOutput
    from scalelite.flows.playbooks import Asked, Journal
    from scalelite.flows.services import Services
    from scalelite.inventory.vault import Vaults
    from scalelite.playbook.book import Playbook
    from scalelite.playbook.given import Given
    from scalelite.playbook.options import Options
    from scalelite.playbook.output import Ended, Masker, Output
    from scalelite.playbook.registry import Module
    from scalelite.playbook.run import Runner
    from scalelite.playbook.templates import Templates
    from scalelite.settings import Settings

T = TypeVar("T")
Asking = Callable[[], "AbstractContextManager[None]"]
# What chooses among the tasks and targets of a playbook: a run goes on with the same.
_CHOOSING: Final = ("limit", "tags", "skip_tags", "start_at")


def say_how_to_go_on(files: tuple[Path, ...], *, interrupted: bool) -> None:
    """Name the command that goes on with a run of these files."""
    import shlex  # noqa: PLC0415

    names = shlex.join(map(str, files))
    what = "Interrupted. Go on" if interrupted else "Failed. Go on with what failed"
    click.echo(f"{what}: scalelite playbook run {names} --resume", err=True)


def with_services(settings: Settings, use: Callable[[Services], Awaitable[T]], doing: str) -> T:
    """Open what a command needs, and use it; `doing` names the connections."""
    import asyncio  # noqa: PLC0415 - reading a playbook needs none of it

    from scalelite.wiring import open_database, open_services  # noqa: PLC0415 - 0.3 s to import

    async def opened(conninfo: str) -> T:
        async with open_services(settings, conninfo, name=f"scalelite playbook {doing}") as services:
            return await use(services)

    with open_database(settings) as conninfo:
        return asyncio.run(opened(conninfo))


@dataclass(frozen=True)
class Run:
    """One run: what is asked for, and the playbook."""

    settings: Settings
    given: Mapping[str, Any]
    book: Playbook
    options: Options
    templates: Templates
    vaults: Vaults
    modules: Mapping[str, Module]
    output: Output
    masker: Masker
    live: ProgressOutput | None

    @classmethod
    def begin(cls, files: tuple[Path, ...], given: Mapping[str, Any]) -> Run:
        """Read the files and the options; raises PlaybookInvalid, UsageError."""
        from scalelite.inventory.templates import Lookups  # noqa: PLC0415
        from scalelite.inventory.vault import Vaults  # noqa: PLC0415
        from scalelite.playbook.output import Masker, RecordingOutput, TextOutput  # noqa: PLC0415
        from scalelite.playbook.parse import load_playbook  # noqa: PLC0415
        from scalelite.playbook.registry import load_modules  # noqa: PLC0415
        from scalelite.playbook.templates import Environment, Templates  # noqa: PLC0415

        settings = settings_of_process()
        masker = Masker()
        vaults = Vaults(lambda: vault_passwords(settings))
        environment = Environment(process_environment(), masker.hide)
        templates = Templates(Lookups(environment, vaults), vaults, masker.hide)
        modules = load_modules()
        book = load_playbook(files, modules, templates, vaults)
        output: Output
        live: ProgressOutput | None = None
        if given["form"] == "text" and sys.stderr.isatty() and not given["syntax_check"]:
            from scalelite.cli.playbook_progress import ProgressOutput  # noqa: PLC0415 - 0.1 s to import

            output = live = ProgressOutput(masker, diff=given["diff"], verbose=given["verbose"])
        elif given["form"] == "text":
            output = TextOutput(click.echo, masker, diff=given["diff"], verbose=given["verbose"])
        else:
            output = RecordingOutput(click.echo, lambda text: click.echo(text, err=True), masker, given["form"])
        extra = _extra_vars(given["extra_vars"], vaults, masker.hide)
        _hide_secrets(extra, masker)
        options = replace(_options(settings, given, live.asking if live else nullcontext), extra_vars=extra)
        return cls(settings, given, book, options, templates, vaults, modules, output, masker, live)

    # --- lists --------------------------------------------------------------------------------------------------------

    def list_tasks(self) -> None:
        """Print the tasks that the options leave."""
        from scalelite.playbook.options import chosen, refuse_unknown  # noqa: PLC0415

        refuse_unknown(self.book, self.options)
        for number, play in enumerate(self.book.plays, 1):
            click.echo(f"play #{number} ({play.name})")
            for task in play.each():
                if chosen(task.words.tags, self.options):
                    tags = f"  [{', '.join(task.words.tags)}]" if task.words.tags else ""
                    click.echo(f"  {task.name}{tags}")

    async def list_servers(self, services: Services) -> None:
        """Print whom each play is about."""
        runner = await self._runner(services, None)
        for number, play in enumerate(self.book.plays, 1):
            targets = await runner.targets_of(play)
            click.echo(f"play #{number} ({play.name}): {len(targets)}")
            for target in targets:
                click.echo(f"  {target or 'cluster'}")

    # --- running ------------------------------------------------------------------------------------------------------

    async def run(self, services: Services) -> Ended:
        """Run it; Ctrl-C and SIGTERM interrupt it, and the journal says so."""
        from scalelite.flows.playbooks import Journal, declared_secrets, look, seals  # noqa: PLC0415

        for secret in declared_secrets(await look(services)):
            self.masker.hide(secret)
        if self.options.check:
            if self.given["resume"]:
                raise UsageError("--check with --resume: nothing is done that could go on")
            return await self.go(services, None)
        async with services.database.dedicated() as connection:
            if self.given["resume"]:
                journal = await Journal.resume(services, connection, self._asked())
                self.output.note(f"Going on with run {journal.run}: {len(journal.steps)} results are there already.")
                return await self._as_before(journal).go(services, journal)
            text = self._kept().text(self.masker.is_secret, sealed=seals(connection))
            return await self.go(services, await Journal.begin(services, connection, self._asked(), text))

    async def go(self, services: Services, journal: Journal | None) -> Ended:
        """Run with this journal, None in check mode."""
        runner = await self._runner(services, journal)
        with self.live.running() if self.live else nullcontext():
            return await (_interruptible(runner) if journal else runner.run())

    def _asked(self) -> Asked:
        """Return what tells two runs apart: the files, and what is chosen of them; not the variables, maybe secrets."""
        from scalelite.flows.playbooks import Asked  # noqa: PLC0415

        chosen = {name: self.given[name] for name in _CHOOSING if self.given[name]}
        return Asked(
            " ".join(map(str, self.book.names)),
            self.book.digest,
            json.dumps(chosen, sort_keys=True) if chosen else "",
        )

    def _kept(self) -> Given:
        from scalelite.playbook.given import Given  # noqa: PLC0415

        return Given(self.options.extra_vars, self.given["inventory"])

    def _as_before(self, journal: Journal) -> Run:
        """Return this run with the options and variables of the one that it goes on with; those given now win."""
        from scalelite.playbook.given import read  # noqa: PLC0415

        before = read(journal.given)
        kept = self._kept().over(before)
        _hide_secrets(kept.variables, self.masker, before.secret)
        chosen = json.loads(journal.options) if journal.options else {}
        given = {
            **self.given,
            **{name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()},
        }
        options = replace(
            _options(self.settings, {**given, "inventory": tuple(kept.inventory)}, self.asking),
            extra_vars=kept.variables,
        )
        return replace(self, given=given, options=options)

    def asking(self) -> AbstractContextManager[None]:
        """Make room on the terminal for a question."""
        return self.live.asking() if self.live else nullcontext()

    def _press_enter(self, prompt: str) -> None:
        with self.asking():
            click.echo(f"{prompt} ", nl=False, err=True)
            sys.stdin.readline()

    async def _runner(self, services: Services, journal: Any) -> Runner:
        from scalelite.playbook.options import refuse_unknown  # noqa: PLC0415
        from scalelite.playbook.parse import load_tasks  # noqa: PLC0415
        from scalelite.playbook.run import Runner  # noqa: PLC0415
        from scalelite.playbook.world import World  # noqa: PLC0415

        refuse_unknown(self.book, self.options)
        name = " ".join(Path(name).name for name in self.book.names)
        reason = name_of_run(name, journal.run if journal else 0)
        actor = journal.actor if journal else self.settings.actor
        world = World(
            services,
            f"{actor} {reason}",
            reason,
            process_environment(),
            lambda: vault_passwords(self.settings),
            self._press_enter if sys.stdin.isatty() else None,
        )
        return Runner(
            self.book,
            self.options,
            world,
            self.templates,
            self.output,
            journal,
            lambda path: load_tasks(path, self.modules, self.templates, self.vaults),
        )


async def _interruptible(runner: Runner) -> Ended:
    """Run until the end, or until SIGINT or SIGTERM."""
    import asyncio  # noqa: PLC0415
    import signal  # noqa: PLC0415

    from scalelite.playbook.output import Ended  # noqa: PLC0415

    running = asyncio.create_task(runner.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    try:
        return await running
    except asyncio.CancelledError:
        return Ended({}, {}, runner.number, interrupted=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


# --- options ---------------------------------------------------------------------------------------------------------


def _options(settings: Settings, given: Mapping[str, Any], asking: Asking) -> Options:
    from scalelite.playbook.options import Options  # noqa: PLC0415

    options = Options(
        check=given["check"],
        limit=given["limit"],
        tags=_names(given["tags"]) or frozenset({"all"}),
        skip_tags=_names(given["skip_tags"]),
        start_at=given["start_at"],
        forks=given["forks"],
        groups=_groups(settings, given["inventory"]),
        read_names=_lines,
    )
    if given["step"]:
        if not sys.stdin.isatty():
            raise UsageError("nobody is there to ask", hint="leave out --step")
        options = replace(options, confirm=_Step(asking))
    return options


def _hide_secrets(variables: Mapping[str, Any], masker: Masker, names: Sequence[str] = ()) -> None:
    """Show none of the variables whose names say that they are secret, and none of these names."""
    from scalelite.playbook.given import secret_texts  # noqa: PLC0415

    for text in secret_texts(variables, names):
        masker.hide(text)


def _names(texts: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name.strip() for text in texts for name in text.split(",") if name.strip())


class _Step:
    """Asks before each task, until somebody says that it need not be."""

    def __init__(self, asking: Asking) -> None:
        self._ask = True
        self._asking = asking

    def __call__(self, name: str) -> bool:
        if not self._ask:
            return True
        with self._asking():
            click.echo(f"Perform task: {name} (N)o/(y)es/(c)ontinue: ", nl=False, err=True)
            answer = sys.stdin.readline().strip().lower()[:1]
        self._ask = answer != "c"
        return answer in {"y", "c"}


def _extra_vars(texts: tuple[str, ...], vaults: Vaults, hide: Callable[[str], None]) -> dict[str, Any]:
    """Read `k=v k2=v2`, a YAML or JSON mapping, or `@FILE`; raises UsageError, which shows no value."""
    import shlex  # noqa: PLC0415

    from scalelite.playbook.given import variables_of  # noqa: PLC0415

    found: dict[str, Any] = {}
    for text in texts:
        if text.startswith("@"):
            found.update(variables_of(Path(text[1:]), vaults, hide))
            continue
        if text.startswith("{"):
            found.update(_mapping(text))
            continue
        try:
            pairs = shlex.split(text)
        except ValueError:
            raise UsageError("--extra-vars: a quote is not closed") from None
        for pair in pairs:
            name, equals, value = pair.partition("=")
            if not equals or not name.isidentifier():
                raise UsageError("--extra-vars: expected NAME=VALUE, a mapping or @FILE")
            found[name] = value
    return found


def _mapping(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML  # noqa: PLC0415
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    try:
        value = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise UsageError(f"--extra-vars: cannot be read: {type(error).__name__}") from None
    if not isinstance(value, dict):
        raise UsageError("--extra-vars: expected a mapping of names")
    return value


def _groups(settings: Settings, inventory: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """Return the groups of the inventory, where there is one."""
    if not inventory and not settings.inventory and not DEFAULT_INVENTORY.exists():
        return {}
    loaded = read_inventory(settings, inventory, tell_warnings=False)
    return {name: frozenset(servers) for name, servers in loaded.groups.members.items()}


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"@{path} cannot be read: {type(error).__name__}") from None
