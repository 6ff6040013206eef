"""Playbooks with mistakes: every problem with its place; the schema says what the reader holds to."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from scalelite.errors import PlaybookInvalid
from scalelite.playbook.book import SECTIONS, BlockWords, HandlerWords, PlayWords, TaskWords
from scalelite.playbook.doc import module_page
from scalelite.playbook.schema import playbook_schema
from scalelite.playbook.targets import batches
from scalelite.playbook.values import of_share, seconds, share
from tests.playbook.conftest import SHIPPED
from tests.playbook.reading import MODULES, read_playbook

if TYPE_CHECKING:
    from scalelite.playbook.registry import Module

ROOT = Path(__file__).parents[1]
VALIDATOR = Draft7Validator(playbook_schema(MODULES))
MISTAKES = [
    ("- servers: all\n  tasks:\n    - wait_for: {meetings: -1}\n", "3:28 SL112"),
    ("- servers: all\n  tasks:\n    - wait_for: {timeout: soon}\n", "3:27 SL118"),
    ("- servers: all\n  tasks:\n    - server: {state: off}\n", "3:23 SL116"),
    ("- servers: all\n  tasks:\n    - server: {sttae: enabled}\n", "3:16 SL113"),
    ("- servers: all\n  tasks:\n    - servr: {state: enabled}\n", "3:7 SL203"),
    ("- servers: all\n  tasks:\n    - name: nothing\n", "3:7 SL202"),
    ("- servers: all\n  tasks:\n    - {server: {state: enabled}, poll: }\n", "3:7 SL202"),
    ("- servers: all\n  sreial: 1\n", "2:3 SL113"),
    ("- servers: all\n  serial: some\n", "2:11 SL112"),
    ("- servers: all\n  tasks:\n    - debug:\n      retries: often\n", "4:16 SL114"),
    ("- servers: all\n  tasks:\n    - debug:\n      become: true\n", "4:7 SL206"),
    ("- servers: all\n  tasks:\n    - debug:\n      with_items: [1]\n", "4:7 SL206"),
    ("- servers: all\n  tasks:\n    - debug: {msg: '{{ a b }}'}\n", "3:20 SL130"),
    ("- servers: all\n  tasks:\n    - debug:\n      when: a and\n", "4:13 SL130"),
    ("- servers: all\n  tasks:\n    - rescue: [{debug: }]\n", "3:7 SL115"),
    ("- hosts: all\n", "1:3 SL206"),
    ("- servers: all\n  tasks:\n    - meta: flush_handlers\n", "3:7 SL206"),
    ("- servers: all\n  tasks:\n    - shell: ls\n", "3:7 SL206"),
    ("servers: all\n", "1:1 SL201"),
]


@pytest.mark.shows("playbooks: places of errors", "playbooks: exit 3")
@pytest.mark.parametrize(("text", "found"), MISTAKES)
def test_a_mistake_is_found_at_its_place(text: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yml"
    path.write_text(text)
    with pytest.raises(PlaybookInvalid) as error:
        read_playbook(path)
    problems: tuple[Any, ...] = error.value.problems
    assert [f"{p.place.line}:{p.place.column} {p.code}" for p in problems] == [found]
    assert error.value.exit_status == 3


@pytest.mark.shows("playbooks: keywords of Ansible's")
def test_each_keyword_of_ansible_is_known_or_said_to_be_ansibles(tmp_path: Path) -> None:
    from ansible.playbook.block import Block
    from ansible.playbook.handler import Handler
    from ansible.playbook.play import Play
    from ansible.playbook.task import Task

    # Ansible's own names for what is written otherwise; `poll` is a module here, and blocks do not notify there either.
    inner = {"async_val", "loop_with", "poll", "notify"}
    ours = {
        "play": (Play, {field.alias or name for name, field in PlayWords.model_fields.items()}),
        "block": (Block, {field.alias or name for name, field in BlockWords.model_fields.items()}),
        "task": (Task, {field.alias or name for name, field in TaskWords.model_fields.items()}),
        "handler": (Handler, {field.alias or name for name, field in HandlerWords.model_fields.items()}),
    }
    sections = {*SECTIONS, "handlers", "block", "rescue", "always"}
    forms = {
        "play": "- servers: all\n  {}: x\n",
        "block": "- servers: all\n  tasks:\n    - block: [{{debug: }}]\n      {}: x\n",
        "task": "- servers: all\n  tasks:\n    - debug:\n      {}: x\n",
        "handler": "- servers: all\n  handlers:\n    - debug:\n      {}: x\n",
    }
    path = tmp_path / "p.yml"
    for kind, (theirs, known) in ours.items():
        for keyword in set(theirs.fattributes) - known - sections - inner:
            path.write_text(forms[kind].format(keyword))
            with pytest.raises(PlaybookInvalid) as error:
                read_playbook(path)
            problems: Any = error.value.problems
            assert [problem.code for problem in problems] == ["SL206"], (kind, keyword)


@pytest.mark.shows("playbooks: doc")
@pytest.mark.parametrize("module", MODULES.values(), ids=lambda module: module.name)
def test_each_module_has_a_page_whose_example_is_right(module: Module, tmp_path: Path) -> None:
    (tmp_path / "drain-one.yml").write_text("- debug:\n")
    path = tmp_path / "p.yml"
    path.write_text(f"- servers: all\n  tasks:\n{indent(module.example, '    ')}\n")
    assert next(read_playbook(path).plays[0].each()).module.name == module.name
    assert [error.message for error in VALIDATOR.iter_errors(plain(path))] == []
    page = module_page(module)
    assert module.summary in page
    assert all(f"  {field.alias or name} (" in page for name, field in module.args.model_fields.items())


def plain(path: Path) -> Any:
    return json.loads(json.dumps(YAML(typ="safe", pure=True).load(path), default=str))


@pytest.mark.shows("playbooks: schema")
@pytest.mark.parametrize(
    "path", [*sorted(SHIPPED.glob("*.yml")), *sorted((ROOT / "cases" / "playbook").glob("*.yml"))], ids=lambda p: p.name
)
def test_the_schema_takes_what_the_reader_takes(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(plain(path))] == []
    assert read_playbook(path).plays


@pytest.mark.shows("playbooks: schema")
@pytest.mark.parametrize("text", [text for text, found in MISTAKES if found[-5:] != "SL130"])
def test_the_schema_refuses_what_the_reader_refuses(text: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yml"
    path.write_text(text)
    assert list(VALIDATOR.iter_errors(plain(path)))


@pytest.mark.shows("playbooks: serial")
@pytest.mark.parametrize(
    ("serial", "sizes"),
    [((), [10]), (("1",), [1] * 10), (("30%",), [3, 3, 3, 1]), (("1", "25%"), [1, 2, 2, 2, 2, 1]), (("1%",), [1] * 10)],
)
def test_batches(serial: tuple[str, ...], sizes: list[int]) -> None:
    assert [len(batch) for batch in batches(serial, [str(number) for number in range(10)])] == sizes


@pytest.mark.shows("playbooks: min_available")
def test_shares_and_durations() -> None:
    assert [of_share(share("50 %"), 5, up=up) for up in (True, False)] == [3, 2]
    assert of_share(share(3), 5, up=True) == 3
    assert [seconds(value) for value in ("2h", "30s", 5, "1.5m")] == [7200, 30, 5, 90]
