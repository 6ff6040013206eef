"""What a playbook is once it is read: plays, blocks and tasks, each with its keywords and its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from scalelite.playbook.values import (
    Args,
    Conditions,
    Duration,
    Share,
    Shares,
    Switch,
    Template,
    Texts,
    Words,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from scalelite.core.model import Place
    from scalelite.playbook.registry import Module


class LoopControl(Args):
    """How a loop goes."""

    loop_var: str = Field("item", pattern=r"^[A-Za-z_]\w*$", description="Name of the item.", examples=["tenant_name"])
    index_var: str = Field("", description="Name of the item's number from 0.", examples=["at"])
    label: str = Field("", description="What to show of the item.", examples=["{{ item.name }}"])
    extended: bool = Field(False, description="Say in `ansible_loop` which of how many it is.", examples=[True])
    pause: Duration | Template = Field(0.0, description="How long to wait between items.", examples=["5s"])


class SharedWords(Args):
    """Keywords that stand anywhere and count for all tasks within; the innermost wins."""

    ignore_errors: Switch = Field(False, description="Go on when it fails.", examples=[True])
    run_once: Switch = Field(False, description="Only with the first target, for all.", examples=[True])
    no_log: Switch = Field(False, description="Show nothing of its result.", examples=[True])
    check_mode: Switch | None = Field(None, description="Whatever --check says: true, or false.", examples=[True])
    any_errors_fatal: Switch = Field(False, description="When one target fails, all do.", examples=[True])
    throttle: int | Template = Field(0, description="With at most so many targets at once.", examples=[1])


class BlockWords(SharedWords):
    """Keywords of blocks, which their tasks take over; and of tasks."""

    name: str = Field("", description="What is done, for people.", examples=["Take no new meetings"])
    when: Conditions = Field((), description="Only if all of these are so.", examples=["upgrade is succeeded"])
    tags: Words = Field((), description="Names for --tags and --skip-tags.", examples=[["upgrade"]])
    vars: dict[str, Any] = Field({}, description="Variables.", examples=[{"wanted": 3}])


class TaskWords(BlockWords):
    """Keywords of tasks."""

    loop: list[Any] | Template | None = Field(None, description="Do it for each of these.", examples=[["a", "b"]])
    loop_control: LoopControl = Field(LoopControl(), description="How the loop goes.", examples=[{"loop_var": "t"}])
    register_as: str = Field(
        "", alias="register", pattern=r"^([A-Za-z_]\w*)?$", description="Keep the result so.", examples=["result"]
    )
    until: Conditions = Field((), description="Do it again until this is so.", examples=["result.online"])
    retries: int | Template | None = Field(None, description="How often again; 3, with until.", examples=[20])
    delay: Duration | Template = Field(5.0, description="How long to wait before the next try.", examples=["15s"])
    changed_when: Conditions | None = Field(None, description="Whether that is a change.", examples=["false"])
    failed_when: Conditions | None = Field(None, description="Whether that is a failure.", examples=["result.rc > 1"])
    notify: Words = Field((), description="Handlers to run at the end if it changed.", examples=["Tell the chat"])


class HandlerWords(TaskWords):
    """Keywords of handlers."""

    listen: Words = Field((), description="More names that it is notified by.", examples=["upgraded"])


class PlayWords(SharedWords):
    """Keywords of plays, besides their tasks."""

    name: str = Field("", description="What the play does, for people.", examples=["Rolling upgrade"])
    servers: Texts = Field((), description="Which servers: a pattern.", examples=["large:&online"])
    tenants: Texts = Field((), description="Which tenants: a pattern; in place of servers.", examples=["all"])
    vars: dict[str, Any] = Field({}, description="Variables.", examples=[{"drain_timeout": "2h"}])
    vars_files: Texts = Field((), description="Files of variables, beside the playbook.", examples=[["vars.yml"]])
    serial: Shares = Field((), description="How many at a time; the last counts for the rest.", examples=[[1, "25 %"]])
    max_fail_percentage: float | Template | None = Field(
        None, description="Stop when more of a batch than this failed.", examples=[0]
    )
    min_available: Share | None = Field(
        None, description="So many of the play's servers stay enabled and online.", examples=["50 %"]
    )
    max_unavailable: Share | None = Field(
        None, description="At most so many of the play's servers are not enabled and online.", examples=[1]
    )
    order: Literal["inventory", "sorted", "reverse_sorted", "reverse_inventory", "shuffle"] = Field(
        "inventory", description="In which order.", examples=["sorted"]
    )
    tags: Words = Field((), description="Tags of all of its tasks.", examples=[["upgrade"]])


SECTIONS: Final = ("pre_tasks", "tasks", "post_tasks")


@dataclass(frozen=True, slots=True)
class Task:
    """One task; `where` is its address in the playbook, by which the journal knows it."""

    where: str
    place: Place
    words: TaskWords
    module: Module
    args: Any
    folder: Path

    @property
    def name(self) -> str:
        """What the task is called: its name, or its module's."""
        return self.words.name or self.module.name


@dataclass(frozen=True, slots=True)
class Block:
    """Tasks that are done together, what to do if one fails, and what to do in any case."""

    where: str
    tasks: tuple[Item, ...]
    rescue: tuple[Item, ...] = ()
    always: tuple[Item, ...] = ()


Item = Task | Block


@dataclass(frozen=True, slots=True)
class Play:
    """One play."""

    where: str
    place: Place
    words: PlayWords
    folder: Path
    pre_tasks: tuple[Item, ...] = ()
    tasks: tuple[Item, ...] = ()
    post_tasks: tuple[Item, ...] = ()
    handlers: tuple[Task, ...] = ()
    file_vars: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the play is called: its name, or whom it is about."""
        return self.words.name or ", ".join(self.words.servers or self.words.tenants) or "cluster"

    def each(self) -> Iterator[Task]:
        """Yield all tasks, in order; without handlers."""
        for section in (self.pre_tasks, self.tasks, self.post_tasks):
            yield from flat(section)


def flat(items: tuple[Item, ...]) -> Iterator[Task]:
    """Yield the tasks of some items, in the order in which they stand."""
    for item in items:
        if isinstance(item, Task):
            yield item
        else:
            yield from flat((*item.tasks, *item.rescue, *item.always))


@dataclass(frozen=True, slots=True)
class Playbook:
    """All plays of the files that were named; `digest` is of their text and of all they include."""

    names: tuple[str, ...]
    plays: tuple[Play, ...]
    digest: str
    included: dict[Path, tuple[Item, ...]]
