"""Every state that a cluster can be in, as hypothesis draws it: odd names, odd texts, odd secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from hypothesis import strategies as st
from pydantic import ValidationError

from scalelite.core.model import (
    RESERVED_PARAMS,
    CallParams,
    ClusterSpec,
    Declared,
    HealthSpec,
    Key,
    Kind,
    Limits,
    LoadSpec,
    LoadWeights,
    LrsBasic,
    LrsOidc,
    LrsSpec,
    Retention,
    Secret,
    ServerSpec,
    SettingSpec,
    SizeHint,
    TenantSpec,
    url_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

# What YAML, templates, shells or vaults might take for something else.
ODD = [
    *(
        "NO",
        "no",
        "yes",
        "on",
        "~",
        "null",
        "true",
        "TRUE",
        "false",
        "012",
        "1.0",
        "1.50",
        "1e3",
        "0x1F",
        "0o7",
        ".inf",
    ),
    *(
        "22:22",
        "2026-01-01",
        "-1",
        "007",
        "1_000",
        "<<",
        "=",
        "-",
        "---",
        "...",
        "? x",
        "- x",
        "a: b",
        "a #b",
        "#",
        "&a",
    ),
    *("*a", "!x", "|", ">", "%x", "@x", "`x`", "'", '"', "''", "\"'", "\\", "\\n", "a\nb", "\n", " a", "a ", "\t"),
    *("a\r\nb", "{{ x }}", "{{ lookup('env', 'HOME') }}", "{% if %}", "{# x #}", "{{", "}}", "{a: b}", "[a]"),
    *("$ANSIBLE_VAULT;1.1;AES256\n6162", "$scalelite$1$x", "$HOME", "$(id)", "`id`", "ü", "日本", "\U0001f600"),
    *("\u2028", "\x85", "\xa0", "\ufeff", "\ufffe", "é" * 200),
]
PRINTABLE = st.characters(
    exclude_categories=["Cs"], exclude_characters=[*map(chr, range(9)), *map(chr, range(11, 32)), "\x7f"]
)
TEXT = st.sampled_from(ODD) | st.text(PRINTABLE, max_size=30)
SECRET = TEXT.filter(bool).map(Secret)
COUNT = st.integers(0, 1_000_000_000)
STATES: st.SearchStrategy[Any] = st.sampled_from(["enabled", "cordoned", "disabled"])
ALGORITHMS: st.SearchStrategy[Any] = st.none() | st.sampled_from(["SHA1", "SHA256", "SHA384", "SHA512"])
WEIGHT = st.floats(0, allow_infinity=False, allow_nan=False)
SERVER_ID = st.sampled_from(
    ["012", "1.0", "NO", "null", "-", "---", "...", "1e3", "_", "true", "0x1F", "a"]
) | st.from_regex(r"[A-Za-z0-9_.-]{1,40}", fullmatch=True)
TENANT = st.sampled_from(["no", "012", "1e3", "null", "y"]) | st.from_regex(
    r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True
)
HOST = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
PARAM = st.from_regex(r"[A-Za-z][A-Za-z0-9_.:-]{0,20}", fullmatch=True).filter(
    lambda p: p.lower() not in RESERVED_PARAMS
)
WEB_URL = st.builds("https://{}/{}".format, HOST, st.sampled_from(["", "a#b", "{{x}}", "a:b?c=d&e='", '"', "é", "%7B"]))


def valid(model: type[BaseModel], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw what the model takes."""

    def made(drawn: dict[str, Any]) -> Any:
        try:
            return model(**drawn)
        except ValidationError:
            return None

    return st.fixed_dictionaries({}, optional=fields).map(made).filter(lambda spec: spec is not None)


def api_url(host: str, port: int | None, path: str, scheme: str) -> str:
    return f"{scheme}://{host}{'' if port is None else f':{port}'}{path}/api"


API_URL = st.builds(
    api_url,
    HOST,
    st.none() | st.integers(1, 65535),
    st.sampled_from(["", "/bigbluebutton", "/{{x}}", "/a'b"]),
    st.sampled_from(["http", "HTTPS"]),
)


