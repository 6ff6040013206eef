"""Writes docs/reference/ and schemas/ from the source: `python docs/generate.py`; a test keeps the pages fresh."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scalelite.cli import cli
from scalelite.core.document import plan_schema
from scalelite.inventory.explain import pages
from scalelite.inventory.problems import CODES
from scalelite.inventory.schema import inventory_schema
from scalelite.playbook.doc import module_page
from scalelite.playbook.registry import load_modules
from scalelite.playbook.schema import playbook_schema
from scalelite.settings import Settings
from scalelite.web.rest_table import OPERATIONS

if TYPE_CHECKING:
    from pydantic import BaseModel

# As the commands have it themselves: click keeps the option of help that a command made first.
_HELP: Any = {"terminal_width": 100, "max_content_width": 100, "help_option_names": ["-h", "--help"]}
REFERENCE = Path(__file__).parent / "reference"


def settings_page() -> str:
    """Return the page of environment variables."""
    rows = [
        f"| {entry.metadata['env']} | {_default(entry)} | {entry.metadata['manual']} |"
        for entry in dataclasses.fields(Settings)
    ]
    head = [
        "# Settings",
        "",
        "From the environment, read once at start. Booleans are `true` or `false` in any letter case.",
        "",
    ]
    return "\n".join([*head, "| variable | default | meaning |", "|---|---|---|", *rows, ""])


def _default(entry: dataclasses.Field[object]) -> str:
    value = entry.default
    if entry.metadata["env"] == "WEB_CONCURRENCY":
        return "processors"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) if value not in {"", (), None} else "-"


def commands_page() -> str:
    """Return the page of commands, as their --help says it."""
    parts = [
        "# Commands",
        "",
        "Exit statuses: 0 done, 1 unexpected, 2 changes (only with `--detailed-exitcode`), 3 invalid inventory,",
    ]
    parts += [
        "4 stale plan, 5 refused by a guard, 6 lock not had, 7 apply rolled back, 8 a playbook failed on some servers,",
        "9 done in part, 64 wrong usage, 130 interrupted.",
        "",
    ]
    for path, command in _walk(cli, ("scalelite",)):
        context = click.Context(command, info_name=" ".join(path), **_HELP)
        parts += [f"## {' '.join(path)}", "", "```", command.get_help(context).rstrip(), "```", ""]
    return "\n".join(parts)


def _walk(command: click.Command, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], click.Command]]:
    found = [(path, command)]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if child := command.get_command(context, name):
                found += _walk(child, (*path, name))
    return found


def problems_page() -> str:
    """Return the page of the codes of problems."""
    explained = pages()
    head = ["# Problems of inventories", "", "`scalelite explain CODE` prints one of these.", ""]
    sections = [f"## {code}\n\n{what}\n\n{explained[code]}\n" for code, what in CODES.items()]
    return "\n".join([*head, *sections])


def modules_page() -> str:
    """Return the page of the modules of playbooks."""
    head = ["# Modules of playbooks", "", "`scalelite playbook doc MODULE` prints one of these.", ""]
    pages = [f"## {name}\n\n```\n{module_page(module)}```\n" for name, module in sorted(load_modules().items())]
    return "\n".join([*head, *pages])


def management_page() -> str:
    """Return the page of the management API's calls, from the table that routes them."""
    rows = [
        f"| `{name}` | {operation.method} | {operation.scope} | {operation.summary} | {_fields(operation.takes)} |"
        for name, operation in OPERATIONS.items()
    ]
    head = [
        "# Calls of the management API",
        "",
        "At `/scalelite/api/CALL`; `/scalelite/api/openapi.json` says it in full.",
        "",
    ]
    return "\n".join(
        [*head, "| call | method | scope | what it does | parameters |", "|---|---|---|---|---|", *rows, ""]
    )


def _fields(model: type[BaseModel]) -> str:
    """Name a model's fields, with those of the object that a body may hold."""
    inner = {name: getattr(field.annotation, "model_fields", {}) for name, field in model.model_fields.items()}
    names = [f"{name}: {', '.join(fields)}" if fields else name for name, fields in inner.items()]
    return "; ".join(names) or "-"


SCHEMAS = {
    f"{name}.schema.json": lambda made=made: json.dumps(made(), indent=2, ensure_ascii=False) + "\n"
    for name, made in {
        "inventory": inventory_schema,
        "plan": plan_schema,
        "playbook": lambda: playbook_schema(load_modules()),
    }.items()
}
PAGES = {
    "management-api.md": management_page,
    "problems.md": problems_page,
    "settings.md": settings_page,
    "commands.md": commands_page,
    "modules.md": modules_page,
}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
    for name, schema in SCHEMAS.items():
        (REFERENCE.parents[1] / "schemas" / name).write_text(schema(), encoding="utf-8")
