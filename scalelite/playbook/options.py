"""What a run is asked for, and which tasks that leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from scalelite.errors import UsageError
from scalelite.playbook.book import flat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from scalelite.playbook.book import Playbook


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for; `groups` are names of sets of servers, `read_names` reads the file of `@file`."""

    check: bool = False
    limit: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset({"all"})
    skip_tags: frozenset[str] = frozenset()
    start_at: str = ""
    extra_vars: Mapping[str, Any] = field(default_factory=dict)
    forks: int = 50
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)
    read_names: Callable[[str], Iterable[str]] = lambda _: ()
    confirm: Callable[[str], bool] | None = None


def chosen(tags: Sequence[str], options: Options) -> bool:
    """Say whether a task with these tags is done, by --tags and --skip-tags, as in Ansible."""
    own = frozenset(tags)
    wanted, unwanted = options.tags, options.skip_tags
    named = own or frozenset({"untagged"})
    run = (
        "always" in own
        or ("all" in wanted and "never" not in own)
        or not named.isdisjoint(wanted)
        or ("tagged" in wanted and bool(own) and "never" not in own)
    )
    if not run or not unwanted:
        return run
    if "all" in unwanted:
        return "always" in own and "always" not in unwanted
    return named.isdisjoint(unwanted) and not ("tagged" in unwanted and own)


def refuse_unknown(playbook: Playbook, options: Options) -> None:
    """Raise UsageError for a tag or a task that --tags, --skip-tags or --start-at-task name in vain."""
    tasks = [task for play in playbook.plays for task in play.each()]
    tasks += [task for items in playbook.included.values() for task in flat(items)]
    special = {"all", "tagged", "untagged", "always", "never"}
    known = {tag for task in tasks for tag in task.words.tags}
    for option, tags in (("--tags", options.tags), ("--skip-tags", options.skip_tags)):
        if unknown := sorted(tags - special - known):
            raise UsageError(
                f"{option}: no task has the tag {unknown[0]!r}", hint=f"known: {', '.join(sorted(known)) or 'none'}"
            )
    if options.start_at and not any(
        task.name == options.start_at or fnmatchcase(task.name, options.start_at) for task in tasks
    ):
        raise UsageError(f"--start-at-task: there is no task {options.start_at!r}")
