"""The command line, thin: words and options around flows; commands are imported when they are called."""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from scalelite import __version__
from scalelite.errors import InventoryInvalid, ScaleliteError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Where each command lives, with its line of help, so that --help imports none of them.
COMMANDS: Final = {
    "validate": ("validate", "Check an inventory; needs no database."),
    "explain": ("validate", "Say more about the code of a problem."),
    "schema": ("validate", "Print the JSON schema of inventories, for editors."),
    "plan": ("config", "Say what apply would change."),
    "apply": ("config", "Make the cluster what the inventory says."),
    "inventory": ("inventory", "Show what an inventory makes of its servers and groups."),
    "playbook": ("playbook", "Do things in an order, with waits, as Ansible does."),
    "vault": ("vault", "Encrypt and decrypt files and values, as ansible-vault does."),
    "drift": ("history", "Say what was changed outside of the inventory."),
    "history": ("history", "List revisions, or what one of them changed."),
    "blame": ("history", "Say who gave an object's fields their values."),
    "rollback": ("history", "Go back to the state after a revision."),
    "export": ("export", "Write the live cluster as an inventory."),
    "migrate-from": ("migrate_from", "Take over a Scalelite: servers, tenants, meetings, recordings."),
    "status": ("status", "Show servers, their health and their load."),
    "servers": ("servers", "List, add, change, hold and remove servers."),
    "meetings": ("meetings", "List, look at and end meetings."),
    "tenants": ("tenants", "List, add, change and remove tenants."),
    "tenant-settings": ("tenants", "Parameters of tenants' create and join calls."),
    "serve": ("processes", "Answer the BigBlueButton API, with a poller beside."),
    "poll": ("processes", "Poll the servers: once, or for ever."),
    "recordings": ("recordings", "Import, list, hand over and delete recordings."),
    "simulate": ("processes", "Run simulated BigBlueButton servers."),
    "demo": ("demo", "Show all of it on this machine, with simulated servers."),
    "tokens": ("tokens", "Say who may use the management API."),
    "db": ("database", "Make, migrate and look at the database."),
    "doctor": ("doctor", "Check that all of it is well."),
    "rake": ("rake", "Scalelite's tasks under their old names."),
    "completion": ("completion", "Print what completes commands in a shell."),
}


class Lazy(click.Group):
    """A group that knows its commands' names and help, and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"scalelite.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for one that there is not, the error names those that are nearly called so."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scalelite")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """BigBlueButton clusters from YAML inventories: plan, apply, and a load balancer that follows.

    \b
    Example:
      scalelite demo
      scalelite plan inventories/production && scalelite apply inventories/production
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; the process ends with the exit status of spec/plan.md."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _leave(run(arguments))


def _leave(status: int) -> NoReturn:
    """End the process without taking the interpreter apart: 0.06 s of a short command, 0.2 s after a large inventory.

    What is registered for the end is run; where threads are left, the interpreter ends as usual.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = status or (1 if isinstance(error, BrokenPipeError) else _fail(*_said(error), 1, []))
    if threading.active_count() > 1:
        sys.exit(status)
    atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter does at its end
    sys.stdout.flush()
    os._exit(status)


def run(arguments: list[str]) -> int:
    """Run a command and return its exit status; an error is one line on standard error, and a hint."""
    try:
        result: Any = cli.main(arguments, prog_name="scalelite", standalone_mode=False)
    except InventoryInvalid as error:
        _tell_problems(error)
        return error.exit_status
    except ScaleliteError as error:
        return _fail(error.message, error.hint, error.exit_status, arguments)
    except click.exceptions.Abort:
        return 130
    except click.UsageError as error:
        if error.ctx:
            click.echo(error.ctx.get_usage(), err=True)
        return _fail(error.format_message(), "", UsageError.exit_status, arguments)
    except click.ClickException as error:
        return _fail(error.format_message(), "", 1, arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the last line of defence
        return _fail(*_said(error), 1, arguments)
    return result if isinstance(result, int) else 0


def _said(error: Exception) -> tuple[str, str]:
    """Return what is said of an error that nobody has translated, and a hint."""
    if isinstance(error, OSError):
        what = error.filename if isinstance(error.filename, str) else "input or output"
        return f"{what}: {(error.strerror or type(error).__name__).lower()}", ""
    return f"{type(error).__name__}: unexpected", "run it again with --debug and report it"


def _fail(message: str, hint: str, status: int, arguments: list[str]) -> int:
    if "--debug" in arguments:
        import traceback  # noqa: PLC0415 - only to show one

        from scalelite.logs import scrub  # noqa: PLC0415

        click.echo(scrub(traceback.format_exc()), err=True, nl=False)
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
    return status


def _tell_problems(error: InventoryInvalid) -> None:
    for problem in error.problems:
        click.echo(problem.text(caret=True), err=True)  # type: ignore[attr-defined]
    click.echo(f"error: {error.message}", err=True)
