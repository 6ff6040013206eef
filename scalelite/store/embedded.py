"""A real Postgres that lives in a home folder: find its programs, start it or join it; never TCP, never a new account.

All commands on one home share one cluster. Four files beside its data hold that together:

    HOME/postgres          the data folder, mode 0700, with the socket inside where its path is short enough
    HOME/postgres.log      what initdb, pg_ctl and the server say
    HOME/postgres.users    each user holds a shared flock for as long as it lives, however it dies
    HOME/postgres.lock     an exclusive flock serialises starts
    HOME/postgres.keeper   the flock of the keeper (`embedded_keeper`), which stops the server when no user is left

The kernel takes back the flocks of a dead process, so nothing here goes stale after kill -9.

Postgres refuses to run as root: root runs it as `nobody`. That user often cannot reach a home (below /root, say), so it
is given an open descriptor of the data folder, as /proc/self/fd/N: such a link needs no permission on the parents. Thus
the data stay in the home, are moved and removed with it, and no folder's mode is widened.

Only the standard library is used, so that any Python can run this. Linux only: /proc/self/fd, and /proc tells our
postmaster from a stranger that was given its process id.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never
from urllib.parse import quote

from scalelite.errors import EmbeddedPostgresError
from scalelite.store.embedded_programs import Account, copied, find_binaries, installed, version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

START_TIMEOUT_S: Final = 30.0
SOCKET_NAME: Final = ".s.PGSQL.5432"
SOCKET_PATH_BYTES: Final = 107  # sun_path of Linux without its final NUL
LOG_BYTES: Final = 2**20  # beyond this, a start puts the log aside
# No process has this id, as Linux ends at 2**22; Postgres takes a lock file that names it for a dead server's.
NOBODYS_PID: Final = 2**31 - 1
COPIES: Final = Path("/var/cache/scalelite")


class State(Enum):
    """What of a cluster's server can be seen from outside."""

    GONE = auto()
    BUSY = auto()  # starts, recovers or stops
    READY = auto()


@dataclass(frozen=True, slots=True)
class Cluster:
    """One home's cluster: where its parts lie, and whether its server runs. `tag` is the server's name."""

    home: Path
    tag: str

    @classmethod
    def at(cls, home: Path) -> Cluster:
        """The cluster of a home, whichever way its path is written."""
        real = home.resolve()
        return cls(real, f"scalelite-{hashlib.sha256(os.fsencode(real)).hexdigest()[:16]}")

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.home / "postgres"

    @property
    def log(self) -> Path:
        """What initdb, pg_ctl and the server say."""
        return self.home / "postgres.log"

    @property
    def socket_folder(self) -> Path:
        """The data folder: private already, and cleared by no reaper of /tmp. Else a short one in /tmp.

        The path must fit into a socket's address, and libpq splits a host at commas.
        """
        inside = os.fsencode(self.data / SOCKET_NAME)
        if len(inside) <= SOCKET_PATH_BYTES and b"," not in inside:
            return self.data
        return Path("/tmp", self.tag)  # noqa: S108  checked for owner and mode in make_private

    @property
    def url(self) -> str:
        """A libpq URL of the database, whole: no PGPORT or PGUSER leads it astray."""
        host = quote(os.fsencode(self.socket_folder), safe="")
        return f"postgresql:///scalelite?host={host}&port=5432&user=scalelite"

    def state(self) -> State:
        """Look whether the server runs and takes connections; well under a millisecond."""
        lines = self._pid_file()
        if self._answers():
            return State.READY if len(lines) > 7 and lines[7].strip() == "ready" else State.BUSY
        return State.BUSY if self.postmaster() is not None else State.GONE

    def postmaster(self) -> int | None:
        """The id of the server's process, None if it is dead, a zombie, or its id is now a stranger's."""
        with suppress(OSError, ValueError, IndexError):
            pid = int(self._pid_file()[0])
            if f"cluster_name={self.tag}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
        return None

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(os.fsencode(self.socket_folder / SOCKET_NAME))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            except (TimeoutError, BlockingIOError):  # its queue is full: frozen or overrun, not gone
                return True
        return True


