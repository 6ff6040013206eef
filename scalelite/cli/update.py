"""export --update: shows the edits of an inventory, proves them on a copy, and puts that in place of the original."""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scalelite.cli.session import confirmed, read_inventory
from scalelite.core.align import identified
from scalelite.core.model import MASK, ServerSpec, SettingSpec, TenantSpec, secrets_of
from scalelite.core.plan import diff
from scalelite.errors import InventoryInvalid, UpdateImpossible, UsageError
from scalelite.inventory.proof import is_proved_by_parts
from scalelite.inventory.update import update
from scalelite.inventory.write import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from scalelite.core.model import AnySpec, Declared, Secret
    from scalelite.inventory.load import Inventory
    from scalelite.inventory.update import Protect, Update
    from scalelite.settings import Settings


def bring_home(settings: Settings, paths: Sequence[str], live: Declared, protect: Protect, *, ask: bool) -> None:
    """Edit the inventories at some paths so that they say what is live, or leave them as they are.

    Raises UpdateImpossible where that cannot be, UsageError where nobody confirms it.
    """
    loaded = _known_by_urls(read_inventory(settings, paths, tell_warnings=False), live)
    found = update(loaded, live, protect, [Path(path) for path in paths if Path(path).is_dir()])
    if found.problems:
        raise UpdateImpossible("; ".join(found.problems))
    if not found.files:
        click.echo("No changes. The inventory says what is live.", err=True)
        return
    click.echo(_masked("".join(_differences(found)), loaded, live), nl=False)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    _prove(settings, paths, found, loaded, live)
    if ask:
        if not sys.stdin.isatty():
            raise UsageError("nobody is there to confirm", hint="give --yes to write without asking")
        if not confirmed("Write these changes?"):
            raise UsageError("not confirmed, nothing was written")
    _refuse_changed(loaded)
    for path, text in found.files.items():
        _write(Path(path), text)
    click.echo(f"Wrote {', '.join(found.files)}. A plan of it is empty.", err=True)


def _differences(found: Update) -> Iterator[str]:
    for path, changed in found.hunks.items():
        for hunk in changed:
            yield f"{path}:{hunk.line}\n"
            yield from (f"-{line}\n" for line in hunk.before.splitlines())
            yield from (f"+{line}\n" for line in hunk.after.splitlines())


def _masked(text: str, loaded: Inventory, live: Declared) -> str:
    """Take every secret out of a text that is shown; the longer ones first, since one may hold another."""
    specs = [*loaded.wanted.objects.values(), *live.objects.values()]
    secrets = {secret.reveal() for spec in specs for secret in _secrets_of(spec)}
    # Not each of 20,000 secrets is looked for in the text, but each piece of the text that is as long as some of them.
    found = {
        piece
        for length in {len(secret) for secret in secrets if secret}
        for at in range(len(text) - length + 1)
        if (piece := text[at : at + length]) in secrets
    }
    for secret in sorted(found, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def _secrets_of(spec: AnySpec) -> Iterable[Secret]:
    """Return the secrets of an object; what is true of any value takes ten times as long to find them."""
    match spec:
        case ServerSpec():
            return spec.secret, spec.previous_secret
        case TenantSpec():
            return spec.secrets
        case SettingSpec():
            return ()
    return secrets_of(spec)


# --- proof -----------------------------------------------------------------------------------------------------------


def _prove(settings: Settings, paths: Sequence[str], found: Update, loaded: Inventory, live: Declared) -> None:
    """Edit a copy and plan it; raises UpdateImpossible unless the plan is empty."""
    if is_proved_by_parts(found, loaded.wanted, live, partial(_of_copy, settings, paths, live)):
        return
    try:
        wanted = _of_copy(settings, paths, live, found.files)
    except InventoryInvalid as error:
        first = error.problems[0].text(caret=False)  # type: ignore[attr-defined]
        raise UpdateImpossible(f"the edited copy would not load: {first}") from None
    if left := diff(live, wanted).changes:
        addresses = ", ".join(change.key.address for change in left[:3])
        raise UpdateImpossible(f"the edited copy would still differ in {len(left)} objects ({addresses})")


def _known_by_urls(loaded: Inventory, live: Declared) -> Inventory:
    """Return an inventory with the servers of its list form under the ids that they have in the cluster."""
    return replace(loaded, wanted=identified(live, loaded.wanted, loaded.ids_from_urls))


def _of_copy(settings: Settings, paths: Sequence[str], live: Declared, texts: Mapping[str, str | None]) -> Declared:
    """Load a copy of the inventories with these texts in place of theirs; raises InventoryInvalid."""
    with ExitStack() as stack:
        copies = [_copied(Path(path), texts, stack) for path in paths]
        loaded = read_inventory(settings, [str(copy) for copy in copies], tell_warnings=False)
    return _known_by_urls(loaded, live).wanted


def _copied(path: Path, texts: Mapping[str, str | None], stack: ExitStack) -> Path:
    """Copy an inventory with its edits: a folder to a place of its own, a file beside itself, for its lookups."""
    if not path.is_dir():
        copy = path.with_name(f".{path.name}.update.yml")
        stack.callback(copy.unlink, missing_ok=True)
        text = texts.get(str(path))
        write_whole(copy, path.read_text(encoding="utf-8") if text is None else text, private=True)
        return copy
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scalelite-"))) / path.name
    shutil.copytree(path, copy)
    for name, text in texts.items():
        if Path(name).is_relative_to(path):
            place = copy / Path(name).relative_to(path)
            if text is None:
                place.unlink()
            else:
                write_whole(place, text, private=True)
    return copy


def _refuse_changed(loaded: Inventory) -> None:
    for file in loaded.files:
        if sha256(Path(file.path).read_bytes()).hexdigest() != file.sha256:
            raise UpdateImpossible(f"{file.path} was changed meanwhile")


def _write(path: Path, text: str | None) -> None:
    """Write a file whole; one that is there keeps its mode, a new one is this user's alone: it may hold secrets."""
    if text is None:
        path.unlink()
        return
    mode = path.stat().st_mode if path.exists() else None
    write_whole(path, text, private=True)
    if mode is not None:
        path.chmod(mode & 0o777)
