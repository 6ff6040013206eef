"""How commands print lists: a table that fits the terminal and is plain in a pipe, JSON, or YAML."""

from __future__ import annotations

import json
import sys
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from scalelite.core import show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

F = TypeVar("F", bound="Callable[..., Any]")
Style = Literal["table", "json", "yaml"]


def format_option(function: F) -> F:
    """Add the option --format, as the parameter `style`."""
    choice = click.Choice(["table", "json", "yaml"])
    return click.option("--format", "style", type=choice, default="table", show_default=True, help="How to print it.")(
        function
    )


def print_list(
    style: Style, heads: Sequence[str], rows: Sequence[Sequence[str]], values: Sequence[Mapping[str, Any]]
) -> None:
    """Print rows as a table, or the values that they stand for."""
    match style:
        case "json":
            click.echo(json.dumps(list(values), indent=2, ensure_ascii=False))
        case "yaml":
            click.echo(to_yaml([dict(value) for value in values]), nl=False)
        case "table" if sys.stdout.isatty():
            print_fitting(heads, rows)
        case "table":
            click.echo(show.table(heads, rows), nl=False)


def to_yaml(value: object, *, explicit: bool = False) -> str:
    """Return plain values as YAML, keys in their order; `explicit` begins with `---`."""
    from ruamel.yaml import YAML  # noqa: PLC0415 - 0.05 s to import

    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.explicit_start = explicit
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 1_000_000
    text = StringIO()
    yaml.dump(value, text)
    return text.getvalue()


def print_fitting(heads: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> None:
    """Print a table on the terminal, its longest cells cut to the width; `styles` colours the rows."""
    from rich.console import Console  # noqa: PLC0415 - 0.1 s to import

    Console().print(fitting(heads, rows, styles))


def fitting(heads: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> Any:
    """Return a table of rich's without lines."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head.upper(), no_wrap=True, overflow="ellipsis")
    for place, row in enumerate(rows):
        cells = [Text(show.plain(cell)) for cell in row]
        table.add_row(*cells, style=styles[place] if place < len(styles) else "")
    return table
