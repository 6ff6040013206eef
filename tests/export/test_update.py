"""export --update: exactly the lines that differ, comments kept, and a plan that is empty afterwards."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalelite.core.align import identified, settled
from scalelite.core.model import Declared, Key, Kind, LrsOidc, LrsSpec, Secret, ServerSpec, SettingSpec, TenantSpec
from scalelite.core.plan import diff
from scalelite.inventory import dump, protect
from scalelite.inventory.load import Inventory, load_inventory
from scalelite.inventory.proof import is_proved_by_parts
from scalelite.inventory.update import Update, update
from tests.export.states import declared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

    from scalelite.core.model import AnySpec
    from scalelite.inventory.layout import Hunk

    Objects = dict[Key, AnySpec]

MAIN = """\
# yaml-language-server: $schema=../schema.json
vars: {domain: example.org}   # kept
servers:
  # the old machine
  bbb1.example.com:   # rack 1
    secret: 'one'     # from the vault room
    tag: gpu
    load_multiplier: 1.0

  # goes soon
  # with its comments
  bbb2.example.com: {secret: two, enabled: true}   # rack 2
  bbb3.example.com: {secret: three, tag: "{{ vars.domain }}"}
  bbb[10:12].example.com:
    secret: many
    tag: range

# after the servers
tenants:
  school:
    id: 9a870f45-ec23-4d29-828b-4673f3536d7b
    secrets:
      - alpha   # first
      - beta
    settings:
      record: true   # law
      welcome: {value: "Hi", override: true}
    limits:
      max_meetings: 5
"""
SCHOOL = Key(Kind.TENANT, "school")


class Home:
    """An inventory in a folder, and the cluster that it was applied to."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self.folder = folder
        self.live: Objects = {}
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text.encode())
        self.live = self._applied(self.load())

    def load(self, folder: Path | None = None) -> Inventory:
        loaded = load_inventory([folder or self.folder], environment={})
        live = Declared(self.live)
        return dataclasses.replace(loaded, wanted=identified(live, loaded.wanted, loaded.ids_from_urls))

    def copy(self, texts: Mapping[str, str | None]) -> Declared:
        """Load a copy with other texts."""
        with TemporaryDirectory() as kept:
            folder = Path(kept, "copy")
            copytree(self.folder, folder)
            for name, text in texts.items():
                place = folder / Path(name).relative_to(self.folder)
                place.parent.mkdir(exist_ok=True)
                place.write_bytes((text or "").encode())
                if text is None:
                    place.unlink()
            return self.load(folder).wanted

    @staticmethod
    def _applied(loaded: Inventory) -> Objects:
        return {key: settled(spec, None) for key, spec in loaded.wanted.objects.items()}

    def change(self, key: Key, **fields: Any) -> None:
        self.live[key] = self.live[key].model_copy(update=fields)

    def bring_home(self) -> Update:
        """Write the edits, and check that a plan is empty then."""
        live = Declared(self.live)
        loaded = self.load()
        found = update(loaded, live, protect.in_clear, [self.folder])
        self.was_proved_by_parts = is_proved_by_parts(found, loaded.wanted, live, self.copy)
        for path, text in found.files.items():
            place = self.folder / path
            before = place.read_bytes().decode() if place.exists() else ""
            assert rebuilt(before, found.hunks[path]) == (text or ""), "what is shown is what is written"
            if text is None:
                place.unlink()
            else:
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(text.encode())
        if self.was_proved_by_parts or not found.problems:
            assert diff(live, self.load().wanted).changes == ()
        return found

    def text(self, name: str = "main.yml") -> str:
        return (self.folder / name).read_bytes().decode()


def rebuilt(before: str, hunks: Sequence[Hunk]) -> str:
    lines = before.split("\n")
    parts, done = [], 0
    for hunk in hunks:
        start = sum(len(line) + 1 for line in lines[: hunk.line - 1])
        assert before.startswith(hunk.before, start)
        parts += [before[done:start], hunk.after]
        done = start + len(hunk.before)
    return "".join([*parts, before[done:]])


@pytest.fixture
def home(tmp_path: Path) -> Callable[..., Home]:
    return lambda text=MAIN, **files: Home(tmp_path, {"main.yml": text, **files})


