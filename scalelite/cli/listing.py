"""How commands print lists: a table that fits the terminal and is plain in a pipe, JSON, or YAML."""

from __future__ import annotations

import json
import sys
from io import StringIO
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import click

from scalelite.core import show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.text import Text

F = TypeVar("F", bound="Callable[..., Any]")
Style = Literal["table", "json", "yaml"]

# So much is left of a cell in a narrow terminal: names stay readable longest.
_LEAST_OF_A_NAME: Final = 24
_LEAST_OF_A_CELL: Final = 6


class Listing(click.Group):
    """A group of commands that lists where none of them is named: `scalelite servers --format json`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `list` in front of its options; not while a shell asks which commands there are."""
        is_named = bool(args) and (not args[0].startswith("-") or args[0] in self.get_help_option_names(ctx))
        if not is_named and not ctx.resilient_parsing:
            args = ["list", *args]
        return super().parse_args(ctx, args)


class _Style(click.Choice[str]):
    """What --format takes; `text` is as good as `table`, as plans have it."""

    def __init__(self) -> None:
        super().__init__(["table", "json", "yaml"])

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the style."""
        return super().convert("table" if value == "text" else value, param, ctx)


def format_option(function: F) -> F:
    """Add the option --format, as the parameter `style`."""
    return _format_option("table")(function)


def json_format_option(function: F) -> F:
    """Add the option --format of what is made for programs: JSON if nothing is said."""
    return _format_option("json")(function)


def _format_option(default: Style) -> Callable[[F], F]:
    return click.option("--format", "style", type=_Style(), default=default, show_default=True, help="How to print it.")


def print_document(style: Style, value: object, text: Callable[[], str]) -> None:
    """Print one thing, as JSON has it or as text."""
    match style:
        case "json":
            click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        case "yaml":
            click.echo(to_yaml(value), nl=False)
        case "table":
            click.echo(text(), nl=False)


def print_list(
    style: Style, heads: Sequence[str], rows: Sequence[Sequence[str]], values: Sequence[Mapping[str, Any]]
) -> None:
    """Print rows as a table, or the values that they stand for."""
    match style:
        case "json":
            click.echo(json.dumps(list(values), indent=2, ensure_ascii=False))
        case "yaml":
            click.echo(to_yaml(list(values)), nl=False)
        case "table" if sys.stdout.isatty():
            print_fitting(heads, rows)
        case "table":
            click.echo(show.table(heads, rows), nl=False)


def to_yaml(value: object, *, explicit: bool = False) -> str:
    """Return what JSON can say as YAML, keys in their order; `explicit` begins with `---`."""
    from ruamel.yaml import YAML  # noqa: PLC0415 - 0.05 s to import

    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.explicit_start = explicit
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 1_000_000
    text = StringIO()
    yaml.dump(json.loads(json.dumps(value)), text)  # of JSON's own types alone
    return text.getvalue()


def print_fitting(heads: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> None:
    """Print a table on the terminal, its longest cells cut to the width; `styles` colours the rows."""
    from rich.console import Console  # noqa: PLC0415 - 0.1 s to import

    console = Console()
    console.print(fitting(heads, rows, console.width, styles), soft_wrap=True)


def fitting(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int, styles: Sequence[str] = ()) -> Text:
    """Return a table of this width in colours."""
    from rich.text import Text  # noqa: PLC0415

    lines = [heads, *([show.plain(cell) for cell in row] for row in rows)]
    widths = _fitting_widths([max(map(len, column)) for column in zip(*lines, strict=True)], width)
    head, *others = (
        [cell if len(cell) <= most else cell[: most - 1] + "…" for cell, most in zip(line, widths, strict=True)]
        for line in lines
    )
    found = Text(no_wrap=True)
    for place, line in enumerate(show.table(head, others).splitlines()):
        style = "bold" if place == 0 else styles[place - 1] if place <= len(styles) else ""
        found.append(line[:width], style=style).append("\n" if place < len(others) else "")
    return found


def _fitting_widths(wanted: list[int], width: int) -> list[int]:
    """Return the widths of columns, the longest made shorter until all fit, names last."""
    widths = list(wanted)
    while sum(widths) + 2 * (len(widths) - 1) > width:
        spare = [most - (_LEAST_OF_A_NAME if place == 0 else _LEAST_OF_A_CELL) for place, most in enumerate(widths)]
        if max(spare) <= 0:
            break
        widths[spare.index(max(spare))] -= 1
    return widths
