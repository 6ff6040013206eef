"""Every code has a page, and its examples do what they say."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from scalelite.core.model import Secret
from scalelite.errors import InventoryInvalid
from scalelite.inventory.explain import page, pages
from scalelite.inventory.load import load_inventory
from scalelite.inventory.problems import CODES, Problem
from scalelite.inventory.vault import Password
from tests.playbook.reading import read_playbook

if TYPE_CHECKING:
    from pathlib import Path

ENVIRONMENT = {"BBB1_SECRET": "secret1", "SCHOOL_SECRET": "secret2"}
PASSWORD = Password(Secret("explain"))
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def make(example: str, folder: Path) -> None:
    """Write the files of an example, or run the commands that make them."""
    for language, name, text in BLOCK.findall(example):
        if language == "sh":
            subprocess.run(["bash", "-c", text], cwd=folder, check=True)
        else:
            path = folder / (name or "inv.yml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def codes(folder: Path) -> set[str]:
    try:
        if (folder / "playbook.yml").exists():
            read_playbook(folder / "playbook.yml")
            return set()
        inventory = load_inventory([folder], environment=ENVIRONMENT, passwords=lambda: [PASSWORD])
    except InventoryInvalid as error:
        return {problem.code for problem in error.problems if isinstance(problem, Problem)}
    return {problem.code for problem in inventory.warnings}


@pytest.mark.shows("inventory: explain", "issue B: a page for each code")
def test_every_code_has_a_page_and_every_page_a_code() -> None:
    assert pages().keys() == CODES.keys()
    assert all(page(code).startswith(f"{code}: {CODES[code]}") for code in CODES)


@pytest.mark.shows("inventory: explain")
@pytest.mark.parametrize("code", CODES)
def test_the_wrong_example_is_wrong_and_the_right_one_right(code: str, tmp_path: Path) -> None:
    wrong, right = pages()[code].partition("\nWrong:\n")[2].split("\nRight:\n")
    for name, example in (("wrong", wrong), ("right", right)):
        assert BLOCK.search(example)
        (tmp_path / name).mkdir()
        make(example, tmp_path / name)
    assert codes(tmp_path / "wrong") == {code}
    assert codes(tmp_path / "right") == set()
