"""Runs playbooks as Ansible's linear strategy does: a task with all targets of a batch, then the next task."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from scalelite.core.model import Kind
from scalelite.errors import ScaleliteError, TaskFailed, UsageError
from scalelite.flows import playbooks
from scalelite.flows.playbooks import PlayTargets
from scalelite.playbook.book import SECTIONS, Block, Task
from scalelite.playbook.context import TaskContext
from scalelite.playbook.options import chosen
from scalelite.playbook.output import Ended
from scalelite.playbook.registry import Outcome, Target
from scalelite.playbook.tally import Tally
from scalelite.playbook.targets import batches, bounds, select
from scalelite.playbook.tasks import Done, TaskRun
from scalelite.playbook.templates import Layer, Scope
from scalelite.playbook.together import first_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from scalelite.flows.playbooks import Journal
    from scalelite.playbook.book import Item, Play, Playbook
    from scalelite.playbook.options import Options
    from scalelite.playbook.output import Output
    from scalelite.playbook.templates import Templates
    from scalelite.playbook.world import Bounds, World

_DEEPEST: Final = 20


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where in a play the run is: the batch and, in an included file, what it was included with."""

    play: Play
    batch: tuple[str, ...]
    bounds: Bounds
    prefix: str = ""
    layers: tuple[Layer, ...] = ()
    guarded: bool = False
    depth: int = 0