@contextmanager
def embedded(home: Path, *, linger_s: float = 30.0, fsync: bool = True) -> Iterator[str]:
    """Yield a libpq URL to the database `scalelite` of the cluster in `home`, made, started or joined as need be.

    `linger_s` (how long the server outlives its last user) and `fsync` are those of the command that started it.
    Without fsync, what was committed survives any kill -9, but not a power cut.
    Raises EmbeddedPostgresError: no programs, another version's data, another user's data, or no start within 30 s.
    """
    deadline_s = time.monotonic() + START_TIMEOUT_S
    with ExitStack() as held:
        with _told(home):
            home.mkdir(parents=True, exist_ok=True)
            cluster = Cluster.at(home)
            users = held.enter_context(flocked(cluster.home / "postgres.users", fcntl.LOCK_SH, deadline_s))
            os.utime(users)  # tells the keeper, which sleeps while it lingers, that somebody was here
            _ensure_running(cluster, linger_s=linger_s, fsync=fsync, deadline_s=deadline_s)
        yield cluster.url


@contextmanager
def flocked(path: Path, how: int, deadline_s: float) -> Iterator[int]:
    """Hold a flock on `path` (made if missing) and yield its descriptor; EmbeddedPostgresError when time runs out."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    pause_s = 0.001  # most often it is the keeper, that only looks whether anybody is there
    try:
        while not try_flock(fd, how):
            if time.monotonic() > deadline_s:
                raise EmbeddedPostgresError(
                    f"{path}: another command has been starting or stopping Postgres for {START_TIMEOUT_S:g} s",
                    hint=f"see {path.with_suffix('.log')}, or who holds the lock: fuser -v {path}",
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.05)
        yield fd
    finally:
        os.close(fd)


def try_flock(fd: int, how: int) -> bool:
    """Whether the flock was had at once."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# --- start -----------------------------------------------------------------------------------------------------------


def _ensure_running(cluster: Cluster, *, linger_s: float, fsync: bool, deadline_s: float) -> None:
    if cluster.state() is State.READY:
        _ensure_keeper(cluster, linger_s)
        return
    with flocked(cluster.home / "postgres.lock", fcntl.LOCK_EX, deadline_s):
        launcher = Launcher(cluster, account=_account(cluster.data), fsync=fsync, deadline_s=deadline_s)
        if not os.path.lexists(cluster.data):
            launcher.create(find_binaries())
        # Before the server: were we killed in between, it would never be stopped.
        _ensure_keeper(cluster, linger_s)
        launcher.start()


