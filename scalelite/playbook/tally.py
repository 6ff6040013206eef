"""What has become of each target so far: counts, facts, who is lost, who is to be told; the journal keeps it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from scalelite.flows.playbooks import Step
from scalelite.playbook.book import HandlerWords
from scalelite.playbook.tasks import Done
from scalelite.playbook.together import Together

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scalelite.flows.playbooks import Journal
    from scalelite.playbook.book import Task


class Tally:
    """Of one run; `journal` is None in check mode, which writes nothing."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._keep = Together(journal.keep) if journal else None
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.facts: dict[str, dict[str, Any]] = defaultdict(dict)
        self.lost: set[str] = set()
        self._notified: dict[str, set[str]] = defaultdict(set)
        self._waiting: dict[str, set[str]] = defaultdict(set)
        self._anew: set[str] = set()
        self._rescuing: dict[str, list[str]] = defaultdict(list)

    # --- what the run that this one goes on with has done ------------------------------------------------------------

    def before(self, step: str, name: str) -> Done | None:
        """Return what was done already, up to the first task that is done anew with the target."""
        found = self._journal.done(step, name) if self._journal and name not in self._anew else None
        if found is None:
            return None
        kept = found.result
        return Done(
            found.status,  # type: ignore[arg-type]
            kept["data"],
            kept["facts"],
            ignored=kept["ignored"],
            no_log=kept["no_log"],
        )

    def begin(self, names: Iterable[str]) -> None:
        """Note targets with which a task is done anew: all that follows is, too."""
        self._anew.update(names)

    async def keep(self, task: Task, step: str, name: str, done: Done) -> None:
        """Keep what was just done; of its data only what somebody may ask for, since there may be secrets in it."""
        if self._keep:
            asked_for = task.words.register_as or done.failed or task.module.name == "include_tasks"
            kept = {
                "data": done.data if asked_for else {"changed": done.changed},
                "facts": done.facts,
                "ignored": done.ignored,
                "no_log": done.no_log,
            }
            await self._keep.do(Step(step, name, done.status, json.loads(json.dumps(kept, default=str))))

    # --- what comes of tasks -----------------------------------------------------------------------------------------

    def count(self, name: str, done: Done, *, guarded: bool) -> None:
        """Count a result for the recap."""
        count = self.counts[name]
        if done.failed:
            if done.status == "unreachable":
                count["unreachable"] += 1
            else:
                count["rescued" if guarded else "failed"] += 1
            return
        count["skipped" if done.status == "skipped" else "ok"] += 1
        count["changed"] += done.changed
        count["ignored"] += done.ignored

    def remember(self, task: Task, doer: str, names: Sequence[str], done: Done) -> None:
        """Keep for targets what is registered and set, and what a rescue may ask for; only the doer notifies."""
        for name in names:
            facts = self.facts[name]
            facts.update(done.facts)
            if task.words.register_as:
                facts[task.words.register_as] = dict(done.data)
            if done.failed:
                facts["ansible_failed_result"] = dict(done.data)
                facts["ansible_failed_task"] = {"name": task.name, "action": task.module.name}
        if done.status == "changed":
            for handler in task.words.notify:
                self._notified[handler].add(doer)

    def notified_of(self, handler: Task, handlers: Sequence[Task]) -> set[str]:
        """Return the targets that wait for a handler, and let it have them; each name may be that of several."""
        for each in handlers:
            listen = each.words.listen if isinstance(each.words, HandlerWords) else ()
            for name in (each.name, *listen):
                self._waiting[each.where] |= self._notified[name]
        self._notified.clear()
        return self._waiting.pop(handler.where, set())

    # --- failures ----------------------------------------------------------------------------------------------------

    async def fail(self, names: Iterable[str], step: str, *, guarded: bool) -> None:
        """Note who goes no further; the journal forgets what failed, so that a run that goes on begins with that.

        What failed in a block with a rescue is kept, unless the rescue fails, too.
        """
        forgotten = []
        for name in names:
            self._rescuing[name].append(step)
            if not guarded:
                self.lost.add(name)
                forgotten += [(failed_step, name) for failed_step in self._rescuing.pop(name)]
        if self._journal:
            await self._journal.forget(forgotten)

    def failures(self, names: Iterable[str]) -> dict[str, int]:
        """Return how many failures of each target wait for a rescue."""
        return {name: len(self._rescuing[name]) for name in names}

    def rescue(self, names: Iterable[str], failures: Mapping[str, int]) -> None:
        """Note that the failures of targets since then are rescued."""
        for name in names:
            del self._rescuing[name][failures[name] :]
