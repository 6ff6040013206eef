"""The environment, read once into frozen Settings; the only reader of the environment, and its own manual.

Each field says the variable, what it means and how its text is read. Names and defaults: spec/settings.md, which are
Scalelite's own where it has one, so that an existing environment file works.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from scalelite.errors import SettingInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ipaddress import IPv4Network, IPv6Network

T = TypeVar("T")
Params = tuple[tuple[str, str], ...]

ALGORITHMS: Final = ("SHA1", "SHA256", "SHA384", "SHA512")
_SHORTEST_KEY: Final = 32
_SIZES: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Reader(NamedTuple):
    """How a variable's text becomes a value; raises ValueError where it cannot."""

    parse: Callable[[str], Any]
    expected: str
    secret: bool = False


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.strip().lower()]


def _at_least(lowest: float, kind: type[T]) -> Callable[[str], T]:
    def parse(text: str) -> T:
        number: Any = kind(text)  # type: ignore[call-arg]
        if not lowest <= number < float("inf"):
            raise ValueError
        return number  # type: ignore[no-any-return]

    return parse


def _params(text: str) -> Params:
    """`a=b,c=d`, split at the first `=`; or a JSON object, for values with commas."""
    if text.lstrip().startswith("{"):
        pairs = json.loads(text)
        if not all(isinstance(value, str | int | float | bool) for value in pairs.values()):
            raise ValueError
        return tuple((name, value if isinstance(value, str) else json.dumps(value)) for name, value in pairs.items())
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise ValueError
    return tuple((name.strip(), value) for name, _, value in pairs)


def _algorithms(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().upper() for name in text.split(":"))
    if not set(names) <= set(ALGORITHMS):
        raise ValueError
    return names


