"""Hostile inventories, in processes of their own: each ends in a clear error, within bounds of time and memory.

Time is that of the processor, which other work on the machine does not lengthen; 2 s are asked for, and doubled here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from scalelite.inventory.problems import MAX_PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEGABYTES = 256
SECONDS = 4
# Between the tests and the command, since a process's peak of memory begins with that of the one that started it.
METER = """
import json, resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=sys.stderr, timeout=120).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([status, used.ru_maxrss / 1024, used.ru_utime + used.ru_stime]))
"""


def bomb(path: Path) -> None:
    lists = "".join(f"  {b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    path.write_text(f"vars:\n  a: &a [x, x]\n{lists}")


def merge_bomb(path: Path) -> None:
    keys = ", ".join(f"k{at}: x" for at in range(2_000))
    path.write_text(f"vars:\n  a: &a {{{keys}}}\n" + "".join(f"  b{at}: {{<<: *a}}\n" for at in range(2_000)))


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200_000_000)


def several(path: Path) -> None:
    path.mkdir()
    for at in range(8):
        (path / f"{at}.yml").write_bytes(b"vars: {}\n" + b"#\n" * 15_000_000)


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bomb of aliases": (bomb, "SL109"),
    "a bomb of merges": (merge_bomb, "SL109"),
    "an alias of what it stands in": (lambda path: path.write_text("vars: &a\n  b: *a\n"), "SL109"),
    "a list in itself": (lambda path: path.write_text("vars: {a: &a [*a]}\n"), "SL109"),
    "deep flow": (lambda path: path.write_text("a: " + "[" * 1_000_000), "SL110"),
    "deep blocks": (lambda path: path.write_text("".join(" " * at + "a:\n" for at in range(2_000))), "SL110"),
    "deep sequences": (lambda path: path.write_text("a:\n " + "- " * 100_000), "SL110"),
    "a tag of Python": (lambda path: path.write_text("vars: {a: !!python/object/apply:os.system [ls]}"), "SL108"),
    "a tag of its own": (lambda path: path.write_text("vars: {a: !include /etc/passwd}"), "SL108"),
    "200 MB": (sparse, "SL103"),
    "eight files of 30 MB": (several, "SL103"),
    "a value of 60 MB": (lambda path: path.write_text(f"vars: {{a: {'x' * 60_000_000}}}"), "SL103"),
    "a block of 60 MB": (lambda path: path.write_text("vars:\n  a: |\n" + f"    {'é' * 50}\n" * 570_000), "SL103"),
    "a key of 60 MB": (lambda path: path.write_text(f"vars: {{? {'x' * 60_000_000} : 1}}"), "SL103"),
    "a million unknown keys": (
        lambda path: path.write_text("servers:\n  a:\n" + "".join(f"    k{at}: 1\n" for at in range(1_000_000))),
        "SL109",
    ),
    "200,000 unknown keys in a line": (
        lambda path: path.write_text(f"servers: {{a: {{{', '.join(f'k{at}: 1' for at in range(200_000))}}}}}"),
        "SL113",
    ),
    "200,000 servers of nothing in a line": (
        lambda path: path.write_text(f"servers: [{'{},' * 200_000}]"),
        "SL115",
    ),
    "100,000 mistakes behind letters of two bytes": (
        lambda path: path.write_text("servers:\n" + "".join(f"  s{at}: {{a: 1}} # ééé\n" for at in range(100_000))),
        "SL113",
    ),
    "240,000 unknown keys of a server": (
        lambda path: path.write_text("servers:\n  a:\n" + "".join(f"    k{at}: 1\n" for at in range(240_000))),
        "SL113",
    ),
    "1,000 aliases of 900 unknown keys": (
        lambda path: path.write_text(
            "vars:\n  v: &v\n"
            + "".join(f"    k{at}: é\n" for at in range(900))
            + "servers:\n"
            + "".join(f"  s{at}: *v\n" for at in range(1_000))
        ),
        "SL113",
    ),
    "a NUL": (lambda path: path.write_bytes(b"servers: {a\x00: {}}"), "SL104"),
    "UTF-16": (lambda path: path.write_bytes("servers: {}".encode("utf-16")), "SL104"),
    "Latin-1": (lambda path: path.write_bytes("vars: {a: Zürich}".encode("latin-1")), "SL104"),
    "half a surrogate": (lambda path: path.write_bytes(b"vars: {a: \xed\xa0\x80}"), "SL104"),
    "a million nodes": (lambda path: path.write_text("vars: {a: [" + "a," * 1_000_000 + "]}"), "SL109"),
    "the same key 100,000 times": (lambda path: path.write_text("vars:\n" + "  a: 1\n" * 100_000), "SL107"),
    "a range of everything": (lambda path: path.write_text("servers: {'b[0:99999999999]': {}}"), "SL145"),
    "ranges of ranges": (lambda path: path.write_text("servers: {'b[0:9999][0:9999][0:9999]': {}}"), "SL145"),
    "a circle of groups": (
        lambda path: path.write_text(
            "groups:\n" + "".join(f"  g{at}: {{children: [g{(at + 1) % 500}]}}\n" for at in range(500))
        ),
        "SL143",
    ),
    "a chain of groups": (
        lambda path: path.write_text(
            "groups:\n  g5000: {}\n" + "".join(f"  g{at}: {{children: [g{at + 1}]}}\n" for at in range(5_000))
        ),
        "SL110",
    ),
    "a template of long numbers": (lambda path: path.write_text("vars: {a: '{{ 9 ** 9 ** 9 }}'}"), "SL135"),
    "a template of long texts": (lambda path: path.write_text("vars: {a: \"{{ 'a' * 10 ** 9 }}\"}"), "SL135"),
    "a template that rounds to a billion digits": (
        lambda path: path.write_text("vars: {a: \"{{ 1 | round(999999999, 'ceil') }}\"}"),
        "SL133",
    ),
    "a template that loops": (
        lambda path: path.write_text("vars: {a: '{% for i in range(9) %}{% for j in i %}{% endfor %}{% endfor %}'}"),
        "SL135",
    ),
    "templates that double each other": (
        lambda path: path.write_text(
            "vars:\n  v0: aaaaaaaa\n" + "".join(f"  v{at + 1}: '{{{{ v{at} ~ v{at} }}}}'\n" for at in range(60))
        ),
        "SL133",
    ),
    "templates that print a lot": (
        lambda path: path.write_text(f"vars:\n  v: {'a' * 60_000}\n  w: '{'{{ v }}' * 1_000}'\n"),
        "SL133",
    ),
    "lists of long texts": (
        lambda path: path.write_text(f"vars:\n  v: {'a ' * 30_000}\n  w: '{{{{ [{'v.split(),' * 500}] }}}}'\n"),
        "SL133",
    ),
    "many templates of much work": (
        lambda path: path.write_text(
            f"vars:\n  v: {'a' * 60_000}\n" + "".join(f"  v{at}: '{{{{ v | title }}}}{at}'\n" for at in range(20_000))
        ),
        "SL134",
    ),
    "a template nested deep": (lambda path: path.write_text(f"vars: {{a: '{{{{ {'(' * 4_000} }}}}'}}"), "SL130"),
}


@pytest.mark.shows("inventory: hostile YAML", "issue B: hostile YAML")
@pytest.mark.parametrize("case", CASES)
def test_a_hostile_inventory_ends_in_a_clear_error(case: str, tmp_path: Path) -> None:
    write, code = CASES[case]
    path = tmp_path / "inv.yml"
    write(path)
    command = [sys.executable, "-m", "scalelite", "validate", "--brief", str(path)]
    done = subprocess.run([sys.executable, "-S", "-c", METER, *command], capture_output=True, text=True, check=True)
    status, megabytes, seconds = json.loads(done.stdout)
    said = done.stderr
    assert status == 3, said[-2_000:]
    assert f"error[{code}]" in said
    assert "Traceback" not in said
    assert ".id: " not in said  # which the file need not say
    assert said.count(": error[") < MAX_PROBLEMS or "more were not looked for" in said
    assert megabytes < MEGABYTES
    assert seconds < SECONDS