def server(name: str) -> Key:
    return Key(Kind.SERVER, f"{name}.example.com")


@pytest.mark.shows("inventory: export --update, no live change")
def test_without_a_difference_not_one_byte_changes(home: Callable[..., Home]) -> None:
    assert home().bring_home() == Update({}, {}, (), ())


@pytest.mark.shows("inventory: export --update, only the lines that differ")
@pytest.mark.parametrize(
    ("key", "fields", "before", "after"),
    [
        (server("bbb1"), {"tag": ""}, "    tag: gpu\n", "    tag: ''\n"),
        (server("bbb1"), {"secret": Secret("it's")}, "'one'     #", '"it\'s"     #'),
        (server("bbb1"), {"state": "cordoned"}, "multiplier: 1.0\n", "multiplier: 1.0\n    state: cordoned\n"),
        (server("bbb2"), {"state": "disabled"}, "enabled: true}", "enabled: false}"),
        (server("bbb2"), {"max_users": 7}, "enabled: true}", "enabled: true, max_users: 7}"),
        (SCHOOL, {"secrets": (Secret("alpha"), Secret("gamma"))}, "- beta\n", "- gamma\n"),
        (SCHOOL, {"secrets": (Secret("beta"),)}, "      - alpha   # first\n", ""),
        (SCHOOL, {"secrets": (Secret("alpha"), Secret("beta"), Secret("c"))}, "- beta\n", "- beta\n      - c\n"),
        (SCHOOL, {"enabled": False}, "max_meetings: 5\n", "max_meetings: 5\n    enabled: false\n"),
        (Key(Kind.SETTING, "school", "record"), {"value": "false"}, "record: true   # law", "record: false   # law"),
        (
            Key(Kind.SETTING, "school", "record"),
            {"override": True},
            "record: true   # law",
            "record: {value: true, override: true}   # law",
        ),
        (Key(Kind.SETTING, "school", "welcome"), {"value": "a, b"}, 'value: "Hi"', "value: 'a, b'"),
    ],
)  # fmt: skip
def test_exactly_the_lines_that_differ_change(
    home: Callable[..., Home], key: Key, fields: dict[str, Any], before: str, after: str
) -> None:
    where = home()
    where.change(key, **fields)
    assert where.bring_home().notes == ()
    assert MAIN.count(before) == 1
    assert where.text() == MAIN.replace(before, after)


@pytest.mark.shows("inventory: export --update, a removed entry")
def test_a_removed_entry_goes_with_its_comments(home: Callable[..., Home]) -> None:
    where = home()
    del where.live[server("bbb2")]
    del where.live[Key(Kind.SETTING, "school", "record")]
    where.bring_home()
    gone = ("  # goes soon\n  # with its comments\n  bbb2.example.com: {secret: two, enabled: true}   # rack 2\n",
            "      record: true   # law\n")  # fmt: skip
    assert where.text() == MAIN.replace(gone[0], "").replace(gone[1], "")


@pytest.mark.shows("inventory: export --update, a removed entry")
def test_a_section_of_which_all_is_gone_is_an_empty_one(home: Callable[..., Home]) -> None:
    tenant = "tenants:\n  t:\n    secrets: [s]\n    settings:"
    where = home(f"servers:\n  a: {{secret: s}}\n  b:\n    secret: s\n{tenant}\n      x: 1\n")
    where.live = {key: spec for key, spec in where.live.items() if key.kind is Kind.TENANT}
    where.bring_home()
    assert where.text() == f"servers: {{}}\n{tenant} {{}}\n"
    where.live[server("new")] = ServerSpec(
        id="new.example.com", url="https://new.example.com/bigbluebutton/api", secret=Secret("s")
    )
    where.bring_home()
    assert where.text().startswith("servers:\n  new.example.com:\n    secret: s\ntenants:\n")


