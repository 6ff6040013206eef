"""One task with one target: its loop, its tries, what counts as changed and failed; knows no other targets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import ValidationError

from scalelite.core.commands import refusal
from scalelite.errors import ApiError, ScaleliteError, TaskFailed
from scalelite.playbook.templates import Layer
from scalelite.playbook.values import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from scalelite.playbook.book import Task
    from scalelite.playbook.registry import Context, Outcome, Target
    from scalelite.playbook.templates import Scope, Templates
    from scalelite.playbook.values import Conditions

Status = Literal["ok", "changed", "skipped", "failed", "unreachable"]

_RETRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a task with a target; `data` is what register keeps."""

    status: Status
    data: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    diff: tuple[str, ...] = ()
    no_log: bool = False
    ignored: bool = False
    items: tuple[tuple[str, Done], ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the target goes no further."""
        return self.status in {"failed", "unreachable"} and not self.ignored

    @property
    def changed(self) -> bool:
        """Whether it has changed something, failed or not."""
        return bool(self.data.get("changed"))


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task that is done with one target."""

    task: Task
    target: Target
    templates: Templates
    scope: Scope
    context: Callable[[Scope], Context]
    retrying: Callable[[str], None]

    async def run(self) -> Done:
        """Do it; what goes wrong is in what it returns."""
        words = self.task.words
        try:
            no_log = self.switch(words.no_log)
            done = await (self._once(self.scope) if words.loop is None else self._looped())
            ignored = done.status in {"failed", "unreachable"} and self.switch(words.ignore_errors)
            return replace(done, ignored=ignored, no_log=no_log)
        except TaskFailed as error:
            return replace(_failure(error), no_log=words.no_log is not False)

    def switch(self, value: bool | str) -> bool:
        """Return a keyword that is true, false or a template; raises TaskFailed."""
        return self.templates.condition(value, self.scope)

    def number(self, value: Any, scope: Scope, what: str) -> float:
        """Return a keyword that is a duration, a number or a template; raises TaskFailed."""
        found = self.templates.value(value, scope)
        try:
            return seconds(found)
        except ValueError as error:
            raise TaskFailed(f"{what}: {error}") from None

    # --- loops --------------------------------------------------------------------------------------------------------

    async def _looped(self) -> Done:
        """Do it with each item; a loop that is none is a failure like others, which may be ignored."""
        try:
            return await self._loop()
        except TaskFailed as error:
            return _failure(error)

    async def _loop(self) -> Done:
        words = self.task.words
        control = words.loop_control
        try:
            items = self.templates.value(words.loop, self.scope, self.task.folder)
        except TaskFailed:
            if words.when and not self._holds(words.when, self.scope):
                return _skipped()
            raise
        if not isinstance(items, list):
            raise TaskFailed(f"loop must be a list, not a value of type {type(items).__name__}")
        found: list[tuple[str, Done]] = []
        for at, item in enumerate(items):
            if at and (pause_s := self.number(control.pause, self.scope, "pause")):
                await asyncio.sleep(pause_s)
            names = {control.loop_var: item, **({control.index_var: at} if control.index_var else {})}
            more = {"ansible_loop": _extended(items, at)} if control.extended else {}
            scope = self.scope.with_layer(Layer({**names, **more}, raw=False))
            done = await self._once(scope)
            label = str(self.templates.value(control.label, scope) if control.label else item)
            data = {**done.data, control.loop_var: item, "ansible_loop_var": control.loop_var, **more}
            found.append((label, replace(done, data=data)))
        return _together(found)

    # --- tries --------------------------------------------------------------------------------------------------------

    async def _once(self, scope: Scope) -> Done:
        """Do it with one item, again as long as `until` is not so; errors are in what it returns."""
        words = self.task.words
        try:
            if words.when and not self._holds(words.when, scope):
                return _skipped()
            tries = 1
            if words.retries is not None or words.until:
                tries += int(self.number(_RETRIES if words.retries is None else words.retries, scope, "retries"))
            delay_s = self.number(words.delay, scope, "delay")
            for attempt in range(1, tries + 1):
                done = await self._try(scope)
                seen = self._registered(scope, done)
                if tries > 1:
                    done = replace(done, data={**done.data, "attempts": attempt})
                if self._holds(words.until, seen) if words.until else done.status not in {"failed", "unreachable"}:
                    return done
                if attempt < tries:
                    self.retrying(f"{self.task.name} ({tries - attempt} retries left)")
                    await asyncio.sleep(delay_s)
            if tries == 1:
                return done
            # As Ansible counts them: without the first.
            data = {**done.data, "failed": True, "attempts": tries - 1}
            return replace(done, status="unreachable" if done.status == "unreachable" else "failed", data=data)
        except TaskFailed as error:
            return _failure(error)

    async def _try(self, scope: Scope) -> Done:
        words = self.task.words
        done = await self._module(scope)
        seen = self._registered(scope, done)
        changed, failed = done.changed, done.status in {"failed", "unreachable"}
        if words.changed_when is not None:
            changed = self._holds(words.changed_when, seen)
        if words.failed_when is not None:
            failed = self._holds(words.failed_when, seen)
        status: Status = "changed" if changed else "ok"
        if failed:
            status = "unreachable" if done.status == "unreachable" else "failed"
        elif done.status == "skipped":
            status = "skipped"
        data = {**done.data, "changed": changed, "failed": failed}
        if words.failed_when is not None:
            data["failed_when_result"] = failed
        return replace(done, status=status, data=data)

    async def _module(self, scope: Scope) -> Done:
        """Hand the module its arguments and its context."""
        module = self.task.module
        if module.run is None:
            raise TaskFailed(f"{module.name} cannot stand here")
        if self.target.kind not in module.targets:
            raise TaskFailed(f"{module.name} is about a server", hint="play over servers:")
        try:
            args = module.args.model_validate(self.templates.value(self.task.args, scope, self.task.folder))
        except ValidationError as error:
            raise TaskFailed(f"{module.name}: {refusal(error)}") from None
        try:
            return _done(await module.run(args, self.context(scope)))
        except TaskFailed:
            raise
        except ScaleliteError as error:
            return _failure(error)

    def _registered(self, scope: Scope, done: Done) -> Scope:
        name = self.task.words.register_as
        return scope.with_layer(Layer({name: dict(done.data)}, raw=False)) if name else scope

    def _holds(self, conditions: Conditions, scope: Scope) -> bool:
        return all(self.templates.condition(text, scope) for text in conditions)


def _done(outcome: Outcome) -> Done:
    status: Status = "changed" if outcome.changed else "ok"
    if outcome.failed:
        status = "failed"
    elif outcome.skipped:
        status = "skipped"
    data = {"changed": outcome.changed, "failed": outcome.failed, **outcome.data}
    return Done(status, data, outcome.facts, tuple(outcome.diff))


def _failure(error: ScaleliteError) -> Done:
    """Return what an error means for the target: one that a server did not answer is unreachable, as in Ansible."""
    unreachable = isinstance(error, ApiError)
    hint = f" ({error.hint})" if error.hint else ""
    data = {"changed": False, "failed": True, "msg": f"{error.message}{hint}"}
    return Done("unreachable" if unreachable else "failed", {**data, **({"unreachable": True} if unreachable else {})})


def _skipped() -> Done:
    return Done("skipped", {"changed": False, "skipped": True, "skip_reason": "Conditional result was False"})


def _extended(items: Sequence[Any], at: int) -> dict[str, Any]:
    """Return what Ansible says of a loop's item where `extended` asks for it."""
    count = len(items)
    return {
        "index": at + 1,
        "index0": at,
        "revindex": count - at,
        "revindex0": count - at - 1,
        "first": not at,
        "last": at == count - 1,
        "length": count,
        "allitems": items,
        **({"previtem": items[at - 1]} if at else {}),
        **({"nextitem": items[at + 1]} if at < count - 1 else {}),
    }


def _together(items: list[tuple[str, Done]]) -> Done:
    """Return what a loop came to: failed if one item did, skipped if all were."""
    every = [done for _, done in items]
    data: dict[str, Any] = {
        "results": [dict(done.data) for done in every],
        "changed": any(done.changed for done in every),
        "failed": any(done.status == "failed" for done in every),
    }
    facts = {name: value for done in every for name, value in done.facts.items()}
    diff = tuple(line for done in every for line in done.diff)
    status: Status = "changed" if data["changed"] else "ok"
    if not items or all(done.status == "skipped" for done in every):
        status = "skipped"
        data |= {"skipped": True}
    if data["failed"]:
        status = "failed"
        data["msg"] = "One or more items failed"
    return Done(status, data, facts, diff, items=tuple(items))
