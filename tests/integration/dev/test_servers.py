"""Promises of the room `dev/`: real servers, gone with their parent, data kept over a restart."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dev.cache import cache_dir, part
from dev.ports import free_port, is_free
from dev.postgres import Postgres
from dev.process import OwnedProcess, Program, ServerFailedError
from dev.stack import Stack, WantedPorts, create_api_login
from tests.fixtures.waiting import PATIENCE_S, eventually

SLEEPER = Program(name="sleeper", command=["/bin/sleep", "600"], cwd=Path("/"), environment={})

# What a doomed parent does: start both kinds of child, tell their pids, and wait to be shot.
DOOMED_PARENT = """
import sys, threading
from pathlib import Path
from dev.postgres import Postgres
from dev.process import OwnedProcess, Program

server = Postgres()
server.start()
program = Program(name="sleeper", command=["/bin/sleep", "600"], cwd=Path("/"), environment={})
sleeper = OwnedProcess(program, Path(sys.argv[1]))
sleeper.start()
print(server.process.pid, sleeper.pid, server.home, flush=True)
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack(train=False) as running:
        yield running


def test_the_owner_of_the_database_is_no_superuser(stack: Stack) -> None:
    with psycopg.connect(stack.database_url) as connection:
        row = connection.execute("SELECT current_user, current_setting('is_superuser')").fetchone()
        connection.execute("CREATE SCHEMA owned")
    assert row == ("viewkeeper", "off")


def test_durability_is_as_postgresql_ships_it(stack: Stack) -> None:
    names = ("fsync", "synchronous_commit", "full_page_writes")
    with psycopg.connect(stack.database_url) as connection:
        rows = [connection.execute(f"SHOW {name}").fetchone() for name in names]
    assert rows == [("on",), ("on",), ("on",)]


def test_the_api_login_reads_through_its_role_and_cannot_write(stack: Stack) -> None:
    with psycopg.connect(stack.database_url) as connection:
        connection.execute("CREATE TABLE readable (id integer)")
        connection.execute("GRANT SELECT ON readable TO viewkeeper_reader")
    with psycopg.connect(stack.api_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM readable").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO readable VALUES (1)")


def test_making_the_api_login_again_changes_its_password(stack: Stack) -> None:
    create_api_login(stack.database_url, password="first", login="second_api")
    create_api_login(stack.database_url, password="other", login="second_api")
    psycopg.connect(stack.postgres.dsn("viewkeeper", "second_api", "other")).close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(stack.postgres.dsn("viewkeeper", "second_api", "first"))


def test_a_database_is_cloned_with_its_content(stack: Stack) -> None:
    source = stack.postgres.create_database("source")
    with psycopg.connect(source) as connection:
        connection.execute("CREATE TABLE copied AS SELECT 7 AS seven")
    clone = stack.postgres.create_database("clone", template="source")
    with psycopg.connect(clone) as connection:
        assert connection.execute("SELECT seven FROM copied").fetchone() == (7,)
    stack.postgres.drop_database("clone")


def test_postgresql_keeps_committed_rows_over_a_kill(stack: Stack) -> None:
    with psycopg.connect(stack.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    stack.postgres.kill()
    assert not stack.postgres.answers()
    stack.postgres.start()
    with psycopg.connect(stack.database_url) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)


def test_kafka_keeps_topics_over_a_kill_and_stays_the_same_cluster(stack: Stack) -> None:
    stack.kafka.create_topic("kept", partitions=3)
    stack.kafka.kill()
    stack.kafka.start()
    metadata = stack.kafka.admin().list_topics(timeout=30)
    assert len(metadata.topics["kept"].partitions) == 3
    assert metadata.cluster_id == stack.kafka.cluster_id


def test_the_registry_keeps_schemas_and_ids_over_a_kill(stack: Stack) -> None:
    registered = _post(f"{stack.registry.url}/subjects/kept/versions", {"schema": '"string"'})
    stack.registry.kill()
    assert not stack.registry.answers()
    stack.registry.start()
    with urllib.request.urlopen(f"{stack.registry.url}/subjects/kept/versions/1") as response:
        assert json.load(response)["id"] == registered["id"]


