"""The embedded Postgres, used as commands use it: by real processes that share it, are killed and come back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest

from scalelite.errors import EmbeddedPostgresError
from scalelite.store import embedded_programs
from scalelite.store.embedded import Cluster, Launcher, State, embedded, make_private
from scalelite.store.embedded_programs import Account, copied, find_binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = os.geteuid() == 0
LINGER_S = 0.4
SOURCES = Path(embedded_programs.__file__).parents[2]
COMMAND = """
import sys
from pathlib import Path
from scalelite.store.embedded import embedded
with embedded(Path(sys.argv[1]), linger_s=float(sys.argv[2]), fsync=False) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


def start_command(home: Path, python: Path | str = sys.executable, linger_s: float = LINGER_S, **how: Any) -> Any:
    """Start a process that uses the home until its standard input ends; in a process group of its own."""
    return subprocess.Popen(
        [python, "-c", COMMAND, home, str(linger_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
        **{"env": environment(), **how},
    )


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCES), *sys.path]), **more}


@contextmanager
def command(home: Path, **how: Any) -> Iterator[tuple[Any, str]]:
    """A process that uses the home, and the URL that it was given."""
    with start_command(home, **how) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.stdin.close()


def use(home: Path) -> Any:
    return embedded(home, linger_s=LINGER_S, fsync=False)