@pytest.mark.shows("inventory: export --update, new entries")
def test_new_entries_go_where_their_kind_lives(home: Callable[..., Home]) -> None:
    where = home(**{"few.yml": "servers:\n  lone: {secret: s}\n"})
    url = "https://bbb9.example.com/bigbluebutton/api"
    where.live[server("bbb9")] = ServerSpec(id="bbb9.example.com", url=url, secret=Secret("nine"), tag="x")
    where.live[Key(Kind.SETTING, "school", "logo")] = SettingSpec(param="logo", value="l.png")
    oidc = LrsOidc(
        token_url="https://kc/", client_id="c", client_secret=Secret("cs"), username="u", password=Secret("p")
    )
    where.live[Key(Kind.LRS, "school")] = LrsSpec(endpoint="https://lrs/", oidc=oidc)
    where.bring_home()
    text = MAIN.replace(
        "    tag: range\n", "    tag: range\n  bbb9.example.com:\n    secret: nine\n    tag: x\n"
    ).replace("override: true}\n", "override: true}\n      logo: l.png\n")
    assert where.text().startswith(text)
    assert "    lrs:\n      endpoint: " in where.text().removeprefix(text)
    assert where.text("few.yml") == "servers:\n  lone: {secret: s}\n"


@pytest.mark.shows("inventory: export --update, ranges and templates")
def test_what_a_range_a_group_or_a_template_says_goes_to_host_vars(home: Callable[..., Home]) -> None:
    groups = "groups:\n  large:\n    servers: [bbb1.example.com]\n    vars: {max_users: 5}\n"
    where = home(MAIN + groups, **{"host_vars/bbb12.example.com.yml": "# mine\nmax_users: 3\n"})
    where.change(server("bbb11"), tag="own")
    where.change(server("bbb12"), tag="own", max_users=4)
    where.change(server("bbb3"), tag="own")
    where.change(server("bbb1"), max_users=9)
    notes = where.bring_home().notes
    assert where.text("host_vars/bbb11.example.com.yml") == "tag: own\n"
    assert where.text("host_vars/bbb12.example.com.yml") == "# mine\nmax_users: 4\ntag: own\n"
    assert where.text("host_vars/bbb3.example.com.yml") == "tag: own\n"
    assert where.text("host_vars/bbb1.example.com.yml") == "max_users: 9\n"
    assert where.text() == (MAIN + groups).replace(', tag: "{{ vars.domain }}"', "")
    assert len(notes) == 4


@pytest.mark.shows("inventory: export --update, anchors")
def test_what_an_anchor_says_is_written_in_the_own_mapping(home: Callable[..., Home]) -> None:
    where = home(
        dedent("""\
        tenants:
          a: &both
            secrets: [s]
            settings: {x: 1}
          b:
            <<: *both
            enabled: false
          c:
            secrets: [&c cc]
            public_url: "https://{{ tenant.name }}.example.com"
    """)
    )
    where.change(Key(Kind.TENANT, "b"), external_voice_bridge=True, secrets=(Secret("t"),))
    where.change(Key(Kind.TENANT, "c"), public_url="https://other.example.com")
    where.bring_home()
    assert where.text().count("secrets: [s]") == 1
    assert "public_url: https://other.example.com\n" in where.text()


@pytest.mark.shows("inventory: export --update")
def test_a_server_of_a_range_that_is_gone_is_named_and_nothing_is_said_of_it(home: Callable[..., Home]) -> None:
    where = home()
    del where.live[server("bbb11")]
    assert where.bring_home().problems == (
        f"server/bbb11.example.com comes from the range bbb[10:12].example.com at {where.folder}/main.yml:14:3",
    )


@pytest.mark.shows("inventory: export --update, --secrets")
def test_a_change_without_a_secret_asks_for_no_way_to_write_one(home: Callable[..., Home]) -> None:
    where = home()
    where.change(Key(Kind.SETTING, "school", "record"), override=True)
    where.live[Key(Kind.SETTING, "school", "logo")] = SettingSpec(param="logo", value="l.png")
    asked: list[object] = []

    def protected(secrets: Sequence[dump.Placed]) -> list[str]:
        asked.extend(secrets)
        return protect.in_clear(secrets)

    assert len(update(where.load(), Declared(where.live), protected, []).files) == 1
    assert asked == []