def test_a_frozen_registry_answers_again_after_the_thaw(stack: Stack) -> None:
    stack.registry.freeze()
    assert not stack.registry.answers()
    stack.registry.thaw()
    eventually(stack.registry.answers, PATIENCE_S, "the registry answers")


def test_a_standby_follows_and_can_be_promoted(stack: Stack) -> None:
    standby = stack.postgres.standby()
    try:
        with psycopg.connect(stack.database_url) as connection:
            connection.execute("CREATE TABLE followed AS SELECT 1 AS one")
        standby.promote()
        with psycopg.connect(standby.dsn("viewkeeper")) as connection:
            assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
    finally:
        standby.close()


def test_a_wanted_port_that_is_taken_is_replaced_and_said() -> None:
    taken = Postgres()
    taken.start()
    said: list[str] = []
    try:
        stack = Stack(ports=WantedPorts(postgres=taken.port), say=said.append)
        stack.close()
    finally:
        taken.close()
    assert stack.postgres.port != taken.port
    assert said == [f"port {taken.port} is taken: PostgreSQL uses {stack.postgres.port}"]


def test_closing_leaves_no_process_and_no_files() -> None:
    server = Postgres()
    server.start()
    server.close()
    assert not server.process.running
    assert not server.home.exists()
    assert is_free(server.port)


def test_a_server_that_cannot_start_shows_the_reason() -> None:
    server = Postgres(settings={"no_such_setting": "1"})
    with pytest.raises(ServerFailedError, match=r"ended with code 1(.|\n)*no_such_setting"):
        server.start()
    server.close()


def test_a_parent_that_is_killed_leaves_nothing_running(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DOOMED_PARENT, str(tmp_path / "sleeper.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server, sleeper, home = parent.stdout.readline().split()
        assert _exists(int(server))
        assert _exists(int(sleeper))
        parent.send_signal(signal.SIGKILL)
    eventually(
        lambda: not _exists(int(server)) and not _exists(int(sleeper)),
        PATIENCE_S,
        "both processes are gone",
    )
    shutil.rmtree(home)


def test_a_child_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    child = OwnedProcess(SLEEPER, tmp_path / "sleeper.log")
    thread = threading.Thread(target=child.start)
    thread.start()
    thread.join()
    with pytest.raises(ServerFailedError, match=r"did not end within 0\.2 s"):
        child.wait(0.2)
    child.kill()
    assert not child.running


def test_a_frozen_child_can_be_stopped(tmp_path: Path) -> None:
    child = OwnedProcess(SLEEPER, tmp_path / "sleeper.log")
    child.start()
    child.freeze()
    child.stop()
    assert child.wait(0.0) == -signal.SIGTERM


def test_two_ports_are_never_the_same() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == len(ports)


def test_a_part_that_failed_is_not_kept_and_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIEWKEEPER_CACHE_DIR", str(tmp_path))

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("cut")

    with pytest.raises(OSError, match="cut"):
        part("thing", fail)
    left_over = tmp_path / ".thing.of-a-killed-process.staging"
    left_over.mkdir()
    folder = part("thing", lambda staging: (staging / "whole").touch())
    assert [file.name for file in folder.iterdir()] == ["whole"]
    assert not left_over.exists()


def test_a_part_asked_for_twice_at_once_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIEWKEEPER_CACHE_DIR", str(tmp_path))
    made: list[Path] = []
    both = threading.Barrier(2)

    def ask() -> None:
        both.wait()
        part("thing", made.append)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (cache_dir() / "thing").is_dir()


def _post(url: str, body: dict[str, str]) -> dict[str, int]:
    headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(request) as response:
        answer: dict[str, int] = json.load(response)
    return answer


def _exists(pid: int) -> bool:
    """Whether the process runs: a zombie that its new parent has not reaped yet does not."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