def ask(url: str, query: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(cast("Any", query))
        return cursor.fetchone() if cursor.description else None


def wait_for(what: Callable[[], object], timeout_s: float = 8.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline_s, "it did not come about in time"
        time.sleep(0.02)


def is_gone(home: Path) -> bool:
    return Cluster.at(home).state() is State.GONE


def postmaster(home: Path) -> int:
    pid = Cluster.at(home).postmaster()
    assert pid is not None
    return pid


def keeper(home: Path) -> int | None:
    """Find it as an operator does: by its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"scalelite.store.embedded_keeper" in words and os.fsencode(home.resolve()) in words:
            return int(folder.name)
    return None


def launcher(home: Path, **fields: Any) -> Launcher:
    cluster = Cluster.at(home)
    made = Launcher(cluster, account_here(), fsync=False, deadline_s=time.monotonic() + 30)
    return replace(made, **fields)


def account_here() -> Account | None:
    return Account(65534, 65534) if ROOT else None


@pytest.fixture(scope="module")
def homes() -> Iterator[list[Path]]:
    """The homes that were used; in the end neither a server nor a keeper may be left of any."""
    used: list[Path] = []
    yield used
    for folder in used:
        wait_for(lambda: is_gone(folder) and keeper(folder) is None)  # noqa: B023  called at once


@pytest.fixture
def home(tmp_path: Path, homes: list[Path]) -> Path:
    """A home that is not there yet."""
    homes.append(tmp_path / "home")
    return homes[-1]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    launcher(folder).create(find_binaries())
    return folder


@pytest.fixture
def made(template: Path, home: Path) -> Path:
    """A home with a cluster that never ran."""
    subprocess.run(["cp", "-a", template, home], check=True)
    return home


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach, as pytest's cannot be reached where root made it."""
    folder = Path(tempfile.mkdtemp(prefix="scalelite-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


# --- sharing ---------------------------------------------------------------------------------------------------------


@pytest.mark.shows("operations: embedded, all commands on one home share it")
def test_commands_that_start_at_once_on_a_new_home_share_one_cluster(home: Path) -> None:
    commands = [start_command(home) for _ in range(4)]
    urls = {process.stdout.readline().strip() for process in commands}
    assert len(urls) == 1
    url = urls.pop()
    seen = {ask(url, "SELECT pg_postmaster_start_time()") for _ in commands}
    assert len(seen) == 1
    for process in commands:
        process.communicate()
        assert process.returncode == 0


@pytest.mark.shows("operations: embedded, its data is kept")
def test_data_outlive_the_server(made: Path) -> None:
    with use(made) as url:
        ask(url, "CREATE TABLE kept AS SELECT 7 AS it")
    wait_for(lambda: is_gone(made))
    with use(made) as url:
        assert ask(url, "SELECT it FROM kept") == (7,)


@pytest.mark.shows("operations: embedded, it stays after the last one ended")
def test_the_next_command_finds_the_same_server_while_it_lingers(made: Path) -> None:
    with use(made) as url:
        first = ask(url, "SELECT pg_postmaster_start_time()")
    time.sleep(LINGER_S * 0.6)
    with use(made) as url:
        pass
    time.sleep(LINGER_S * 0.6)  # more than the linger after the first, less after the second
    with use(made) as url:
        assert ask(url, "SELECT pg_postmaster_start_time()") == first


@pytest.mark.shows("operations: embedded, then it stops")
def test_it_is_stopped_cleanly_after_its_last_user_was_killed(made: Path) -> None:
    with command(made) as (process, _):
        process.kill()
        process.wait()
        time.sleep(LINGER_S * 0.5)
        assert not is_gone(made)
    wait_for(lambda: is_gone(made))
    assert "database system is shut down" in (made / "postgres.log").read_text()


@pytest.mark.shows("operations: embedded, Ctrl-C of one command does not stop it under another")
def test_ctrl_c_of_the_command_that_started_it_leaves_it_to_the_others(made: Path) -> None:
    with command(made, stderr=subprocess.DEVNULL) as (starter, _), use(made) as url, psycopg.connect(url) as connection:
        os.killpg(starter.pid, signal.SIGINT)
        assert starter.wait() != 0
        time.sleep(LINGER_S * 1.5)
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert keeper(made)


# --- recovery --------------------------------------------------------------------------------------------------------


@pytest.mark.shows("operations: embedded, its data is kept")
def test_a_killed_server_is_recovered_by_the_next_command(made: Path) -> None:
    with command(made) as (_, url):
        ask(url, "CREATE TABLE kept AS SELECT 7 AS it")
        with psycopg.connect(url):  # a process of the dead server that is on its way out
            os.kill(postmaster(made), signal.SIGKILL)
            wait_for(lambda: is_gone(made))
            with use(made) as again:
                assert ask(again, "SELECT it FROM kept") == (7,)


@pytest.mark.shows("operations: embedded, its data is kept")
def test_a_stale_lock_file_that_names_a_stranger_does_not_stop_it(made: Path) -> None:
    with use(made):
        files = [made / "postgres" / name for name in ("postmaster.pid", ".s.PGSQL.5432.lock")]
        kept = [path.read_text() for path in files]
    wait_for(lambda: is_gone(made))
    who = account_here()
    with subprocess.Popen(["sleep", "60"], user=who.uid if who else None) as stranger:
        for path, text in zip(files, kept, strict=True):
            path.write_text(f"{stranger.pid}\n" + text.partition("\n")[2])
            if who:
                os.chown(path, who.uid, who.gid)
        with use(made) as url:
            assert ask(url, "SELECT 1") == (1,)
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.shows("operations: embedded, then it stops")
def test_an_empty_lock_file_after_a_power_cut_does_not_stop_it(made: Path) -> None:
    (made / "postgres" / "postmaster.pid").touch()
    with use(made) as url:
        assert ask(url, "SELECT 1") == (1,)


@pytest.mark.shows("operations: embedded, then it stops")
def test_a_killed_keeper_is_replaced_by_the_next_command(made: Path) -> None:
    with use(made):
        first = keeper(made)
        assert first
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: keeper(made) is None)
        with use(made):
            assert keeper(made)


@pytest.mark.shows("operations: embedded, then it stops")
def test_a_home_that_was_moved_while_it_ran_is_stopped_too(made: Path) -> None:
    with use(made):
        old, pid = Cluster.at(made), postmaster(made)
        moved = made.rename(made.with_name("moved"))
        with use(moved) as url:
            assert ask(url, "SELECT 1") == (1,)
    wait_for(lambda: replace(old, home=moved).postmaster() != pid)
    assert "database system is shut down" in (moved / "postgres.log").read_text()


@pytest.mark.shows("operations: embedded, its data is kept")
@pytest.mark.parametrize("after_s", [0.05, 0.2, 0.35])
def test_a_command_killed_while_it_makes_the_cluster_leaves_no_half_of_one(home: Path, after_s: float) -> None:
    process = start_command(home)
    wait_for((home / "postgres.log").exists)
    time.sleep(after_s)
    process.kill()
    process.communicate()
    with use(home) as url:
        assert ask(url, "SELECT current_database()") == ("scalelite",)
    assert not list(home.glob("postgres.new-*"))


# --- places and people -----------------------------------------------------------------------------------------------


@pytest.mark.shows("operations: embedded, in any folder")
@pytest.mark.parametrize("name", ["space größe 会議", "comma, $(touch x) \"'`", "long" * 30])
def test_a_home_may_be_called_anything(home: Path, name: str) -> None:
    with use(home / name) as url:
        assert ask(url, "SELECT current_database(), current_user") == ("scalelite", "scalelite")
    wait_for(lambda: is_gone(home / name))


@pytest.mark.shows("operations: embedded, as root and as an ordinary user")
@pytest.mark.skipif("not ROOT", reason="then all the other tests run as an ordinary user")
def test_an_ordinary_user_can_use_it(public: Path) -> None:
    folder = public / "of nobody"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    path = os.pathsep.join(map(str, readable_sources(public)))
    how = {"user": 65534, "group": 65534, "extra_groups": [], "cwd": "/", "env": {"PYTHONPATH": path}}
    with command(folder / "home", python=readable_python(), **how) as (_, url):
        assert ask(url, "SELECT current_setting('data_directory')") == (str(folder / "home" / "postgres"),)
    wait_for(lambda: is_gone(folder / "home"))


def readable_python() -> str:
    """Any Python >= 3.11 that nobody can run; that of root's home cannot be."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            check = [python, "-c", "import sys; assert sys.version_info >= (3, 11)"]
            subprocess.run(check, user=65534, group=65534, extra_groups=[], cwd="/", check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.fail("no Python >= 3.11 that an ordinary user can run")


def readable_sources(public: Path) -> list[Path]:
    """Copy our package, and Postgres's programs if they came in a wheel."""
    shutil.copytree(SOURCES / "scalelite", public / "scalelite", ignore=shutil.ignore_patterns("__pycache__"))
    binaries = find_binaries()
    if "pginstall" not in binaries.parent.name:
        return [public]
    return [public, copied(binaries, public).parents[2]]


@pytest.mark.shows("operations: embedded, as root and as an ordinary user")
@pytest.mark.skipif("not ROOT", reason="only root runs Postgres as somebody else")
def test_root_copies_programs_that_the_other_user_cannot_read(home: Path, public: Path, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    hidden = copied(find_binaries(), private)
    launcher(prepared(home), copies=public).create(hidden)
    assert (home / "postgres" / "PG_VERSION").exists()
    assert len(list(public.glob("postgres-*"))) == 1


@pytest.mark.shows("operations: embedded, as root and as an ordinary user")
def test_no_folder_above_the_data_is_opened_to_others(made: Path) -> None:
    made.parent.chmod(0o700)
    with use(made):
        assert made.parent.stat().st_mode & 0o777 == 0o700
        assert (made / "postgres").stat().st_mode & 0o777 == 0o700


@pytest.mark.shows("operations: embedded, a real Postgres")
def test_it_listens_on_no_network_and_keeps_what_it_commits(made: Path) -> None:
    with embedded(made, linger_s=LINGER_S) as url:
        for name, value in (("listen_addresses", ""), ("fsync", "on"), ("synchronous_commit", "on")):
            assert ask(url, f"SHOW {name}") == (value,)
        assert ask(url, "SHOW server_encoding") == ("UTF8",)
        assert ask(url, "SELECT datcollate FROM pg_database WHERE datname = 'scalelite'") == ("C",)


@pytest.mark.shows("operations: embedded, a real Postgres")
def test_the_server_and_its_keeper_get_no_secret_of_the_environment(made: Path) -> None:
    with command(made, env=environment(LOADBALANCER_SECRET="hush")):
        for pid in (postmaster(made), keeper(made)):
            assert b"hush" not in Path(f"/proc/{pid}/environ").read_bytes()


# --- errors ----------------------------------------------------------------------------------------------------------


def prepared(home: Path) -> Path:
    home.mkdir()
    return home


@pytest.mark.shows("operations: embedded, the extra brings the binaries, else those of the system")
def test_without_programs_the_error_names_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedPostgresError) as caught:
        find_binaries(package="no_such_package", system=tmp_path)
    assert "scalelite[embedded]" in caught.value.hint
    assert "DATABASE_URL" in caught.value.hint


@pytest.mark.shows("operations: embedded, the extra brings the binaries, else those of the system")
def test_data_of_an_older_version_are_opened_by_that_version(home: Path) -> None:
    installed = embedded_programs.installed()
    major, older = installed[-1]
    assert len(installed) > 1, "the wheel brings two"
    launcher(prepared(home)).create(older)
    with use(home) as url:
        assert ask(url, "SELECT current_setting('server_version_num')::int / 10000") == (major,)


@pytest.mark.shows("operations: embedded, its data is kept")
def test_data_of_a_version_that_is_not_here_are_left_alone(made: Path) -> None:
    (made / "postgres" / "PG_VERSION").write_text("11\n")
    with pytest.raises(EmbeddedPostgresError, match="was made by Postgres 11; here is Postgres 1") as caught, use(made):
        pass
    assert "install Postgres 11" in caught.value.hint


@pytest.mark.shows("operations: embedded, its data is kept")
def test_a_folder_that_is_no_cluster_is_left_alone(home: Path) -> None:
    (prepared(home) / "postgres").mkdir()
    who = account_here()
    if who:
        os.chown(home / "postgres", who.uid, who.gid)
    with pytest.raises(EmbeddedPostgresError, match="is no data folder of Postgres"), use(home):
        pass


@pytest.mark.shows("operations: embedded, a real Postgres")
def test_a_failed_start_tells_what_the_server_said(made: Path) -> None:
    with (made / "postgres" / "postgresql.conf").open("a") as file:
        file.write("max_connections = many\n")
    with pytest.raises(EmbeddedPostgresError, match='invalid value for parameter "max_connections": "many"'), use(made):
        pass


@pytest.mark.shows("operations: embedded, a real Postgres")
def test_a_home_that_cannot_be_made_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedPostgresError, match="Not a directory"), use(tmp_path / "file" / "home"):
        pass


@pytest.mark.shows("operations: embedded, in any folder")
def test_a_socket_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    open_to_all, link = tmp_path / "open", tmp_path / "link"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    link.symlink_to(tmp_path)
    for folder in (open_to_all, link):
        with pytest.raises(EmbeddedPostgresError, match="with mode 0700"):
            make_private(folder, None)
