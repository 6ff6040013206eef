"""playbook: run one, or say what its modules do and which runs there were."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from scalelite.cli.session import (
    DEFAULT_INVENTORY,
    actor_option,
    read_inventory,
    settings_of_process,
    vault_options,
    vault_passwords,
)
from scalelite.core import show
from scalelite.errors import UsageError
from scalelite.settings import process_environment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from scalelite.flows.services import Services
    from scalelite.inventory.vault import Vaults
    from scalelite.playbook.book import Playbook
    from scalelite.playbook.options import Options
    from scalelite.playbook.output import Ended, Output
    from scalelite.playbook.registry import Module
    from scalelite.playbook.run import Runner
    from scalelite.playbook.templates import Templates
    from scalelite.settings import Settings

T = TypeVar("T")
FAILED_ON_SOME: Final = 8
INTERRUPTED: Final = 130


@click.group()
def playbook() -> None:
    """Do things to the cluster in an order, with waits, as Ansible does.

    \b
    Example: scalelite playbook run playbooks/drain.yml --limit bbb3
             scalelite playbook doc wait_for
    """


@playbook.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("-i", "--inventory", multiple=True, metavar="PATH", help="Where the groups of patterns come from.")
@click.option("-C", "--check", is_flag=True, help="Change nothing, and say what would change.")
@click.option("-D", "--diff", is_flag=True, help="Say what changed, field by field.")
@click.option("-l", "--limit", multiple=True, metavar="PATTERN", help="Only these: bbb*, large:&online, bbb[01:05].")
@click.option("-t", "--tags", multiple=True, metavar="TAG,...", help="Only tasks with one of these tags.")
@click.option("--skip-tags", multiple=True, metavar="TAG,...", help="No tasks with one of these tags.")
@click.option("--start-at-task", "start_at", default="", metavar="NAME", help="Begin with this task.")
@click.option("--step", is_flag=True, help="Ask before each task.")
@click.option("-e", "--extra-vars", multiple=True, metavar="K=V|@FILE", help="Variables that win over all others.")
@click.option("-f", "--forks", type=click.IntRange(1, 1000), default=50, show_default=True, help="Targets at once.")
@click.option("--list-tasks", is_flag=True, help="Only list the tasks.")
@click.option("--list-servers", is_flag=True, help="Only list whom each play is about.")
@click.option("--syntax-check", is_flag=True, help="Only read the playbook; needs no database.")
@click.option("--resume", is_flag=True, help="Go on where the last run of it was interrupted.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "junit"]), default="text", show_default=True, help="Output."
)
@click.option("-v", "--verbose", is_flag=True, help="Show all results in full.")
@vault_options
@actor_option
def run(files: tuple[Path, ...], **given: Any) -> int:
    """Run playbooks, one after the other: 0 all well, 8 failed on some servers, 3 invalid, 64 nothing matches.

    \b
    Example: scalelite playbook run playbooks/rolling-upgrade.yml --check --diff
             scalelite playbook run playbooks/drain.yml --limit 'large:!bbb3' -e drain_timeout=1h
    """
    command = _Run.begin(files, given)
    if given["syntax_check"]:
        click.echo(f"{', '.join(map(str, files))}: {show.counted(len(command.book.plays), 'play')}, no problems.")
        return 0
    if given["list_tasks"]:
        command.list_tasks()
        return 0
    if given["list_servers"]:
        _with_services(command.settings, command.list_servers, "list")
        return 0
    ended = _with_services(command.settings, command.run, "run")
    if ended.interrupted:
        return INTERRUPTED
    return FAILED_ON_SOME if ended.failed else 0


def _with_services(settings: Settings, use: Callable[[Services], Awaitable[T]], doing: str) -> T:
    from scalelite.wiring import open_database, open_services  # noqa: PLC0415 - 0.3 s to import

    async def opened(conninfo: str) -> T:
        async with open_services(settings, conninfo, name=f"scalelite playbook {doing}") as services:
            return await use(services)

    with open_database(settings) as conninfo:
        return asyncio.run(opened(conninfo))


@dataclass(frozen=True)
class _Run:
    """One run: what is asked for, and the playbook."""

    settings: Settings
    given: Mapping[str, Any]
    book: Playbook
    options: Options
    templates: Templates
    vaults: Vaults
    modules: Mapping[str, Module]
    output: Output
    hide: Callable[[str], None]

    @classmethod
    def begin(cls, files: tuple[Path, ...], given: Mapping[str, Any]) -> _Run:
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
        if given["form"] == "text":
            output = TextOutput(click.echo, masker, diff=given["diff"], verbose=given["verbose"])
        else:
            output = RecordingOutput(click.echo, lambda text: click.echo(text, err=True), masker, given["form"])
        options = _options(settings, given)
        return cls(settings, given, book, options, templates, vaults, modules, output, masker.hide)

    # --- lists --------------------------------------------------------------------------------------------------------

    def list_tasks(self) -> None:
        from scalelite.playbook.options import chosen, refuse_unknown  # noqa: PLC0415

        refuse_unknown(self.book, self.options)
        for number, play in enumerate(self.book.plays, 1):
            click.echo(f"play #{number} ({play.name})")
            for task in play.each():
                if chosen(task.words.tags, self.options):
                    tags = f"  [{', '.join(task.words.tags)}]" if task.words.tags else ""
                    click.echo(f"  {task.name}{tags}")

    async def list_servers(self, services: Services) -> None:
        runner = await self._runner(services, None)
        for number, play in enumerate(self.book.plays, 1):
            targets = await runner.targets_of(play)
            click.echo(f"play #{number} ({play.name}): {len(targets)}")
            for target in targets:
                click.echo(f"  {target or 'cluster'}")

    # --- running ------------------------------------------------------------------------------------------------------

    async def run(self, services: Services) -> Ended:
        """Run it; Ctrl-C and SIGTERM interrupt it, and the journal says so."""
        from scalelite.flows.playbooks import Journal  # noqa: PLC0415

        if self.options.check:
            if self.given["resume"]:
                raise UsageError("--check with --resume: nothing is done that could go on")
            return await (await self._runner(services, None)).run()
        async with services.database.dedicated() as connection:
            begin = Journal.resume if self.given["resume"] else Journal.begin
            journal = await begin(services, connection, self._name(), self._digest())
            if journal.steps:
                self.output.note(f"Going on with run {journal.run}: {len(journal.steps)} results are there already.")
            runner = await self._runner(services, journal)
            return await _interruptible(runner)

    def _name(self) -> str:
        return " ".join(str(name) for name in self.book.names)

    def _digest(self) -> str:
        """Return what tells two runs apart: the files, and what is asked of them; not the variables, maybe secrets."""
        asked = {name: self.given[name] for name in ("limit", "tags", "skip_tags", "start_at")}
        return f"{self.book.digest}{json.dumps(asked, sort_keys=True)}"

    async def _runner(self, services: Services, journal: Any) -> Runner:
        from scalelite.flows import playbooks  # noqa: PLC0415
        from scalelite.playbook.options import refuse_unknown  # noqa: PLC0415
        from scalelite.playbook.parse import load_tasks  # noqa: PLC0415
        from scalelite.playbook.run import Runner  # noqa: PLC0415
        from scalelite.playbook.world import World  # noqa: PLC0415

        refuse_unknown(self.book, self.options)
        name = " ".join(Path(name).name for name in self.book.names)
        reason = f"playbook {name} #{journal.run}" if journal else f"playbook {name}"
        actor = journal.actor if journal else self.settings.actor
        world = World(
            services,
            f"{actor} {reason}",
            reason,
            process_environment(),
            lambda: vault_passwords(self.settings),
            _press_enter if sys.stdin.isatty() else None,
        )
        for secret in playbooks.declared_secrets(await world.seen()):
            self.hide(secret)
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
    running = asyncio.create_task(runner.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    try:
        return await running
    except asyncio.CancelledError:
        from scalelite.playbook.output import Ended  # noqa: PLC0415

        click.echo("Interrupted. Go on with: scalelite playbook run … --resume", err=True)
        return Ended({}, {}, interrupted=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _press_enter(prompt: str) -> None:
    click.echo(f"{prompt} ", nl=False, err=True)
    sys.stdin.readline()


# --- options ---------------------------------------------------------------------------------------------------------


def _options(settings: Settings, given: Mapping[str, Any]) -> Options:
    from scalelite.playbook.options import Options  # noqa: PLC0415

    options = Options(
        check=given["check"],
        limit=given["limit"],
        tags=_names(given["tags"]) or frozenset({"all"}),
        skip_tags=_names(given["skip_tags"]),
        start_at=given["start_at"],
        extra_vars=_extra_vars(given["extra_vars"]),
        forks=given["forks"],
        groups=_groups(settings, given["inventory"]),
        read_names=_lines,
    )
    if given["step"]:
        if not sys.stdin.isatty():
            raise UsageError("nobody is there to ask", hint="leave out --step")
        options = replace(options, confirm=_Step())
    return options


def _names(texts: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name.strip() for text in texts for name in text.split(",") if name.strip())


class _Step:
    """Asks before each task, until somebody says that it need not be."""

    def __init__(self) -> None:
        self._ask = True

    def __call__(self, name: str) -> bool:
        if not self._ask:
            return True
        click.echo(f"Perform task: {name} (N)o/(y)es/(c)ontinue: ", nl=False, err=True)
        answer = sys.stdin.readline().strip().lower()[:1]
        self._ask = answer != "c"
        return answer in {"y", "c"}


def _extra_vars(texts: tuple[str, ...]) -> dict[str, Any]:
    """Read `k=v k2=v2`, a YAML or JSON mapping, or `@FILE`; raises UsageError, which shows no value."""
    import shlex  # noqa: PLC0415

    found: dict[str, Any] = {}
    for text in texts:
        if text.startswith(("@", "{")):
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
        source = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        value = YAML(typ="safe").load(source)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
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


# --- doc, runs -------------------------------------------------------------------------------------------------------


@playbook.command()
@click.argument("module", required=False)
def doc(module: str | None) -> None:
    """List the modules, or say what one of them does and takes.

    \b
    Example: scalelite playbook doc wait_for
    """
    from scalelite.playbook.doc import module_list, module_page  # noqa: PLC0415
    from scalelite.playbook.registry import load_modules  # noqa: PLC0415

    modules = load_modules()
    if module is None:
        click.echo(module_list(modules), nl=False)
    elif module in modules:
        click.echo(module_page(modules[module]), nl=False)
    else:
        from scalelite.inventory.problems import nearest  # noqa: PLC0415

        raise UsageError(f"there is no module {module!r}.{nearest(module, modules)}", hint="scalelite playbook doc")


@playbook.command()
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
def runs(style: str) -> None:
    """List the latest runs: which ended, which failed, which can be resumed.

    \b
    Example: scalelite playbook runs
    """

    async def latest(services: Services) -> list[Any]:
        from scalelite.flows.playbooks import recent_runs  # noqa: PLC0415

        return await recent_runs(services)

    rows = _with_services(settings_of_process(), latest, "runs")
    cells = [
        {
            "run": row.id,
            "playbook": row.playbook,
            "state": "interrupted" if row.state == "running" and not row.alive else row.state,
            "actor": row.actor,
            "started": f"{row.started_at:%Y-%m-%dT%H:%M:%SZ}",
        }
        for row in rows
    ]
    if style == "json":
        click.echo(json.dumps(cells, indent=2))
        return
    heads = ("run", "playbook", "state", "actor", "started")
    click.echo(show.table(heads, [tuple(str(cell[head]) for head in heads) for cell in cells]), nl=False)
