"""completion: what a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that lets a shell complete commands, options and their values.

    \b
    Example: scalelite completion bash > /etc/bash_completion.d/scalelite
             scalelite completion zsh > "${fpath[1]}/_scalelite"
             scalelite completion fish > ~/.config/fish/completions/scalelite.fish
    """
    kind = get_completion_class(shell)
    if kind is None:  # click knows all three
        raise click.UsageError(f"no completion for {shell}")
    made = kind(context.find_root().command, {}, "scalelite", "_SCALELITE_COMPLETE")
    click.echo(made.source())
