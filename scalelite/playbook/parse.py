"""Playbook files to plays, or every problem of them with its place, as of inventories; runs nothing."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from scalelite.errors import PlaybookInvalid
from scalelite.inventory.files import Reader
from scalelite.inventory.parse import parse
from scalelite.inventory.problems import nearest
from scalelite.inventory.reports import Problems, TooMany
from scalelite.inventory.source import Mark, Source
from scalelite.inventory.templates import TemplateProblem
from scalelite.inventory.tree import BROKEN, Map, Seq
from scalelite.inventory.wording import locate, unknown_key, words
from scalelite.playbook.book import (
    SECTIONS,
    Block,
    BlockWords,
    HandlerWords,
    Play,
    Playbook,
    PlayWords,
    SharedWords,
    Task,
    TaskWords,
)
from scalelite.playbook.foreign import FOREIGN
from scalelite.playbook.templates import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scalelite.inventory.problems import Path as TreePath
    from scalelite.inventory.vault import Vaults
    from scalelite.playbook.book import Item
    from scalelite.playbook.registry import Module
    from scalelite.playbook.templates import Templates

M = TypeVar("M", bound=BaseModel)

_BLOCK: Final = ("block", "rescue", "always", "finally")
_LOOPS: Final = "with_"
_SHARED: Final = tuple(SharedWords.model_fields)
# Arguments that hold expressions, and not templates.
_EXPRESSIONS: Final = {("assert", "that"), ("debug", "var")}


def load_tasks(
    path: Path, modules: Mapping[str, Module], templates: Templates, vaults: Vaults
) -> dict[Path, tuple[Item, ...]]:
    """Read a file of tasks that a template names, and what it includes; raises PlaybookInvalid."""
    problems = Problems()
    reader = _Parser(modules, templates, problems, Reader(None, vaults, problems))
    with suppress(TooMany):
        reader.include(path.name, path.parent, (), Mark(Source(str(path), b"", ""), 0, 0, 0))
    _refuse(problems)
    return reader.included


def load_playbook(
    paths: Sequence[Path], modules: Mapping[str, Module], templates: Templates, vaults: Vaults
) -> Playbook:
    """Read playbooks as one after the other; raises PlaybookInvalid with all problems."""
    problems = Problems()
    reader = _Parser(modules, templates, problems, Reader(None, vaults, problems))
    plays: list[Play] = []
    with suppress(TooMany):
        for path in paths:
            plays += reader.playbook(path, len(plays))
    _refuse(problems)
    return Playbook(tuple(map(str, paths)), tuple(plays), reader.digest.hexdigest(), reader.included)


def _refuse(problems: Problems) -> None:
    found = problems.sorted()
    if any(problem.severity == "error" for problem in found):
        raise PlaybookInvalid(found)


class _Parser:
    """Reads files and makes plays of them; what is wrong is reported and left out."""

    def __init__(self, modules: Mapping[str, Module], templates: Templates, problems: Problems, reader: Reader) -> None:
        self._modules = modules
        self._templates = templates
        self._report = problems
        self._reader = reader
        self.digest = hashlib.sha256()
        self.included: dict[Path, tuple[Item, ...]] = {}
        self._reading: set[Path] = set()

    # --- files --------------------------------------------------------------------------------------------------------

    def playbook(self, path: Path, first: int) -> list[Play]:
        """Return the plays of one file, counted from `first`."""
        return [
            play
            for source, tree in self._lists(path, "plays", "- servers: …")
            for at, written in enumerate(tree)
            if (play := self._play(written, tree.marks[at], (at,), str(first + at), Path(source.path).parent))
        ]

    def _lists(self, path: Path, what: str, form: str) -> Iterable[tuple[Source, Seq]]:
        for source in self._reader.read(path):
            self.digest.update(f"{source.path}\0{source.file.sha256}\n".encode())
            tree = parse(source, self._report)
            if isinstance(tree, Seq) and tree:
                yield source, tree
            elif tree is not BROKEN:
                message = f"must be a list of {what}. Begin each with '{form}'."
                self._report("SL201", (), message, Mark(source, 0, 0, 0))

    def include(self, name: str, folder: Path, path: TreePath, mark: Mark) -> None:
        """Read a file of tasks that another names; one whose name has templates is read when it is done."""
        file = folder / name
        if file in self.included or file in self._reading:
            return
        if not file.is_file():
            self._report("SL207", path, f"there is no file '{name}' beside this one. Correct its name.", mark)
            return
        self._reading.add(file)
        for source, tree in self._lists(file, "tasks", "- name: …"):
            self.included[file] = self._items(tree, (), f"@{name}", BlockWords(), Path(source.path).parent)
        self._reading.discard(file)

    # --- plays --------------------------------------------------------------------------------------------------------

    def _play(self, tree: Any, mark: Mark, path: TreePath, where: str, folder: Path) -> Play | None:
        if not self._is_map(tree, path, mark):
            return None
        keys = Map(tree.mark)
        for key, value in tree.items():
            if key not in {*SECTIONS, "handlers"}:
                keys.put(key, value, tree.marks[key])
        found = self._words(PlayWords, keys, path, mark, more=(*SECTIONS, "handlers"))
        if found is None:
            found = PlayWords()
        if found.servers and found.tenants:
            message = "a play is about servers or about tenants. Make two plays of it."
            self._report("SL119", (*path, "tenants"), message, tree.marks["tenants"], at_key=True)
        self._templates_in({key: keys[key] for key in ("vars",) if key in keys}, keys, path)
        given = {name: getattr(found, name) for name in _SHARED if name in found.model_fields_set}
        inherited = BlockWords(tags=found.tags, **given)
        pre, tasks, post = (self._section(tree, name, path, where, inherited, folder) for name in SECTIONS)
        handlers = self._section(tree, "handlers", path, where, inherited, folder, HandlerWords)
        play = Play(
            where, mark.place, found, folder, pre, tasks, post, tuple(h for h in handlers if isinstance(h, Task))
        )
        self._notified(play, path, mark)
        return replace(play, file_vars=self._vars_files(found, tree, path, folder))

    def _vars_files(self, words: PlayWords, tree: Map, path: TreePath, folder: Path) -> dict[str, Any]:
        """Read the files of variables of a play, of which a later one wins."""
        found: dict[str, Any] = {}
        for name in words.vars_files:
            if not (folder / name).is_file():
                message = f"there is no file '{name}' beside this one. Correct its name."
                self._report("SL207", (*path, "vars_files"), message, tree.marks["vars_files"])
                continue
            for source in self._reader.read(folder / name):
                self.digest.update(f"{source.path}\0{source.file.sha256}\n".encode())
                values = parse(source, self._report)
                if source.vaulted:
                    self._templates.hide(values)
                if self._is_map(values, (name,), Mark(source, 0, 0, 0)):
                    found.update(plain(values))
        return found

    def _section(  # noqa: PLR0917 - of a play
        self,
        tree: Map,
        name: str,
        path: TreePath,
        where: str,
        inherited: BlockWords,
        folder: Path,
        kind: type[TaskWords] = TaskWords,
    ) -> tuple[Item, ...]:
        written = tree.get(name)
        if written is None:
            return ()
        at = (*path, name)
        if not isinstance(written, Seq):
            self._report("SL114", at, "must be a list of tasks. Begin each with '- '.", tree.marks[name])
            return ()
        return self._items(written, at, f"{where}.{name}", inherited, folder, kind)

    def _notified(self, play: Play, path: TreePath, mark: Mark) -> None:
        """Report handlers that are notified and not there; names with templates are looked up when they run."""
        known = {task.name for task in play.handlers}
        for task in play.handlers:
            if isinstance(task.words, HandlerWords):
                known.update(task.words.listen)
        for task in (*play.each(), *play.handlers):
            for name in task.words.notify:
                if name not in known and "{{" not in name:
                    message = f"task '{task.name}' notifies '{name}', which is no handler.{nearest(name, known)}"
                    self._report("SL204", path, f"{message} Write it under handlers:.", mark)

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _items(  # noqa: PLR0917 - of a list of tasks
        self,
        tree: Seq,
        path: TreePath,
        where: str,
        inherited: BlockWords,
        folder: Path,
        kind: type[TaskWords] = TaskWords,
    ) -> tuple[Item, ...]:
        found = []
        for at, written in enumerate(tree):
            here, mark = (*path, at), tree.marks[at]
            if not self._is_map(written, here, mark):
                continue
            if any(key in written for key in _BLOCK):
                item: Item | None = self._block(written, mark, here, f"{where}.{at}", inherited, folder)
            else:
                item = self._task(written, mark, here, f"{where}.{at}", inherited, folder, kind)
            if item is not None:
                found.append(item)
        return tuple(found)

    def _block(  # noqa: PLR0917 - of a block
        self, tree: Map, mark: Mark, path: TreePath, where: str, inherited: BlockWords, folder: Path
    ) -> Block | None:
        keys = Map(tree.mark)
        for key, value in tree.items():
            if key not in _BLOCK:
                keys.put(key, value, tree.marks[key])
        found = self._words(BlockWords, keys, path, mark, more=_BLOCK)
        if "block" not in tree:
            self._report("SL115", (*path, "block"), "is required beside rescue and always. Add it.", mark, at_key=True)
        merged = inherit(inherited, found or BlockWords())
        parts = {name: self._section(tree, name, path, where, merged, folder) for name in _BLOCK}
        return Block(where, parts["block"], parts["rescue"], (*parts["always"], *parts["finally"]))

    def _task(  # noqa: PLR0917 - of a task
        self,
        tree: Map,
        mark: Mark,
        path: TreePath,
        where: str,
        inherited: BlockWords,
        folder: Path,
        kind: type[TaskWords],
    ) -> Task | None:
        keys, named = Map(tree.mark), []
        known = {field.alias or name for name, field in kind.model_fields.items()}
        for key, value in tree.items():
            if key in self._modules:
                named.append(key)
            elif key in known or key in FOREIGN or key.startswith(_LOOPS):
                keys.put(key, value, tree.marks[key])
            else:
                message = f"is neither a keyword nor a module.{nearest(key, [*known, *self._modules])}"
                hint = " scalelite playbook doc lists the modules."
                self._report("SL203", (*path, key), message + hint, tree.marks[key], at_key=True)
                return None
        found = self._words(kind, keys, path, mark)
        if len(named) != 1:
            what = f"has {len(named)} modules: {', '.join(named)}" if named else "has no module"
            if named or not FOREIGN.keys() & keys.keys():  # which has been told, and may be in the place of a module
                self._report("SL202", path, f"a task {what}. Give it exactly one.", mark)
            return None
        [name] = named
        args = self._args(self._modules[name], tree[name], tree.marks[name], (*path, name), folder)
        if found is None:
            return None
        words = inherit(inherited, found)
        return Task(where, mark.place, words, self._modules[name], args, folder)

    def _args(self, module: Module, written: Any, mark: Mark, path: TreePath, folder: Path) -> Any:
        """Return a module's arguments as they are written, checked as far as they are no templates."""
        args = written
        if written is None:
            args = Map(mark)
        elif isinstance(written, str) and module.free:
            args = Map(mark)
            args.put(module.free, written, mark)
        if not isinstance(args, Map):
            if written is not BROKEN:
                form = " or a text" if module.free else ""
                self._report("SL114", path, f"must be a mapping of arguments{form}.", mark)
            return {}
        self._checked(module.args, args, path, mark)
        expressions = {key for name, key in _EXPRESSIONS if name == module.name}
        for key in expressions & args.keys():
            self._expressions(args[key], (*path, key), args.marks[key])
        self._templates_in({key: args[key] for key in args if key not in expressions}, args, path)
        if module.name == "include_tasks" and isinstance(name := args.get("file"), str) and "{{" not in name:
            self.include(name, folder, path, mark)
        return plain(args)

    # --- keywords -----------------------------------------------------------------------------------------------------

    def _words(self, model: type[M], keys: Map, path: TreePath, mark: Mark, more: Iterable[str] = ()) -> M | None:
        own = Map(keys.mark)
        for key, value in keys.items():
            if key in FOREIGN or key.startswith(_LOOPS):
                advice = FOREIGN.get(key, "Write loop: instead.")
                self._report(
                    "SL206",
                    (*path, key),
                    f"is Ansible's, and has no meaning here. {advice}",
                    keys.marks[key],
                    at_key=True,
                )
            else:
                own.put(key, value, keys.marks[key])
        found = self._checked(model, own, path, mark, more=more)
        for key in ("when", "until", "changed_when", "failed_when"):
            if key in own:
                self._expressions(own[key], (*path, key), own.marks[key])
        self._templates_in({key: own[key] for key in ("vars", "loop", "name") if key in own}, own, path)
        return found

    def _checked(self, model: type[M], tree: Map, path: TreePath, mark: Mark, more: Iterable[str] = ()) -> M | None:
        """Return what a model makes of a mapping, or None where it reports problems."""
        try:
            return model.model_validate(plain(tree))
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
        said: set[TreePath] = set()
        for detail in found:
            at = locate(detail, tree, path, mark)
            if at.path in said or _has_template(at.value):
                continue
            said.add(at.path)
            if detail["type"] == "extra_forbidden" and len(at.path) == len(path) + 1:
                known = [field.alias or name for name, field in model.model_fields.items()]
                wording = unknown_key(str(at.path[-1]), [*known, *more])
            else:
                wording = words(detail, at, ())  # type: ignore[assignment]
            if wording is not None:
                self._report(wording.code, at.path, wording.message, at.mark, at_key=at.at_key)
        return None

    def _expressions(self, value: Any, path: TreePath, mark: Mark) -> None:
        for text in value if isinstance(value, Seq) else [value]:
            if isinstance(text, str):
                self._try(self._templates.check_expression, text, path, mark)

    def _templates_in(self, values: Mapping[str, Any], tree: Map, path: TreePath) -> None:
        for key, value in values.items():
            self._templates_of(value, (*path, key), tree.marks[key])

    def _templates_of(self, value: Any, path: TreePath, mark: Mark) -> None:
        if isinstance(value, Map):
            self._templates_in(value, value, path)
        elif isinstance(value, Seq):
            for at, item in enumerate(value):
                self._templates_of(item, (*path, at), value.marks[at])
        elif type(value) is str and _has_template(value):
            self._try(self._templates.check, value, path, mark)

    def _try(self, check: Any, text: str, path: TreePath, mark: Mark) -> None:
        try:
            check(text)
        except TemplateProblem as problem:
            self._report(problem.code, path, problem.message(secret=False), mark)

    def _is_map(self, value: Any, path: TreePath, mark: Mark) -> bool:
        if isinstance(value, Map):
            return True
        if value is not BROKEN:
            self._report("SL114", path, "must be a mapping. Write 'key: value' below it.", mark)
        return False


def _has_template(value: Any) -> bool:
    """Tell whether a value is, or holds, a template: then only the run can say whether it fits."""
    if isinstance(value, dict):
        return any(map(_has_template, value.values()))
    if isinstance(value, list):
        return any(map(_has_template, value))
    return isinstance(value, str) and ("{{" in value or "{%" in value)


W = TypeVar("W", bound=BlockWords)


def inherit(outer: BlockWords, inner: W) -> W:
    """Return the keywords of a task or block with those of the block around it."""
    taken: dict[str, Any] = {
        name: getattr(outer, name)
        for name in _SHARED
        if name in outer.model_fields_set and name not in inner.model_fields_set
    }
    if outer.when:
        taken["when"] = (*outer.when, *inner.when)
    if outer.tags:
        taken["tags"] = tuple(dict.fromkeys((*outer.tags, *inner.tags)))
    if outer.vars:
        taken["vars"] = {**outer.vars, **inner.vars}
    return inner.model_copy(update=taken) if taken else inner