def _keys(text: str) -> tuple[str, ...]:
    """Keys are not stretched, so one that a person could remember is refused."""
    keys = tuple(key for part in text.split(":") if (key := part.strip()))
    if not keys or min(map(len, keys)) < _SHORTEST_KEY:
        raise ValueError
    return keys


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise ValueError
    return int(match[1]) * _SIZES[match[2].upper()]


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def _format_names(text: str) -> tuple[str, ...]:
    """Names stand in paths and URLs, beside pages of ours."""
    names = tuple(part.strip() for part in text.split(":") if part.strip())
    if not all(re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", name) for name in names):
        raise ValueError
    return names


def _one_of(*words: str) -> Callable[[str], str]:
    table = {word.lower(): word for word in words}
    return lambda text: table[text.strip().lower()]


BOOLEAN = Reader(_boolean, "true or false")
COUNT = Reader(_at_least(0, int), "a whole number from 0")
POSITIVE = Reader(_at_least(1, int), "a whole number from 1")
SECONDS = Reader(_at_least(0.001, float), "seconds above 0")
PARAMS = Reader(_params, "a=b,c=d or a JSON object of texts")
TEXT = Reader(str, "a text")
URL = Reader(str, "a Postgres URL", secret=True)
SECRET = Reader(str, "a text", secret=True)
SECRETS = Reader(lambda text: tuple(part for part in text.split(":") if part), "secrets, ':' between", secret=True)
NAMES = Reader(lambda text: tuple(part.strip() for part in text.split(",") if part.strip()), "names, ',' between")
PATH = Reader(Path, "a path")


def _env(name: str, default: T, reader: Reader, manual: str) -> T:
    return field(default=default, repr=not reader.secret, metadata={"env": name, "reader": reader, "manual": manual})


# fmt: off
@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; secrets are left out of its repr."""

    database_url: str = _env("DATABASE_URL", "", URL, "Postgres 15 or later. Unset: the embedded one, where it was asked for.")
    listen_database_url: str = _env("LISTEN_DATABASE_URL", "", URL, "A direct connection for NOTIFY, when DATABASE_URL goes through a transaction pooler. Unset: DATABASE_URL.")
    home: Path | None = _env("SCALELITE_HOME", None, PATH, "Folder of the embedded Postgres.")
    inventory: str = _env("SCALELITE_INVENTORY", "", TEXT, "The inventory that commands use without -i.")
    actor: str = _env("SCALELITE_ACTOR", "", TEXT, "Who revisions are written for. Unset: the CI job, else user@host.")

    vault_password_file: str = _env("SCALELITE_VAULT_PASSWORD_FILE", "", TEXT, "File with the password of Ansible vaults, or a program that prints it; where no option names one. ANSIBLE_VAULT_PASSWORD_FILE is taken too.")
    encryption_keys: tuple[str, ...] = _env("SCALELITE_ENCRYPTION_KEY", (), Reader(_keys, "keys of at least 32 characters (openssl rand -base64 32), ':' between", secret=True), "Keys that seal secrets in Postgres, ':' between; the first seals, all open. Unset: secrets are stored in clear. A new one goes in front; then run `scalelite db rotate-keys`.")

    loadbalancer_secret: str = _env("LOADBALANCER_SECRET", "", SECRET, "Secret of applications without tenants. Empty is an error, not an empty secret.")
    loadbalancer_secrets: tuple[str, ...] = _env("LOADBALANCER_SECRETS", (), SECRETS, "More of them, ':' between.")
    checksum_algorithms: tuple[str, ...] = _env("LOADBALANCER_CHECKSUM_ALGORITHM", (), Reader(_algorithms, "SHA1, SHA256, SHA384 or SHA512, ':' between"), "Accepted checksums; if set, the strongest is used towards servers. Unset: SHA1:SHA256:SHA512 are accepted and SHA256 is used.")
    multitenancy: bool = _env("MULTITENANCY_ENABLED", default=False, reader=BOOLEAN, manual="Tenants by host name.")
    url_host: str = _env("URL_HOST", "", Reader(lambda text: text.strip().lower(), "a host name"), "The domain of the service; when set, other hosts are refused.")
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _env("TRUSTED_PROXIES", (), Reader(_networks, "addresses or networks, ',' between"), "Addresses whose X-Forwarded-* headers count.")
    bind: str = _env("BIND", "0.0.0.0", TEXT, "Address that the service listens on.")  # noqa: S104 - a server's default
    port: int = _env("PORT", 3000, COUNT, "Port that the service listens on.")
    workers: int = _env("WEB_CONCURRENCY", os.cpu_count() or 1, POSITIVE, "Worker processes. Unset: the number of processors.")

    poll_interval_s: float = _env("POLL_INTERVAL", 60.0, SECONDS, "Seconds between polls.")
    poller_concurrency: int = _env("POLLER_CONCURRENCY", 200, POSITIVE, "Servers that are polled at once; one that is silent for 0.5 s does not count.")
    poller_timeout_s: float = _env("POLLER_WAIT_TIMEOUT", 10.0, SECONDS, "Seconds for one server's poll.")
    connect_timeout_s: float = _env("CONNECT_TIMEOUT", 5.0, SECONDS, "Seconds to connect to a server.")
    response_timeout_s: float = _env("RESPONSE_TIMEOUT", 10.0, SECONDS, "Seconds to wait for a server's answer; 9 for a whole call at most.")

    healthy_threshold: int = _env("SERVER_HEALTHY_THRESHOLD", 1, POSITIVE, "Good polls in a row until an offline server recovers. The inventory's cluster section wins.")
    unhealthy_threshold: int = _env("SERVER_UNHEALTHY_THRESHOLD", 2, POSITIVE, "Failed polls in a row until a server is offline. The inventory's cluster section wins.")
    min_user_count: int = _env("LOAD_MIN_USER_COUNT", 15, COUNT, "Users that a young meeting counts at least. The inventory's cluster section wins.")
    join_buffer_minutes: int = _env("LOAD_JOIN_BUFFER_TIME", 15, COUNT, "Minutes for which a meeting is young. The inventory's cluster section wins.")
    max_meeting_duration: int = _env("MAX_MEETING_DURATION", 0, COUNT, "Minutes that a meeting may last; 0 for no limit. The inventory's cluster section wins.")
    default_create_params: Params = _env("DEFAULT_CREATE_PARAMS", (), PARAMS, "Parameters of create where the call does not say. The inventory's cluster section wins.")
    override_create_params: Params = _env("OVERRIDE_CREATE_PARAMS", (), PARAMS, "Parameters of create whatever the call says. The inventory's cluster section wins.")
    default_join_params: Params = _env("DEFAULT_JOIN_PARAMS", (), PARAMS, "Parameters of join where the call does not say. The inventory's cluster section wins.")
    override_join_params: Params = _env("OVERRIDE_JOIN_PARAMS", (), PARAMS, "Parameters of join whatever the call says. The inventory's cluster section wins.")
    create_exclude_params: tuple[str, ...] = _env("CREATE_EXCLUDE_PARAMS", (), NAMES, "Parameters that create does not pass on.")
    join_exclude_params: tuple[str, ...] = _env("JOIN_EXCLUDE_PARAMS", (), NAMES, "Parameters that join does not pass on.")
    get_meetings_disabled: bool = _env("GET_MEETINGS_API_DISABLED", default=False, reader=BOOLEAN, manual="getMeetings answers that there are none.")
    voice_bridge_len: int = _env("VOICE_BRIDGE_LEN", 9, Reader(_at_least(5, int), "a whole number from 5"), "Digits of a voice bridge.")
    voice_bridge_min: int = _env("VOICE_BRIDGE_MIN", 5, POSITIVE, "Digits of a PIN at least, as dial-in asks for it.")
    voice_bridge_max: int = _env("VOICE_BRIDGE_MAX", 9, POSITIVE, "Digits of a PIN at most, as dial-in asks for it.")
    use_external_voice_bridge: bool = _env("USE_EXTERNAL_VOICE_BRIDGE", default=False, reader=BOOLEAN, manual="A create's own voiceBridge is used if it is free, for all tenants.")
    fsapi_password: str | None = _env("FSAPI_PASSWORD", None, SECRET, "Password of FreeSWITCH, user fsapi. Unset: the first load balancer secret, and no dial-in where there is none. Set to the empty string: no password is asked for.")
    fsapi_max_duration: int | None = _env("FSAPI_MAX_DURATION", None, COUNT, "Minutes after which dial-in hangs up; 0 for no limit. Unset: MAX_MEETING_DURATION.")
    callback_allow_private: bool = _env("CALLBACK_ALLOW_PRIVATE", default=False, reader=BOOLEAN, manual="Callbacks of clients may go to loopback, link-local and private addresses.")
    form_bodies: bool = _env("FORM_BODIES", default=True, reader=BOOLEAN, manual="Take a form body's parameters where the query holds nothing but the checksum.")
    server_id_metadata: bool = _env("SERVER_ID_METADATA", default=False, reader=BOOLEAN, manual="Meetings carry the id of their server as meta_server-id, which front ends and tenants see. Off: only the management API and commands tell it.")
    server_id_is_hostname: bool = _env("SERVER_ID_IS_HOSTNAME", default=False, reader=BOOLEAN, manual="Servers that are added without an id get their host name for one, not a UUID.")
    management_checksum_auth: bool = _env("MANAGEMENT_CHECKSUM_AUTH", default=True, reader=BOOLEAN, manual="Take calls of the management API that are signed with a load balancer secret; false: only those with a token.")
    metrics_token: str = _env("METRICS_TOKEN", "", SECRET, "What /metrics asks for as `Authorization: Bearer TOKEN`. Unset: it answers everybody; then let the proxy in front answer nobody else.")
    metrics_folder: Path | None = _env("PROMETHEUS_MULTIPROC_DIR", None, PATH, "Folder in which the processes of `serve` share their counters. Unset: a temporary one.")
    max_body_bytes: int = _env("MAX_BODY_SIZE", 100 << 20, Reader(_bytes, "a size such as 100MiB"), "The largest body that is taken.")
    recording_disabled: bool = _env("RECORDING_DISABLED", default=False, reader=BOOLEAN, manual="The recordings calls answer that there are none.")
    get_recordings_filtered: bool = _env("GET_RECORDINGS_API_FILTERED", default=False, reader=BOOLEAN, manual="getRecordings must name meetings or recordings.")
    recording_spool_dir: Path = _env("RECORDING_SPOOL_DIR", Path("/var/bigbluebutton/spool"), PATH, "Where servers put the archives of their recordings.")
    recording_work_dir: Path = _env("RECORDING_WORK_DIR", Path("/var/bigbluebutton/recording/scalelite"), PATH, "Where archives are unpacked; best on the file system of the published ones.")
    recording_publish_dir: Path = _env("RECORDING_PUBLISH_DIR", Path("/var/bigbluebutton/published"), PATH, "Files of published recordings.")
    recording_unpublish_dir: Path = _env("RECORDING_UNPUBLISH_DIR", Path("/var/bigbluebutton/unpublished"), PATH, "Files of unpublished recordings.")
    recording_import_interval_s: float = _env("RECORDING_IMPORT_POLL_INTERVAL", 60.0, SECONDS, "Seconds between looks into the spool.")
    recording_import_unpublished: bool = _env("RECORDING_IMPORT_UNPUBLISHED", default=False, reader=BOOLEAN, manual="New recordings are unpublished, whatever their archive says.")
    recording_formats: tuple[str, ...] = _env("RECORDING_PLAYBACK_FORMATS", ("presentation", "video", "screenshare", "podcast", "notes", "capture"), Reader(_format_names, "names of playback formats, ':' between"), "Formats that are imported and played.")
    recording_serve_files: bool = _env("RECORDING_SERVE_FILES", default=False, reader=BOOLEAN, manual="Serve the files of recordings ourselves. False: nginx does, told by X-Accel-Redirect.")
    protected_recordings: bool = _env("PROTECTED_RECORDINGS_ENABLED", default=False, reader=BOOLEAN, manual="New recordings are protected, and getRecordings tells which are.")
    protected_token_minutes: int = _env("PROTECTED_RECORDINGS_TOKEN_TIMEOUT", 60, POSITIVE, "Minutes for which a protected recording's link may be opened, once.")
    protected_cookie_minutes: int = _env("PROTECTED_RECORDINGS_TIMEOUT", 360, POSITIVE, "Minutes for which a protected recording plays after its link was opened.")
    secret_key_base: str = _env("SECRET_KEY_BASE", "", SECRET, "Signs the cookies of protected recordings. Unset: a key that is made and kept in Postgres.")
    s3_recording: bool = _env("S3_RECORDING", default=False, reader=BOOLEAN, manual="Keep the files of recordings in S3-compatible object storage, not in folders.")
    s3_bucket: str = _env("S3_BUCKET_NAME", "", TEXT, "The bucket; it must not be public.")
    aws_region: str = _env("AWS_REGION", "us-east-1", TEXT, "Region of the bucket. AWS_DEFAULT_REGION is taken too.")
    aws_endpoint: str = _env("AWS_ENDPOINT_URL", "", TEXT, "Where the object storage answers, if it is not Amazon's.")
    aws_access_key_id: str = _env("AWS_ACCESS_KEY_ID", "", TEXT, "Names the key that signs requests to the object storage.")
    aws_secret_access_key: str = _env("AWS_SECRET_ACCESS_KEY", "", SECRET, "The key itself.")
    aws_session_token: str = _env("AWS_SESSION_TOKEN", "", SECRET, "Goes with keys that are lent for a time.")
    build_number: str = _env("BUILD_NUMBER", "", TEXT, "Shown by the index.")

    no_color: bool = _env("NO_COLOR", default=False, reader=Reader(bool, "any text"), manual="Set to anything: no colour on terminals.")
    log_level: str = _env("LOG_LEVEL", "info", Reader(_one_of("debug", "info", "warning", "error"), "debug, info, warning or error"), "How much is logged, on standard error. RAILS_LOG_LEVEL is taken too.")
    rails_log_to_stdout: bool = _env("RAILS_LOG_TO_STDOUT", default=False, reader=BOOLEAN, manual="What `scalelite rake` logs goes to standard output, and it logs without LOG_LEVEL.")
    log_format: str = _env("LOG_FORMAT", "text", Reader(_one_of("text", "json"), "text or json"), "One line an event, as text or JSON.")
    auto_migrate: bool = _env("AUTO_MIGRATE", default=True, reader=BOOLEAN, manual="Migrate the database at start.")
    # fmt: on

    @property
    def given(self) -> frozenset[str]:
        """The variables whose values are not the defaults."""
        return frozenset(
            entry.metadata["env"] for entry in fields(self) if getattr(self, entry.name) != entry.default
        )

    @property
    def accepted_algorithms(self) -> tuple[str, ...]:
        """Checksum algorithms that calls may be signed with."""
        return self.checksum_algorithms or ("SHA1", "SHA256", "SHA512")

    @property
    def upstream_algorithm(self) -> str:
        """The algorithm towards servers, where neither cluster nor server says."""
        return max(self.checksum_algorithms, key=ALGORITHMS.index, default="SHA256")

    @property
    def call_secrets(self) -> tuple[str, ...]:
        """The secrets of calls where there are no tenants."""
        return ((self.loadbalancer_secret,) if self.loadbalancer_secret else ()) + self.loadbalancer_secrets

    @property
    def dialin_password(self) -> str | None:
        """The password that FreeSWITCH must give; '' for none on purpose, None for no dial-in."""
        return next(iter(self.call_secrets), None) if self.fsapi_password is None else self.fsapi_password


# Where two names mean one setting, the first is ours.
_ALIASES: Final = {
    "LOG_LEVEL": "RAILS_LOG_LEVEL",
    "AWS_REGION": "AWS_DEFAULT_REGION",
    "SCALELITE_VAULT_PASSWORD_FILE": "ANSIBLE_VAULT_PASSWORD_FILE",
}
_EMPTY_COUNTS: Final = frozenset({"LOADBALANCER_SECRET"})
_EMPTY_IS_A_VALUE: Final = frozenset({"FSAPI_PASSWORD"})


def process_environment() -> dict[str, str]:
    """Return the environment of this process, for the templates of inventories."""
    return dict(os.environ)


def log_is_asked_for() -> bool:
    """Say whether the environment asks for logs, where nothing is logged unless it does (`scalelite rake`)."""
    return any(os.environ.get(name) for name in ("LOG_LEVEL", "RAILS_LOG_LEVEL"))


def tell_children(name: str, value: str) -> None:
    """Set a variable for this process and those that it starts: for libraries that read the environment themselves."""
    os.environ[name] = value


def process_settings() -> Settings:
    """Read the environment of this process; raises SettingInvalid."""
    return read_settings(os.environ)


# What an old deployment's environment says to no effect here (spec/settings.md).
_IGNORED: Final = re.compile(
    r"REDIS_URL|RAILS_.*|PREPARED_STATEMENT|DB_.*|INTERVAL|NGINX_.*|SCALELITE_.*|POLLER_THREADS|DEFAULT_MEETING_TTL"
)


def ignored_settings(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the variables of an old deployment that have no effect, by name."""
    ours = {entry.metadata["env"] for entry in fields(Settings)} | set(_ALIASES.values())
    given = os.environ if environment is None else environment
    return tuple(sorted(name for name in given if _IGNORED.fullmatch(name) and name not in ours))


def _actor(environment: Mapping[str, str]) -> str:
    """Return who acts where nobody says: the CI job with its address, else user@host."""
    if job := environment.get("CI_JOB_URL"):
        return f"{environment.get('GITLAB_USER_LOGIN', 'ci')} {job}"
    if run := environment.get("GITHUB_RUN_ID"):
        repository = f"{environment.get('GITHUB_SERVER_URL', '')}/{environment.get('GITHUB_REPOSITORY', '')}"
        return f"{environment.get('GITHUB_ACTOR', 'ci')} {repository}/actions/runs/{run}"
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such user: a container that runs as any number
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the environment; a value that cannot be meant raises SettingInvalid. An empty value counts as unset."""
    values: dict[str, Any] = {"actor": environment.get("SCALELITE_ACTOR") or _actor(environment)}
    for entry in fields(Settings):
        name: str = entry.metadata["env"]
        text = environment.get(name) or environment.get(_ALIASES.get(name, name), "")
        if text or (name in environment and name in _EMPTY_IS_A_VALUE):
            values[entry.name] = _read(name, text, entry.metadata["reader"])
        elif name in environment and name in _EMPTY_COUNTS:
            raise SettingInvalid(name, "", "a secret, or the variable left out")
    return Settings(**values)


def _read(name: str, text: str, reader: Reader) -> object:
    try:
        return reader.parse(text)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        shown = "(not shown)" if reader.secret else text
        raise SettingInvalid(name, shown, reader.expected) from error