@pytest.mark.shows("inventory: export --update, templates that still say the truth stay")
def test_the_templates_of_a_list_stay_while_they_say_the_truth(home: Callable[..., Home]) -> None:
    text = "vars: {one: first}\ntenants:\n  t: {secrets: ['{{ vars.one }}', second, third]}\n"
    where = home(text)
    where.change(Key(Kind.TENANT, "t"), secrets=(Secret("first"), Secret("2nd"), Secret("third"), Secret("fourth")))
    where.bring_home()
    assert where.text() == text.replace("second, third", "'2nd', third, fourth")


@pytest.mark.shows("inventory: export --update")
def test_what_a_group_says_and_nobody_can_unset_is_named(home: Callable[..., Home]) -> None:
    where = home(**{"group_vars/all.yml": "checksum_algorithm: SHA512\n"})
    where.change(server("bbb1"), checksum_algorithm=None)
    (problem,) = where.bring_home().problems
    assert problem.startswith("server/bbb1.example.com: checksum_algorithm comes from ")


@pytest.mark.shows("inventory: export --update")
def test_line_ends_and_a_missing_last_one_stay(home: Callable[..., Home]) -> None:
    where = home("servers:\r\n  a:\r\n    secret: s # x\r\n  b: {secret: s}")
    where.change(Key(Kind.SERVER, "a"), tag="t")
    where.live[Key(Kind.SERVER, "c")] = ServerSpec(id="c", url="https://c/bigbluebutton/api", secret=Secret("s"))
    where.bring_home()
    assert where.text() == (
        "servers:\r\n  a:\r\n    secret: s # x\r\n    tag: t\r\n  b: {secret: s}\r\n  c:\r\n    secret: s"
    )


@pytest.mark.shows("inventory: export --update")
def test_a_tenant_that_was_made_by_hand_comes_with_all_that_is_its(home: Callable[..., Home]) -> None:
    where = home()
    spec = where.live[SCHOOL]
    assert isinstance(spec, TenantSpec)
    id_ = "11111111-1111-4111-8111-111111111111"
    new = TenantSpec.model_validate_json(f'{{"id": "{id_}", "name": "new", "secrets": ["secret"]}}')
    where.live[Key(Kind.TENANT, "new")] = new
    where.live[Key(Kind.SETTING, "new", "record")] = SettingSpec(param="record", value="true")
    where.bring_home()
    new_lines = f"  new:\n    id: '{id_}'\n    secrets:\n      - secret\n    settings:\n      record: true\n"
    assert where.text() == MAIN + new_lines


@pytest.mark.shows("inventory: export --update, the proof runs on a copy", "issue C: 100 edits")
def test_changed_entries_are_proved_without_the_others_where_these_change_nothing_in_them(
    home: Callable[..., Home],
) -> None:
    where = home()
    where.change(server("bbb1"), tag="x", load_multiplier=3.0)
    where.change(Key(Kind.SETTING, "school", "welcome"), value="Hello")
    where.bring_home()
    assert where.was_proved_by_parts
    where.change(server("bbb11"), tag="x")  # of a range: host_vars
    where.bring_home()
    assert where.was_proved_by_parts
    del where.live[server("bbb2")]
    where.bring_home()
    assert not where.was_proved_by_parts, "a section that changes is loaded whole"


LISTED = """\
servers:
# the first
- url: https://bbb1.example.com/bigbluebutton/api
  secret: one   # from the vault room
- url: bbb2.example.com
  secret: two
- {url: bbb3.example.com, secret: three}"""


@pytest.mark.shows("inventory: export --update", "inventory: the two formats of the guide")
def test_the_list_of_the_guide_is_edited_as_a_list(home: Callable[..., Home]) -> None:
    where = home(LISTED)
    where.change(server("bbb1"), tag="gpu", secret=Secret("uno"))
    where.change(server("bbb3"), load_multiplier=2.0)
    where.bring_home()
    del where.live[server("bbb2")]
    new = ServerSpec(id="78c4d63b", url="https://bbb4.example.com/api", secret=Secret("four"), state="disabled")
    where.live[Key(Kind.SERVER, new.id)] = new
    where.bring_home()
    assert (
        where.text()
        == """\
servers:
# the first
- url: https://bbb1.example.com/bigbluebutton/api
  secret: uno   # from the vault room
  tag: gpu
- {url: bbb3.example.com, secret: three, load_multiplier: 2.0}
- {url: https://bbb4.example.com/api, secret: four, state: disabled}"""
    )
    where.change(Key(Kind.SERVER, new.id), state="enabled")
    where.bring_home()
    assert "secret: four, state: enabled}" in where.text()


