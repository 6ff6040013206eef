"""export: the live cluster as an inventory, on standard output, in a file, or in a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import click

from scalelite.cli.session import settings_of_process, vault_options, vault_passwords, with_connection
from scalelite.core.model import Section
from scalelite.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from scalelite.flows.export import Live
    from scalelite.inventory.dump import Placed, Written
    from scalelite.inventory.protect import Environment, Way
    from scalelite.settings import Settings
    from scalelite.store.db import Connection

    Protect = Callable[[Sequence[Placed]], Sequence[str | Written | None]]

ORDER: Final[tuple[Section, ...]] = ("cluster", "servers", "tenants")
HEAD: Final = "# Written by scalelite export.\n"
_CHOICES: Final = (
    "--secrets vault (give --vault-password-file), env (lookups; with --env-file, the values), plain, or omit"
)

_CHOICES_OF_UPDATE: Final = "--secrets vault (give --vault-password-file), or plain"


@click.command()
@click.option("-o", "--output", metavar="FILE|FOLDER/", help="Where to; a folder gets a file a section.")
@click.option("--sections", default=",".join(ORDER), show_default=True, metavar="S,T", help="What to write.")
@click.option("--secrets", "way", type=click.Choice(["vault", "env", "plain", "omit"]), help="How to write secrets.")
@click.option("--env-file", type=click.Path(path_type=Path), help="With --secrets env: a file of the values.")
@vault_options
@click.option("--verbose", is_flag=True, help="Add what was observed: state, load, online, bbb_version.")
@click.option("--update", multiple=True, metavar="PATH", help="Edit this inventory so that it says what is live.")
@click.option("-y", "--yes", is_flag=True, help="With --update: do not ask.")
def export(
    output: str | None,
    sections: str,
    way: Way | None,
    env_file: Path | None,
    verbose: bool,
    update: tuple[str, ...],
    yes: bool,
) -> None:
    """Write the live cluster as an inventory, of which a plan says that there are no changes.

    With --update, existing files are edited in place: the lines of what differs alone. The edits are shown, and proved
    on a copy first.

    \b
    Example: scalelite export --secrets env --env-file secrets.env -o inventories/production/
             scalelite export --update inventories/production
    """
    settings = settings_of_process()
    if update:
        if output or env_file or verbose or way in {"env", "omit"}:
            raise UsageError("--update goes with --secrets vault or plain alone", hint="export writes new files")
        _update(settings, update, way, ask=not yes)
        return
    chosen = _sections(sections)
    way, protect, environment = _protection(settings, way)
    if env_file is not None and environment is None:
        raise UsageError("--env-file is for --secrets env")
    if output is not None and _is_folder(output):
        _refuse_others(Path(output))
    texts = _exported(with_connection(settings, _read, doing="export"), chosen, protect, verbose=verbose)
    if env_file is not None and environment is not None:
        from scalelite.inventory.write import write_whole  # noqa: PLC0415

        write_whole(env_file, environment.file(), private=True)
        click.echo(f"Wrote {env_file}", err=True)
    _write(output, texts, private=way == "plain")


def _update(settings: Settings, paths: tuple[str, ...], way: Way | None, *, ask: bool) -> None:
    """A way to write secrets is needed only where one is written."""
    from scalelite.cli.update import bring_home  # noqa: PLC0415 - only for this

    def protect(secrets: Sequence[Placed]) -> Sequence[str | Written | None]:
        return _protection(settings, way, _CHOICES_OF_UPDATE)[1](secrets) if secrets else ()

    if "-" in paths:
        raise UsageError("standard input cannot be edited", hint="name a file or a folder")
    bring_home(settings, paths, with_connection(settings, _read, doing="export").declared, protect, ask=ask)


async def _read(connection: Connection) -> Live:
    from scalelite.flows import export as flow  # noqa: PLC0415

    return await flow.read(connection)


def _exported(live: Live, sections: Sequence[Section], protect: Protect, *, verbose: bool) -> dict[Section, str]:
    from scalelite.flows import export as flow  # noqa: PLC0415

    return flow.export(live, sections, protect, verbose=verbose)


def _sections(text: str) -> tuple[Section, ...]:
    wanted = {name.strip() for name in text.split(",")}
    if unknown := sorted(wanted - set(get_args(Section))):
        raise UsageError(f"no section is named {unknown[0]!r}", hint=f"sections are {', '.join(ORDER)}")
    return tuple(section for section in ORDER if section in wanted)


def _protection(
    settings: Settings, way: Way | None, choices: str = _CHOICES
) -> tuple[Way, Protect, Environment | None]:
    """Return how secrets are written, by which function, and what then holds their values for --env-file."""
    from scalelite.inventory import protect  # noqa: PLC0415

    match way:
        case "plain":
            return way, protect.in_clear, None
        case "omit":
            return way, protect.left_out, None
        case "env":
            environment = protect.Environment()
            return way, environment, environment
    if not (passwords := vault_passwords(settings)):
        raise UsageError("secrets cannot be encrypted: no vault password is configured", hint=f"choose {choices}")
    return "vault", protect.Vault(passwords[0], _shown), None


def _shown(vaults: Iterable[Written], count: int) -> Iterable[Written]:
    """Show how far the encryption is, on a terminal: 10,000 secrets take half a minute."""
    if not sys.stderr.isatty():
        return vaults
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import track  # noqa: PLC0415

    return track(vaults, "Encrypting", count, console=Console(stderr=True), transient=True)


def _is_folder(output: str) -> bool:
    return output.endswith("/") or Path(output).is_dir()


def _refuse_others(folder: Path) -> None:
    """Refuse a folder with anything of an inventory that export did not write: it would be lost, or contradict."""
    others = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in {".yml", ".yaml"} or path.parent.name in {"group_vars", "host_vars"}
        if path.is_file() and "policies" not in path.relative_to(folder).parts and not _is_ours(path)
    )
    if others:
        raise UsageError(
            f"{folder} holds an inventory of its own ({others[0].relative_to(folder)})",
            hint="give an empty folder, or a file",
        )


def _is_ours(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return path.stem in ORDER and file.readline() == HEAD


def _write(output: str | None, texts: Mapping[Section, str], *, private: bool) -> None:
    from scalelite.inventory.write import write_whole  # noqa: PLC0415

    if output is not None and _is_folder(output):
        for section, text in texts.items():
            write_whole(path := Path(output) / f"{section}.yml", HEAD + text, private=private)
            click.echo(f"Wrote {path}", err=True)
        return
    text = "\n".join([HEAD.rstrip("\n"), *texts.values()])
    if output is None or output == "-":
        sys.stdout.write(text)
    else:
        write_whole(Path(output), text, private=private)
        click.echo(f"Wrote {output}", err=True)