@st.composite
def servers(draw: st.DrawFn) -> list[ServerSpec]:
    found: dict[str, ServerSpec] = {}
    for name in draw(st.lists(SERVER_ID, unique=True, max_size=4)):
        default = f"https://{name}/bigbluebutton/api"
        try:
            spec = ServerSpec(
                id=name,
                url=draw(st.just(default) | API_URL),
                secret=draw(SECRET),
                previous_secret=draw(st.just(Secret("")) | SECRET),
                load_multiplier=draw(st.just(1.0) | st.floats(0, 1_000_000, exclude_min=True)),
                tag=draw(TEXT),
                state=draw(STATES),
                max_meetings=draw(COUNT),
                max_users=draw(COUNT),
                checksum_algorithm=draw(ALGORITHMS),
                protect=draw(st.booleans()),
            )
        except ValidationError:
            continue
        found.setdefault(url_key(spec.url), spec)
    return list(found.values())


LRS = valid(
    LrsSpec,
    endpoint=WEB_URL,
    on_error=st.sampled_from(["start", "fail"]),
    basic=st.builds(LrsBasic, username=TEXT, password=SECRET),
) | valid(
    LrsSpec,
    endpoint=WEB_URL,
    oidc=st.builds(LrsOidc, token_url=WEB_URL, client_id=TEXT, client_secret=SECRET, username=TEXT, password=SECRET),
)
SETTING: st.SearchStrategy[Any] = st.tuples(
    TEXT, st.booleans(), st.sampled_from([("create", "join"), ("create",), ("join",), ("join", "create"), ()])
)


@st.composite
def tenants(draw: st.DrawFn) -> dict[Key, Any]:
    objects: dict[Key, Any] = {}
    hosts = draw(st.lists(HOST, unique=True, max_size=4))
    for number, name in enumerate(draw(st.lists(TENANT, unique=True, max_size=3))):
        own = draw(st.integers(0, len(hosts)))
        objects[Key(Kind.TENANT, name)] = TenantSpec(
            id=UUID(int=number + 1, version=4),
            name=name,
            enabled=draw(st.booleans()),
            hosts=tuple(hosts[:own]),
            secrets=tuple(draw(st.lists(SECRET, min_size=1, max_size=3))),
            limits=Limits(max_meetings=draw(COUNT), max_users=draw(COUNT)),
            recordings=Retention(keep_days=draw(COUNT)),
            public_url=draw(st.none() | WEB_URL),
            external_voice_bridge=draw(st.booleans()),
            protect=draw(st.booleans()),
        )
        hosts = hosts[own:]
        for param, (value, override, calls) in draw(st.dictionaries(PARAM, SETTING, max_size=4)).items():
            objects[Key(Kind.SETTING, name, param)] = SettingSpec(
                param=param, value=value, override=override, calls=calls
            )
        if lrs := draw(st.none() | LRS):
            objects[Key(Kind.LRS, name)] = lrs
    return objects


PARAMS = st.builds(
    CallParams, default=st.dictionaries(PARAM, TEXT, max_size=3), override=st.dictionaries(PARAM, TEXT, max_size=2)
)
CLUSTER = valid(
    ClusterSpec,
    name=TEXT,
    create=PARAMS,
    join=PARAMS,
    max_meeting_duration=COUNT,
    load=valid(
        LoadSpec,
        min_user_count=COUNT,
        join_buffer_minutes=COUNT,
        weights=valid(LoadWeights, user=WEIGHT, voice=WEIGHT, video=WEIGHT, meeting=WEIGHT),
    ),
    health=valid(
        HealthSpec,
        unhealthy_threshold=st.integers(1, 1000),
        suspect_fraction=st.floats(0, 1, exclude_min=True),
    ),
    size_hint=valid(SizeHint, metadata=st.sampled_from(["size-hint", "no", "y"]), cap=COUNT),
    checksum_algorithm=ALGORITHMS,
)


@st.composite
def declared(draw: st.DrawFn) -> Declared:
    """Draw the declared state of a cluster."""
    objects: dict[Key, Any] = {Key(Kind.SERVER, spec.id): spec for spec in draw(servers())}
    objects |= draw(tenants())
    if cluster := draw(st.none() | CLUSTER):
        objects[Key(Kind.CLUSTER)] = cluster
    return Declared(objects)


def held(specs: Iterable[str]) -> st.SearchStrategy[dict[str, tuple[str, str]]]:
    """Draw holds of some servers: state and why."""
    return st.dictionaries(
        st.sampled_from(sorted(specs) or ["none"]),
        st.tuples(st.sampled_from(["cordoned", "disabled"]), TEXT),
        max_size=2,
    )