def _ensure_keeper(cluster: Cluster, linger_s: float) -> None:
    """Start a keeper unless one lives. It inherits the locked file, so that there is never a second or a gap."""
    fd = os.open(cluster.home / "postgres.keeper", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_APPEND, 0o600)
    try:
        if try_flock(fd, fcntl.LOCK_EX):
            subprocess.run(  # noqa: S603  our own module
                [sys.executable, "-m", "scalelite.store.embedded_keeper", cluster.home, f"{linger_s:g}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=fd,  # as well its log as its lock
                cwd="/",
                env={"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONSAFEPATH": "1"},
                start_new_session=True,
                timeout=START_TIMEOUT_S,
                check=True,
            )
    finally:
        os.close(fd)


def _account(data: Path) -> Account | None:
    """Whom to run Postgres as; None for oneself, which is refused if the data are somebody else's."""
    me = os.geteuid()
    try:
        owner = data.stat()
    except FileNotFoundError:
        if me != 0:
            return None
        nobody = pwd.getpwnam("nobody")
        return Account(nobody.pw_uid, nobody.pw_gid)
    if me == 0 and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    if me != owner.st_uid or me == 0:
        raise EmbeddedPostgresError(
            f"{data} belongs to user {owner.st_uid}" + (", as whom Postgres does not run" if me == 0 else ""),
            hint="give it to an ordinary user (chown -R), run as that user, or choose another SCALELITE_HOME",
        )
    return None


@dataclass(frozen=True, slots=True)
class Launcher:
    """Makes and starts a cluster; its caller holds the lock on starts. Times out at `deadline_s` (monotonic)."""

    cluster: Cluster
    account: Account | None
    fsync: bool
    deadline_s: float
    copies: Path = COPIES

    def create(self, binaries: Path) -> None:
        """Make the cluster and its database beside their place, then rename: whole or not at all, wherever killed."""
        home = self.cluster.home
        self._clear(home)
        new = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=home))
        self._give(new)
        binaries = self._usable(binaries)
        options = ["-A", "trust", "-U", "scalelite", "--locale=C", "-E", "UTF8", "--no-instructions"]
        self._run(new, [binaries / "initdb", *options, *([] if self.fsync else ["--no-sync"])])
        # A server of one process, without sockets. It ends well whatever becomes of its statements.
        said = self._run(new, [binaries / "postgres", "--single", "template1"], b"CREATE DATABASE scalelite\n")
        if "ERROR:" in said:
            raise EmbeddedPostgresError(f"the database could not be made in {home}:\n{said}")
        new.rename(self.cluster.data)
        if self.fsync:
            _sync(home)

    def _clear(self, home: Path) -> None:
        """Remove what a killed command began; its initdb lives on, and writes, until its folder is gone under it."""
        while left := list(home.glob("postgres.new-*")):
            for folder in left:
                shutil.rmtree(folder, ignore_errors=True)
            if time.monotonic() > self.deadline_s:
                raise self._failed("what a killed command began cannot be removed", str(left[0]))

    def start(self) -> None:
        """Return when the server takes connections; it may be starting or recovering already."""
        binaries = None
        while (state := self.cluster.state()) is not State.READY:
            match state:
                case State.GONE:
                    binaries = binaries or self._usable(self._matching())
                    self._disarm()
                    self._launch(binaries)
                case State.BUSY:
                    time.sleep(0.02)
                case _:
                    assert_never(state)
            if time.monotonic() > self.deadline_s:
                raise self._failed(f"Postgres was not ready within {START_TIMEOUT_S:g} s", tail(self.cluster.log))

    def _launch(self, binaries: Path) -> None:
        """One try. It may fail because processes of a killed server are on their way out, and is then worth another."""
        folder = self.cluster.socket_folder
        if folder != self.cluster.data:
            make_private(folder, self.account)
        # pg_ctl gives the options to a shell: nothing goes in that holds the home's name. Its socket in "." is in the
        # data folder. C messages, as the ones below are looked for.
        options = [
            "-k", "." if folder == self.cluster.data else str(folder),
            "-c", "listen_addresses=''",
            "-c", f"cluster_name={self.cluster.tag}",
            "-c", "log_checkpoints=off",
            *([] if self.fsync else ["-c", "fsync=off", "-c", "full_page_writes=off"]),
        ]  # fmt: skip
        wait_s = max(1, int(self.deadline_s - time.monotonic()))
        waiting = ["start", "-s", "-w", "-t", str(wait_s)]
        try:
            self._run(self.cluster.data, [binaries / "pg_ctl", *waiting, "-o", " ".join(options)])
        except EmbeddedPostgresError as error:
            if "is still in use" not in error.message and "already exists" not in error.message:
                raise
            time.sleep(0.1)

    def _run(self, data: Path, args: Sequence[str | Path], stdin: bytes = b"") -> str:
        """Run a program on `data` as the account, its output into the log; return that output, or raise with its end.

        A file and no pipe: the server inherits it, and a pipe would not end before the server does. Its own session:
        Ctrl-C on a terminal does not reach it. Nothing of our environment, which may hold secrets.
        """
        log = os.open(self.cluster.log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
        who = self.account
        try:
            begin = os.fstat(log).st_size
            done = subprocess.run(  # noqa: S603  Postgres's own programs
                args,
                input=stdin,
                stdout=log,
                stderr=log,
                pass_fds=(folder,) if who else (),
                user=who.uid if who else None,
                group=who.gid if who else None,
                extra_groups=[] if who else None,
                cwd="/",
                env={
                    "PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC",
                    "PGDATA": f"/proc/self/fd/{folder}" if who else str(data),
                },
                umask=0o077,
                start_new_session=True,
                timeout=max(1, self.deadline_s - time.monotonic()) + 1,
                check=False,
            )  # fmt: skip
            said = os.pread(log, LOG_BYTES, begin).decode(errors="replace")
        finally:
            os.close(folder)
            os.close(log)
        if done.returncode != 0:
            raise self._failed(f"{Path(args[0]).name} failed (status {done.returncode})", _last_lines(said))
        return said

    def _failed(self, what: str, said: str) -> EmbeddedPostgresError:
        return EmbeddedPostgresError(f"{self.cluster.home}: {what}:\n{said}", hint=f"see {self.cluster.log}")

    def _give(self, folder: Path) -> None:
        if self.account:
            os.chown(folder, self.account.uid, self.account.gid, follow_symlinks=False)

    def _disarm(self) -> None:
        """Make the files of a dead server harmless.

        Postgres takes them for a live one's if the process id was given to another process of the same user. The id in
        the data folder's file is replaced rather than the file removed, as that also names the shared memory by which
        Postgres finds processes of the dead server that still write.
        """
        if self.cluster.log.exists() and self.cluster.log.stat().st_size > LOG_BYTES:
            self.cluster.log.replace(self.cluster.log.with_suffix(".log.1"))
        (self.cluster.socket_folder / f"{SOCKET_NAME}.lock").unlink(missing_ok=True)
        path = self.cluster.data / "postmaster.pid"
        if not path.exists():
            return
        _, _, rest = path.read_text().partition("\n")
        path.unlink() if not rest else self._replace(path, f"{NOBODYS_PID}\n{rest}")

    def _replace(self, path: Path, text: str) -> None:
        fd, new = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # follows no link that others put there
        with open(fd, "w") as file:  # noqa: PTH123  a descriptor
            if self.account:
                os.fchown(fd, self.account.uid, self.account.gid)
            file.write(text)
        Path(new).replace(path)

    def _matching(self) -> Path:
        """The programs of the version that made the data: no other can read them."""
        data = self.cluster.data
        try:
            made_by = int((data / "PG_VERSION").read_text())
        except (FileNotFoundError, ValueError):
            raise EmbeddedPostgresError(
                f"{data} is no data folder of Postgres", hint="move it away, or choose another SCALELITE_HOME"
            ) from None
        found = dict(reversed(installed()))
        if made_by not in found:
            raise EmbeddedPostgresError(
                f"{data} was made by Postgres {made_by}; here is Postgres {', '.join(map(str, sorted(found)))}",
                hint=f"install Postgres {made_by}, or dump it with that (pg_dump) and restore it into a new home",
            )
        return found[made_by]

    def _usable(self, binaries: Path) -> Path:
        """The programs, or a copy of them where the account cannot read them."""
        if self.account is None or version(binaries, self.account):
            return binaries
        self.copies.mkdir(parents=True, exist_ok=True)
        self.copies.chmod(0o755)  # whatever the umask
        with flocked(self.copies / "postgres.lock", fcntl.LOCK_EX, self.deadline_s):
            return copied(binaries, self.copies)


def make_private(folder: Path, account: Account | None) -> None:
    """Make a folder that only `account` (or oneself) may enter; refuse one that another user has put there."""
    owner = account.uid if account else os.geteuid()
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if account and found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode):
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
        found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or stat.S_IMODE(found.st_mode) & 0o077:
        raise EmbeddedPostgresError(
            f"{folder} must be a folder of user {owner} with mode 0700", hint="another user made it: remove it"
        )


# --- words -----------------------------------------------------------------------------------------------------------


def tail(log: Path) -> str:
    """The last lines of a log, or nothing."""
    try:
        return _last_lines(log.read_text(errors="replace"))
    except FileNotFoundError:
        return ""


def _last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-10:])


@contextmanager
def _told(home: Path) -> Iterator[None]:
    """Turn what the system says into our error."""
    try:
        yield
    except subprocess.SubprocessError as error:
        raise EmbeddedPostgresError(
            f"{home}: {error}\n{tail(home / 'postgres.log')}",
            hint=f"see {home / 'postgres.log'} and {home / 'postgres.keeper'}",
        ) from error
    except OSError as error:
        where = error.filename or home
        raise EmbeddedPostgresError(
            f"the embedded Postgres in {home} cannot be started: {where}: {error.strerror}",
            hint="choose another SCALELITE_HOME, or set DATABASE_URL",
        ) from error


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
