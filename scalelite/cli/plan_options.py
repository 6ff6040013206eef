"""The options that plan and apply share, and what they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import click

from scalelite.core.model import Section
from scalelite.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from scalelite.core.plan import Mode

Style = Literal["text", "json", "markdown"]

GUARDS: Final = (
    "removals", "tenant-removals", "updates", "tenant-updates", "reach", "capacity", "tenants-without-server",
)  # fmt: skip
REPORTS: Final = ("text", "json", "markdown", "junit", "gitlab-terraform")
_DURATION: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([sm]?)")
# What a saved plan says itself, so that it cannot be said beside it.
SCOPE: Final = ("inventory", "mode", "limit", "exclude", "sections", "tenant_data", "release_holds", "refresh")


@dataclass(frozen=True, slots=True)
class Options:
    """What the options say."""

    mode: Mode
    limit: tuple[str, ...]
    exclude: tuple[str, ...]
    sections: tuple[str, ...]
    tenant_data: str
    release_holds: bool
    refresh: bool
    allow: Mapping[str, int]
    style: Style
    out: Sequence[tuple[str, Path]]
    summary: bool
    full: bool
    show_unchanged: bool
    show_unmanaged: bool
    no_color: bool


def plan_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets them as one argument `options`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def options_of(given: dict[str, Any]) -> Options:
    """Take the options out of a command's arguments; raises UsageError."""
    names = {name: given.pop(name) for name in Options.__slots__}
    return Options(
        **{
            **names,
            "sections": _sections(names["sections"]),
            "tenant_data": _tenant_data(names["tenant_data"]),
            "allow": allowances(names["allow"]),
            "out": _reports(names["out"]),
        }
    )


def given_beside(context: click.Context) -> list[str]:
    """Return the options of the scope that the command line gives."""
    default = click.core.ParameterSource.DEFAULT
    return [f"--{name.replace('_', '-')}" for name in SCOPE if context.get_parameter_source(name) is not default]


def _sections(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := [name for name in names if name not in get_args(Section)]:
        raise UsageError(
            f"--sections: there is no section {unknown[0]!r}", hint=f"known: {', '.join(get_args(Section))}"
        )
    return names


def _tenant_data(text: str) -> str:
    if text in {"", "keep", "delete"} or (text.startswith("move:") and text != "move:"):
        return text
    raise UsageError(f"--tenant-data {text}: expected keep, delete or move:TENANT")


def allowances(pairs: tuple[str, ...]) -> dict[str, int]:
    """Return the counts that guards let pass; raises UsageError."""
    allowed: dict[str, int] = {}
    for pair in pairs:
        guard, equals, count = pair.partition("=")
        if guard not in GUARDS and not guard.startswith("policy:"):
            raise UsageError(f"--allow: there is no guard {guard!r}", hint=f"known: {', '.join(GUARDS)}, policy:NAME")
        if not equals or not count.isascii() or not count.isdigit():
            raise UsageError(f"--allow {pair}: expected an exact count", hint=f"such as --allow {guard}=11")
        allowed[guard] = int(count)
    return allowed


def _reports(pairs: tuple[str, ...]) -> list[tuple[str, Path]]:
    reports = []
    for pair in pairs:
        kind, equals, file = pair.partition("=")
        if kind not in REPORTS or not equals or not file:
            raise UsageError(f"--out {pair}: expected KIND=FILE", hint=f"kinds: {', '.join(REPORTS)}")
        reports.append((kind, Path(file)))
    return reports


def _seconds(context: click.Context, option: click.Parameter, text: str) -> float:  # noqa: ARG001 - click's
    if (found := _DURATION.fullmatch(text)) is None:
        raise UsageError(f"--lock-timeout {text}: expected seconds", hint="such as 30, 30s or 2m")
    return float(found[1]) * (60.0 if found[2] == "m" else 1.0)


lock_timeout_option = click.option(
    "--lock-timeout",
    default="30s",
    callback=_seconds,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for another apply: 30, 30s or 2m.",
)

_OPTIONS: Final = (
    click.option(
        "--mode",
        type=click.Choice(["keep", "cordon", "force"]),
        default="cordon",
        show_default=True,
        help="Undeclared servers: keep all; remove empty ones and cordon the others; end their meetings.",
    ),
    click.option(
        "--limit", multiple=True, metavar="PATTERN", help="Only these: bbb*, large:&online, all:!bbb3, ~regex, tag=gpu."
    ),
    click.option("--exclude", multiple=True, metavar="PATTERN", help="All but these."),
    click.option("--sections", default="", metavar="NAME,…", help="Only these of servers, tenants and cluster."),
    click.option(
        "--tenant-data",
        default="",
        metavar="POLICY",
        help="Recordings of removed tenants: keep, delete or move:TENANT.",
    ),
    click.option("--release-holds", is_flag=True, help="Lift what operators and playbooks hold."),
    click.option("--refresh", is_flag=True, help="Poll the servers first."),
    click.option("--allow", multiple=True, metavar="GUARD=N", help="Let a guard pass that counts exactly N."),
    click.option(
        "--format",
        "style",
        type=click.Choice(["text", "json", "markdown"]),
        default="text",
        show_default=True,
        help="What goes to standard output.",
    ),
    click.option("--out", multiple=True, metavar="KIND=FILE", help=f"Also write a report: {', '.join(REPORTS)}."),
    click.option("--summary", is_flag=True, help="Totals, guards and deletes alone."),
    click.option("--full", is_flag=True, help="List identical changes one by one."),
    click.option("--show-unchanged", is_flag=True, help="Name what is as it shall be, too."),
    click.option("--show-unmanaged", is_flag=True, help="Name objects of sections that the inventory does not have."),
    click.option("--no-color", is_flag=True, help="No colour on a terminal; as NO_COLOR."),
)
