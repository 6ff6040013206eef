"""Texts as YAML: read back as what they were, by our loader and by readers of YAML 1.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from ruamel.yaml import YAML

from scalelite.inventory import dump
from scalelite.inventory.parse import parse
from scalelite.inventory.source import Source
from tests.export.states import ODD, TEXT


def unexpected(code: str, path: object, message: str, mark: object, **how: object) -> None:
    pytest.fail(f"{code}: {message}")


YAML_1_1 = YAML(typ="safe", pure=True)
YAML_1_1.version = (1, 1)
YAML_1_1.constructor.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


@pytest.mark.shows("inventory: export", "inventory: YAML 1.2")
@given(TEXT)
def test_a_text_is_read_back(text: str) -> None:
    written = dump.yaml({"value": text, "list": [text, {"x": 1}][:1], dump_key(text): 1})
    tree = parse(Source("x.yml", written.encode(), written), unexpected)
    assert (tree["value"], tree["list"], dump_key(text) in tree) == (text, [text], True)


def dump_key(text: str) -> str:
    """A key is never a template, and never `value`."""
    return f"{text} ".replace("{", "")


@pytest.mark.shows("inventory: export")
@pytest.mark.parametrize("text", [odd for odd in ODD if "\ufffe" not in odd])
def test_yaml_1_1_reads_it_alike(text: str) -> None:
    assert YAML_1_1.load(dump.yaml({"value": text})) == {"value": text}
