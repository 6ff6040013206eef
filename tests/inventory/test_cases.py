"""Each file of tests/cases/inventory is a test: files and an environment, and the objects or the problems they make."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from jsonschema import Draft7Validator
from pydantic import BaseModel
from ruamel.yaml import YAML

from scalelite.core.model import Secret
from scalelite.errors import InventoryInvalid
from scalelite.inventory.load import Inventory, load_inventory
from scalelite.inventory.parse import parse
from scalelite.inventory.problems import Problem
from scalelite.inventory.schema import inventory_schema
from scalelite.inventory.source import Source
from scalelite.inventory.vault import Password

if TYPE_CHECKING:
    from scalelite.inventory.files import InventoryPath

FOLDER = Path(__file__).parents[1] / "cases" / "inventory"
# The secret of all cases: no message may ever hold it.
HIDDEN = "hunter2"


def _case(path: Path) -> Any:
    case = YAML(typ="safe", pure=True).load(path)
    return pytest.param(case, id=path.stem, marks=pytest.mark.shows(*case["shows"]))


def _written(case: dict[str, Any]) -> None:
    for name, text in case["files"].items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))
    for name, target in case.get("links", {}).items():
        Path(name).symlink_to(target)
    for name in case.get("folders", ()):
        Path(name).mkdir(parents=True)
    for name in case.get("pipes", ()):
        os.mkfifo(name)


def _loaded(case: dict[str, Any]) -> Inventory:
    paths: list[InventoryPath] = [Path(path) for path in case.get("paths", ["."])]
    passwords = [Password(Secret(text), label) for label, text in case.get("passwords", {}).items()]
    return load_inventory(paths, environment=case.get("environment", {}), passwords=lambda: passwords)


def _plain(value: Any) -> Any:
    match value:
        case Secret():
            return value.reveal()
        case BaseModel():
            return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
        case tuple():
            return [_plain(item) for item in value]
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case UUID():
            return str(value)
    return value


CASES = [_case(path) for path in sorted(FOLDER.glob("*.yaml"))]


@pytest.mark.parametrize("case", CASES)
def test_case(case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _written(case)
    if "problems" in case:
        with pytest.raises(InventoryInvalid) as caught:
            _loaded(case)
        problems: list[Problem] = [problem for problem in caught.value.problems if isinstance(problem, Problem)]
        said = [problem.text(caret="\n" in case["problems"][0]) for problem in problems]
        assert said == [text.rstrip("\n") for text in case["problems"]]
        assert HIDDEN not in "".join([*(problem.text(caret=True) for problem in problems), repr(problems)])
        return
    inventory = _loaded(case)
    assert [problem.text() for problem in inventory.warnings] == case.get("warnings", [])
    found = {key.address: _plain(spec) for key, spec in inventory.wanted.objects.items()}
    expected = case["objects"]
    told = {address: {name: found[address][name] for name in fields} for address, fields in expected.items()}
    assert told == expected
    assert found.keys() == expected.keys()
    assert inventory.wanted.sections == set(case.get("sections", inventory.wanted.sections))
    for group, members in case.get("groups", {}).items():
        assert list(inventory.groups.members[group]) == members
    places = {str(place) for place in inventory.wanted.places.values()}
    for address, fields in case.get("places", {}).items():
        for name, place in fields.items():
            key = next(key for key in inventory.wanted.objects if key.address == address)
            assert str(inventory.wanted.places[key, name]) == place
            assert place in places
    assert HIDDEN not in repr(inventory)


def _unexpected(code: str, path: object, message: str, mark: object, **how: object) -> None:
    pytest.fail(f"{code}: {message}")


@pytest.mark.shows("inventory: schema")
@pytest.mark.parametrize("case", [case for case in CASES if "objects" in case.values[0]])
def test_what_the_loader_takes_passes_the_schema(case: dict[str, Any]) -> None:
    validator = Draft7Validator(inventory_schema())
    for name, text in case["files"].items():
        if name.endswith((".yml", ".yaml")) and "_vars/" not in name and not text.startswith("$ANSIBLE_VAULT"):
            tree = parse(Source(name, text.encode(), text.removeprefix("\ufeff")), _unexpected)
            assert [error.message for error in validator.iter_errors(json.loads(json.dumps(tree, default=repr)))] == []
