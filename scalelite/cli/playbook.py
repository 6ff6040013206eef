"""playbook: run one, or say what its modules do and which runs there were."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from scalelite.cli.listing import format_option, print_list
from scalelite.cli.playbook_run import Run, say_how_to_go_on, with_services
from scalelite.cli.session import (
    actor_option,
    settings_of_process,
    vault_options,
)
from scalelite.core import show
from scalelite.errors import UsageError

if TYPE_CHECKING:
    from scalelite.cli.listing import Style
    from scalelite.flows.services import Services

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
@click.option("--resume", is_flag=True, help="Go on where its last run was interrupted, or failed.")
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
    command = Run.begin(files, given)
    if given["syntax_check"]:
        click.echo(f"{', '.join(map(str, files))}: {show.counted(len(command.book.plays), 'play')}, no problems.")
        return 0
    if given["list_tasks"]:
        command.list_tasks()
        return 0
    if given["list_servers"]:
        with_services(command.settings, command.list_servers, "list")
        return 0
    ended = with_services(command.settings, command.run, "run")
    if (ended.interrupted or ended.failed) and ended.run:
        say_how_to_go_on(files, interrupted=ended.interrupted)
    if ended.interrupted:
        return INTERRUPTED
    return FAILED_ON_SOME if ended.failed else 0


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
@format_option
def runs(style: Style) -> None:
    """List the latest runs: which ended, which failed, which can be resumed.

    \b
    Example: scalelite playbook runs
    """

    async def latest(services: Services) -> list[Any]:
        from scalelite.flows.playbooks import recent_runs  # noqa: PLC0415

        return await recent_runs(services)

    rows = with_services(settings_of_process(), latest, "runs")
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
    heads = ("run", "playbook", "state", "actor", "started")
    print_list(style, heads, [tuple(str(cell[head]) for head in heads) for cell in cells], cells)
