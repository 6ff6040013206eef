"""validate, explain and schema: what is wrong with an inventory, for people and for CI; no database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import click

from scalelite.cli.outputs import contents
from scalelite.cli.session import inventory_options, read_inventory, settings_of_process
from scalelite.core import show
from scalelite.errors import InventoryInvalid, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalelite.inventory.formats import Style
    from scalelite.inventory.problems import Problem

STYLES = ["text", "json", "github", "gitlab-codequality", "junit", "sarif"]


@click.command()
@inventory_options
@click.option("--format", "style", type=click.Choice(STYLES), default="text", show_default=True)
@click.option("--brief", is_flag=True, help="One line a problem, without the source line and the caret.")
def validate(paths: tuple[str, ...], inventory: tuple[str, ...], style: Literal["text"] | Style, brief: bool) -> int:
    """Check an inventory and report all of its problems; needs no database.

    \b
    Example: scalelite validate inventories/example
             scalelite validate --format sarif inventories/example > validate.sarif
    """
    chosen = [*paths, *inventory]
    problems: Sequence[Problem]
    try:
        loaded = read_inventory(settings_of_process(), chosen, tell_warnings=False)
        problems, valid = loaded.warnings, True
    except InventoryInvalid as error:
        problems, valid = error.problems, False  # type: ignore[assignment]
    if style != "text":
        from scalelite.inventory.formats import formatted  # noqa: PLC0415 - only when asked for

        click.echo(formatted(problems, style), nl=False)
    else:
        _tell(problems, brief=brief)
        if valid:
            click.echo(f"{contents(loaded)}  valid")
    return 0 if valid else InventoryInvalid.exit_status


def _tell(problems: Sequence[Problem], *, brief: bool) -> None:
    """Say the problems, then how many there are, on standard error."""
    for problem in problems:
        click.echo(problem.text(caret=not brief), err=True)
    counts = [
        show.counted(count, severity)
        for severity in ("error", "warning")
        if (count := sum(problem.severity == severity for problem in problems))
    ]
    if counts:
        click.echo(f"{' and '.join(counts)} in the inventory", err=True)


@click.command()
@click.argument("code")
def explain(code: str) -> None:
    """Say more about the code of a problem: what it is, why it counts, and an example wrong and right.

    \b
    Example: scalelite explain SL112
    """
    from scalelite.inventory.explain import page  # noqa: PLC0415
    from scalelite.inventory.problems import CODES, nearest  # noqa: PLC0415

    if code.upper() not in CODES:
        raise UsageError(f"there is no code {code}", hint=nearest(code.upper(), CODES).strip())
    click.echo(page(code.upper()))


@click.command()
@click.argument("what", type=click.Choice(["inventory", "plan", "playbook"]))
def schema(what: str) -> None:
    """Print a JSON schema (draft-07), for editors and other tools.

    \b
    Example: scalelite schema inventory > inventory.schema.json
    """
    from scalelite.core.document import plan_schema  # noqa: PLC0415
    from scalelite.inventory.schema import inventory_schema  # noqa: PLC0415
    from scalelite.playbook.registry import load_modules  # noqa: PLC0415
    from scalelite.playbook.schema import playbook_schema  # noqa: PLC0415

    made = {"inventory": inventory_schema, "plan": plan_schema}.get(what)
    document = made() if made else playbook_schema(load_modules())
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