class Runner:
    """One run of a playbook; `journal` is None in check mode, which writes nothing."""

    def __init__(  # noqa: PLR0917 - what a run is made of
        self,
        playbook: Playbook,
        options: Options,
        world: World,
        templates: Templates,
        output: Output,
        journal: Journal | None = None,
        load: Callable[[Path], Mapping[Path, tuple[Item, ...]]] | None = None,
    ) -> None:
        self._playbook = playbook
        self._options = options
        self._world = world
        self._templates = templates
        self._output = output
        self._journal = journal
        self._load = load
        self._tally = Tally(journal)
        self._started = not options.start_at
        self._confirm = options.confirm
        self._broken = False

    @property
    def number(self) -> int:
        """The run's number in the journal; 0 in check mode."""
        return self._journal.run if self._journal else 0

    async def run(self) -> Ended:
        """Run all plays; an interruption is kept in the journal before it goes on."""
        try:
            await self._plays()
        except BaseException as error:
            # Nothing was begun where a pattern matches nothing, or another run has a server.
            begun = bool(self._tally.counts) or not isinstance(error, ScaleliteError)
            if self._journal:
                await asyncio.shield(self._journal.end("interrupted") if begun else self._journal.drop())
            if begun:
                await self._end(interrupted=True)
            raise
        ended = await self._end()
        if self._journal:
            await self._journal.end("failed" if ended.failed else "done")
        return ended

    async def _end(self, *, interrupted: bool = False) -> Ended:
        journal = self._journal
        held = await playbooks.holds_by(self._world.services, self._world.actor) if journal else {}
        ended = Ended(self._tally.counts, held, self.number, interrupted)
        self._output.end(ended)
        return ended

    # --- plays --------------------------------------------------------------------------------------------------------

    async def _plays(self) -> None:
        anybody = False
        for index, play in enumerate(self._playbook.plays):
            targets, bounds = await self._targets(index, play)
            anybody = anybody or bool(targets)
            targets = [name for name in targets if name not in self._tally.lost]
            self._output.play(play, targets)
            for batch in batches(play.words.serial, targets):
                await self._batch(play, batch, bounds)
                if self._broken or self._tally.lost.issuperset(batch):
                    return
        if self._options.limit and not anybody:
            raise UsageError("--limit leaves no target of any play", hint="see --list-servers")

    async def targets_of(self, play: Play) -> list[str]:
        """Return whom a play is about, by name, in its order; '' is the cluster."""
        return self._ordered(play, await self._within(play, await self._meant(play)))

    async def _meant(self, play: Play) -> list[str]:
        """Return what a play's pattern names, whatever --limit says."""
        words = play.words
        scope = Scope(self._templates, self._common_layers(play))
        written = self._templates.value(list(words.servers or words.tenants), scope, play.folder)
        if not written:
            return [""]
        kind = Kind.SERVER if words.servers else Kind.TENANT
        seen = await self._world.seen(check=self._options.check)
        patterns = [str(text) for part in written for text in (part if isinstance(part, list) else [part])]
        return select(patterns, kind, seen, self._options.groups, self._options.read_names)

    async def _within(self, play: Play, names: list[str]) -> list[str]:
        if not self._options.limit or names == [""]:
            return names
        kind = Kind.TENANT if play.words.tenants else Kind.SERVER
        seen = await self._world.seen(check=self._options.check)
        limit = select(self._options.limit, kind, seen, self._options.groups, self._options.read_names)
        return [name for name in names if name in limit]

    def _ordered(self, play: Play, names: list[str]) -> list[str]:
        match play.words.order:
            case "reverse_sorted" | "reverse_inventory":
                return names[::-1]
            case "shuffle":
                return self._world.services.random.sample(names, len(names))
            case "inventory" | "sorted":
                return names

    async def _targets(self, index: int, play: Play) -> tuple[list[str], Bounds]:
        found = self._journal.targets.get(index) if self._journal else None
        if found is None:
            meant = await self._meant(play)
            found = PlayTargets(self._ordered(play, await self._within(play, meant)), meant)
        if self._journal:
            await self._journal.lock(index, found, servers=bool(play.words.servers))
        return found.targets, bounds(play, found.meant)

    async def _batch(self, play: Play, batch: Sequence[str], bounds: Bounds) -> None:
        frame = _Frame(play, tuple(batch), bounds)
        for section in SECTIONS:
            left = [name for name in batch if name not in self._tally.lost]
            self._tally.lost |= await self._items(getattr(play, section), left, frame)
            await self._handlers(replace(frame, prefix=f"{section}!"))
            if self._broken:
                return

    async def _handlers(self, frame: _Frame) -> None:
        """Run what was notified, in the order in which the handlers stand."""
        for handler in frame.play.handlers:
            notified = self._tally.notified_of(handler, frame.play.handlers)
            targets = [name for name in frame.batch if name in notified and name not in self._tally.lost]
            if targets:
                self._tally.lost |= await self._task(handler, targets, frame, handler=True)

    # --- tasks of a batch: each returns the targets that failed -------------------------------------------------------

    async def _items(self, items: Iterable[Item], targets: Sequence[str], frame: _Frame) -> set[str]:
        failed: set[str] = set()
        for item in items:
            left = [name for name in targets if name not in failed]
            if not left:
                break
            if isinstance(item, Block):
                failed |= await self._block(item, left, frame)
            else:
                failed |= await self._task(item, left, frame)
        return failed

    async def _block(self, block: Block, targets: Sequence[str], frame: _Frame) -> set[str]:
        guarded = replace(frame, guarded=True) if block.rescue else frame
        before = self._tally.failures(targets)
        failed = await self._items(block.tasks, targets, guarded)
        if block.rescue and failed:
            rescuing = [name for name in targets if name in failed]
            failed = await self._items(block.rescue, rescuing, frame)
            self._tally.rescue(set(rescuing) - failed, before)
        failed |= await self._items(block.always, targets, frame)
        return failed

    async def _task(self, task: Task, targets: Sequence[str], frame: _Frame, *, handler: bool = False) -> set[str]:
        if not (handler or self._is_next(task)) or not self._confirmed(task):
            return set()
        self._templates.renew()
        once = task.module.once or self._switch(task.words.run_once, task, frame, targets[0])
        step = f"{frame.prefix}{task.where}"
        before = {name: self._tally.before(step, name) for name in targets}
        doing = [name for name in targets if before[name]][:1] or targets[:1] if once else targets
        if anew := [name for name in doing if before[name] is None]:
            self._tally.begin(anew)
            self._output.task(self._named(task, frame, targets[0]), anew, handler=handler)
        results = await self._with_all(task, doing, frame, step, before)
        failed = {name for name, done in results.items() if done.failed}
        await self._tally.fail(failed, step, guarded=frame.guarded)
        including = task.module.name == "include_tasks"
        for name, done in results.items():
            if not including or done.status not in {"ok", "changed"}:  # of an include, each file counts
                self._tally.count(name, done, guarded=frame.guarded)
            self._tally.remember(task, name, [*targets] if once else [name], done)
        if including:
            failed |= await self._included(task, results, frame, step)
        return self._all_failed(task, targets, failed, frame, once=once)

    def _all_failed(
        self, task: Task, targets: Sequence[str], failed: set[str], frame: _Frame, *, once: bool
    ) -> set[str]:
        """Return who failed: all, where one failure is that of all, or too many have failed."""
        if not failed:
            return failed
        if once or self._switch(task.words.any_errors_fatal, task, frame, targets[0]):
            self._broken = self._broken or not frame.guarded
            return set(targets)
        limit = frame.play.words.max_fail_percentage
        if limit is None or frame.guarded:
            return failed
        scope = Scope(self._templates, self._common_layers(frame.play))
        most = _number(self._templates.value(limit, scope), "max_fail_percentage") / 100 * len(frame.batch)
        if len(self._tally.lost) > most:
            self._broken = True
            return set(targets)
        return failed

    def _is_next(self, task: Task) -> bool:
        if not self._started and (
            task.name == self._options.start_at or fnmatchcase(task.name, self._options.start_at)
        ):
            self._started = True
        return self._started and chosen(task.words.tags, self._options)

    def _confirmed(self, task: Task) -> bool:
        return self._confirm is None or self._confirm(task.name)

    def _switch(self, value: bool | str, task: Task, frame: _Frame, target: str) -> bool:
        return (
            value if isinstance(value, bool) else self._templates.condition(value, self._scope(task, target, frame, {}))
        )

    def _named(self, task: Task, frame: _Frame, target: str) -> Task:
        """Return the task with its name rendered, as far as that can be."""
        if "{{" not in task.words.name:
            return task
        try:
            name = str(self._templates.value(task.words.name, self._scope(task, target, frame, {})))
        except TaskFailed:
            return task
        return replace(task, words=task.words.model_copy(update={"name": name}))

    # --- one task with its targets ------------------------------------------------------------------------------------

    async def _with_all(
        self, task: Task, names: Sequence[str], frame: _Frame, step: str, before: Mapping[str, Done | None]
    ) -> dict[str, Done]:
        throttle = task.words.throttle
        if isinstance(throttle, str):
            throttle = int(_number(self._templates.value(throttle, self._scope(task, names[0], frame, {})), "throttle"))
        most = len(names) if task.module.instant else self._options.forks
        slots = asyncio.Semaphore(throttle if throttle > 0 else most)

        async def with_one(name: str) -> Done:
            if (known := before[name]) is not None:
                return known
            async with slots:
                done = await self._with_one(task, name, frame)
            self._output.result(name, done, rescued=frame.guarded and done.failed)
            await self._tally.keep(task, step, name, done)
            return done

        try:
            async with asyncio.TaskGroup() as group:
                running = {name: group.create_task(with_one(name)) for name in names}
        except BaseExceptionGroup as failures:
            raise first_of(failures) from None
        return {name: doing.result() for name, doing in running.items()}

    async def _with_one(self, task: Task, name: str, frame: _Frame) -> Done:
        target = self._target(frame.play, name)
        check = self._options.check
        if task.words.check_mode is not None:
            check = self._switch(task.words.check_mode, task, frame, name)
        known = await self._world.facts(target, check=check)
        scope = self._scope(task, name, frame, known)

        def context(scope: Scope) -> TaskContext:
            return TaskContext(self._world, target, check, frame.bounds, self._templates, scope)

        def retrying(what: str) -> None:
            self._output.note(f"FAILED - RETRYING: [{name or 'cluster'}]: {what}.")

        if task.module.name == "include_tasks":
            task = replace(task, module=replace(task.module, run=_include))
        return await TaskRun(task, target, self._templates, scope, context, retrying).run()

    @staticmethod
    def _target(play: Play, name: str) -> Target:
        if not name:
            return Target("cluster")
        return Target("tenant" if play.words.tenants else "server", name)

    # --- included files -----------------------------------------------------------------------------------------------

    async def _included(self, task: Task, results: Mapping[str, Done], frame: _Frame, step: str) -> set[str]:
        """Do the tasks of included files, each with the targets that include it with the same variables."""
        groups: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
        for name, done in results.items():
            every = done.data.get("results", [done.data]) if not done.failed else []
            for data in every:
                if "include" in data:
                    self._tally.counts[name]["ok"] += 1
                    key = json.dumps(data, sort_keys=True, default=str)
                    groups.setdefault(key, (data, []))[1].append(name)
        failed: set[str] = set()
        for at, (data, names) in enumerate(groups.values()):
            left = [name for name in names if name not in failed]
            variable = data.get("ansible_loop_var")
            loop = (Layer({variable: data[variable]}, raw=False),) if variable else ()
            inner = replace(
                frame,
                prefix=f"{step}.{at}>",
                layers=(*loop, Layer(task.words.vars, raw=True, folder=task.folder), *frame.layers),
                depth=frame.depth + 1,
            )
            if inner.depth > _DEEPEST:
                raise ScaleliteError(f"{task.place}: files include each other more than {_DEEPEST} deep")
            failed |= await self._items(self._items_of(task.folder / data["include"]), left, inner)
        return failed

    def _items_of(self, path: Path) -> tuple[Item, ...]:
        if path not in self._playbook.included and self._load is not None:
            self._playbook.included.update(self._load(path))
        return self._playbook.included[path]

    # --- variables ----------------------------------------------------------------------------------------------------

    def _common_layers(self, play: Play) -> tuple[Layer, ...]:
        return (
            Layer(self._options.extra_vars, raw=True),
            Layer(play.file_vars, raw=True, folder=play.folder),
            Layer(play.words.vars, raw=True, folder=play.folder),
        )

    def _scope(self, task: Task, name: str, frame: _Frame, known: Mapping[str, Any]) -> Scope:
        """Return the variables of a task, the strongest first: as in Ansible, but that nothing hides the magic ones."""
        kind = self._target(frame.play, name).kind
        magic: dict[str, Any] = {
            **({kind: known} if kind != "cluster" else {}),
            "inventory_hostname": name or "cluster",
            "groups": {group: sorted(servers) for group, servers in self._options.groups.items()},
            "ansible_check_mode": self._options.check,
            "ansible_play_batch": list(frame.batch),
            "ansible_play_name": frame.play.name,
        }
        extra, files, play = self._common_layers(frame.play)
        return Scope(
            self._templates,
            (
                Layer(magic, raw=False),
                extra,
                *frame.layers,
                Layer(self._tally.facts[name], raw=False),
                Layer(task.words.vars, raw=True, folder=task.folder),
                files,
                play,
            ),
        )


def _number(value: Any, what: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TaskFailed(f"{what}: must be a number") from None


async def _include(args: Any, _: object) -> Outcome:
    """Note which file is included; the runner does its tasks."""
    return Outcome(data={"include": args.file})
