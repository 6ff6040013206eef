"""rake: Scalelite's tasks under their old names, with its output and exit statuses; each ends in the flows of ours."""

from __future__ import annotations

import importlib
import logging
import sys
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

import click

from scalelite import logs
from scalelite.cli.changes import author_of
from scalelite.cli.session import settings_of_process, with_connection, with_services
from scalelite.core.rake import TASKS, Arguments, parse_task, task_list
from scalelite.errors import DatabaseAway, ScaleliteError, UsageError
from scalelite.settings import log_is_asked_for, tell_children

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from scalelite.core.commands import Wish
    from scalelite.flows.admin import Changed
    from scalelite.flows.services import Services
    from scalelite.settings import Settings
    from scalelite.store.db import Connection

T = TypeVar("T")
log = logging.getLogger("scalelite.rake")

# Where each family of tasks lives.
_MODULES: Final = {
    "servers": "rake_servers",
    "status": "rake_servers",
    "meetings": "rake_meetings",
    "poll": "rake_meetings",
    "liveness": "rake_meetings",
    "tenants": "rake_tenants",
    "tenantSettings": "rake_tenants",
    "recordings": "rake_tenants",
}
_QUIETLY: Final = frozenset({"--trace", "-q", "--quiet", "-s", "--silent", "-t"})


class Refused(ScaleliteError):
    """A task says no, in a line of its own words."""


class Aborted(ScaleliteError):
    """Where Scalelite dies of an exception: `rake aborted!`, and its message."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message} ({kind})")


def not_found(kind: str, name: str) -> Aborted:
    """Return the error of an id that nothing has."""
    return Aborted("ApplicationRedisRecord::RecordNotFound", f"Couldn't find {kind} with id={name}")


@dataclass(frozen=True, slots=True)
class Rake:
    """What tasks are handed."""

    settings: Settings
    task: str

    @staticmethod
    def say(text: str) -> None:
        """Print a line."""
        click.echo(text)

    @staticmethod
    def warn(text: str) -> None:
        """Print a line on standard error."""
        click.echo(text, err=True)

    def announce(self, text: str) -> None:
        """Print what is begun, and log it."""
        self.say(text)
        log.info("%s", text)

    def read(self, use: Callable[[Connection], Awaitable[T]]) -> T:
        """Use a connection."""
        return with_connection(self.settings, use, doing=f"rake {self.task}")

    def serve(self, use: Callable[[Services], Awaitable[T]]) -> T:
        """Use all services."""
        return with_services(self.settings, use, doing=f"rake {self.task}")

    def change(self, wish: Wish) -> Changed:
        """Carry out a wish, as a revision whose actor is the operator."""
        author = author_of(self.settings, f"rake {self.task}")

        async def acting(connection: Connection) -> Changed:
            from scalelite.flows import admin  # noqa: PLC0415 - 0.1 s to import
            from scalelite.flows.acting import Acting  # noqa: PLC0415

            return await admin.change(connection, Acting(author, uuid.uuid4), wish)

        return self.read(acting)

    def asked(self) -> str:
        """Read an answer from standard input, as the old tasks did: it need not be a terminal."""
        answer = sys.stdin.readline()
        if not answer:
            raise Aborted("NoMethodError", "undefined method `chomp' for nil")
        return answer.strip().lower()


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    short_help="Scalelite's tasks under their old names.",
)
@click.argument("words", metavar="TASK[ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
def rake(words: tuple[str, ...]) -> int:
    """Run Scalelite's tasks under their old names; -T lists them, and NAME=VALUE sets a variable.

    \b
    Example: scalelite rake 'servers:add[https://bbb1.example.com/bigbluebutton/api,SECRET,2.0,gpu]'
             scalelite rake poll:all status
    """
    if words[:1] in {("-T",), ("--tasks",)}:
        click.echo(task_list(" ".join(words[1:])), nl=False)
        return 0
    tasks = []
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name.isidentifier():
            tell_children(name, value)
        elif word.startswith("-") and word not in _QUIETLY:
            raise UsageError(f"there is no option {word}", hint="-T lists the tasks")
        elif word not in _QUIETLY:
            tasks.append(word)
    settings = _logging_as_asked(settings_of_process())
    return next((status for text in tasks or ["default"] if (status := _run(settings, text))), 0)


def _logging_as_asked(settings: Settings) -> Settings:
    """Scalelite's tasks log to a file unless told otherwise; ours say nothing then.

    What they log is what Scalelite's log says; the rest of us joins in only where all is wanted (debug).
    """
    if not log_is_asked_for() and not settings.rails_log_to_stdout:
        settings = replace(settings, log_level="critical")
    style = "rails" if settings.log_format == "text" else settings.log_format
    logs.configure(settings.log_level, style, sys.stdout if settings.rails_log_to_stdout else sys.stderr)
    if settings.log_level != "debug":
        logging.getLogger().setLevel(logging.CRITICAL)
    log.setLevel(settings.log_level.upper())
    return settings


def _run(settings: Settings, text: str) -> int:
    """Run one task, and return its exit status."""
    called = parse_task(text)
    try:
        task = TASKS.get(called.name)
        if task is None:
            click.echo(f"rake aborted!\nDon't know how to build task '{text}' (scalelite rake -T lists them)", err=True)
            return 1
        arguments = Arguments(task.arguments, called.arguments)
        module = importlib.import_module(f"scalelite.cli.{_MODULES[called.name.partition(':')[0]]}")
        module.DOES[called.name](Rake(settings, called.name), arguments)
    except (Aborted, DatabaseAway) as error:
        click.echo(f"rake aborted!\n{error.message}", err=True)
        return 1
    except Refused as error:
        click.echo(error.message, err=True)
        return 1
    except ScaleliteError as error:
        click.echo(f"Error: {error.message}", err=True)
        return 1
    return 0