ANCHORED = """\
servers:
  a.example.com: &a {secret: one, tag: x}
  b.example.com: {<<: *a, secret: two}
  c.example.com: {secret: three, tag: "{{ 'many' if groups['all'] | length > 3 else 'few' }}"}
  d.example.com: {secret: four}
"""


@pytest.mark.shows("inventory: export --update, the proof runs on a copy")
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_what_depends_on_other_entries_is_proved_among_them(home: Callable[..., Home], name: str) -> None:
    where = home(ANCHORED)
    where.change(server(name), max_users=9)
    assert where.bring_home().problems == ()
    assert not where.was_proved_by_parts


@pytest.mark.shows("inventory: export --update, the proof runs on a copy")
@pytest.mark.parametrize(("wrong", "right"), [("tag: 'y'", "tag: gpu"), ("bbb1", "bbb9"), ("secret:", "- secret:")])
def test_an_edit_that_is_wrong_is_not_proved(home: Callable[..., Home], wrong: str, right: str) -> None:
    where = home()
    where.change(server("bbb1"), tag="y")
    live, loaded = Declared(where.live), where.load()
    found = update(loaded, live, protect.in_clear, [where.folder])
    assert is_proved_by_parts(found, loaded.wanted, live, where.copy)
    spoilt = {path: (old, new.replace(wrong, right, 1)) for path, (old, new) in found.extracts.items()}
    assert spoilt != found.extracts
    assert not is_proved_by_parts(dataclasses.replace(found, extracts=spoilt), loaded.wanted, live, where.copy)


MUTABLE = {
    Kind.SERVER: ("secret", "previous_secret", "load_multiplier", "tag", "state", "max_users", "checksum_algorithm"),
    Kind.TENANT: ("enabled", "secrets", "limits", "recordings", "public_url", "protect"),
    Kind.SETTING: ("value", "override", "calls"),
    Kind.LRS: ("endpoint", "on_error", "basic", "oidc"),
    Kind.CLUSTER: ("name", "create", "join", "load", "size_hint", "checksum_algorithm"),
}


def drifted(before: Declared, other: Declared, random: Random) -> Declared:
    """A state with some fields as another state has them somewhere, and some objects gone."""
    live: Objects = {}
    for key, spec in before.objects.items():
        others = [each for _, each in other.of_kind(key.kind)]
        donor = random.choice(others) if others else spec
        fields = [name for name in MUTABLE[key.kind] if random.random() < 0.3]
        if key.kind is Kind.LRS and fields:
            fields = list(MUTABLE[key.kind])
        live[key] = spec.model_copy(update={name: getattr(donor, name) for name in fields})
    gone = {key for key in live if key.kind is not Kind.CLUSTER and random.random() < 0.2}
    tenants = {key.name for key in gone if key.kind is Kind.TENANT}
    return Declared({
        key: spec for key, spec in live.items()
        if key not in gone and (key.kind is Kind.SERVER or key.name not in tenants)
    })  # fmt: skip


@pytest.mark.shows("inventory: export --update", "issue C: export --update")
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(before=declared(), other=declared(), random=st.randoms(use_true_random=False))
def test_whatever_differs_the_inventory_says_it_afterwards(
    tmp_path: Path, before: Declared, other: Declared, random: Random
) -> None:
    trees = dump.trees(before, ["cluster", "servers", "tenants"])
    for tree in trees.values():
        dump.protect(tree, protect.in_clear)
    text = "".join(dump.yaml(tree) for tree in trees.values())
    home = Home(tmp_path, {"main.yml": text})
    home.live = dict(drifted(before, other, random).objects)
    assert home.bring_home().problems == ()
    home.live = dict(before.objects)
    assert home.bring_home().problems == ()
