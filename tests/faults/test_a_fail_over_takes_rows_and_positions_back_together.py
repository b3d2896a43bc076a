"""The primary dies and its standby takes over: with commits missing, or with none."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.faults.harness.bites import Bites
from tests.faults.harness.field import Field
from tests.faults.harness.ground import Ground, Place
from tests.faults.harness.pair import Pair
from tests.fixtures.databases import migrate
from tests.fixtures.topics import recreate_topics
from tests.fixtures.waiting import PATIENCE_S, eventually
from tests.integration.api.conftest import settings
from views.positions import parse_position

FAILED_OVER: Final = "fail-over to a standby"
WENT_BACK: Final = "position gone back in a fail-over"
_BACK_S: Final = PATIENCE_S
Positions = Mapping[tuple[str, int], int]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A primary and a standby of the test's own."""
    with Pair() as servers:
        yield servers


@pytest.fixture
def ground(field: Field, pair: Pair, tmp_path: Path, bites: Bites) -> Iterator[Ground]:
    """Workers that are told of both servers and find the primary by themselves."""
    recreate_topics(field.stack.kafka.bootstrap_servers, partitions=3)
    place = Place(
        dsn=pair.dsn,
        postgres_port=pair.primary.port,
        bootstrap=field.stack.kafka.bootstrap_servers,
        registry_url=field.stack.registry.url,
        ids=field.ids,
        group=f"pair-{pair.primary.port}",
        seed=field.seed,
    )
    with Ground(place, tmp_path, bites) as made:
        yield made


class Reader:
    """A session of the API: what it saw, and that it never goes back."""

    def __init__(self, client: TestClient) -> None:
        self._client = client
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.tokens: list[str] = []
        self.codes: set[str] = set()

    def ask(self) -> str | None:
        """The position of an answer that holds what was seen before; None: refused."""
        body: dict[str, Any] = {"query": "{ position { token } }"}
        if self.tokens:
            body["extensions"] = {"consistency": {"atLeast": self.tokens[-1], "timeoutMs": 200}}
        answer = self._client.post("/graphql", json=body).json()
        if "errors" in answer:
            self.codes |= {error["extensions"]["code"] for error in answer["errors"]}
            return None
        token = str(answer["data"]["position"]["token"])
        if self.tokens:
            assert parse_position(token).includes(parse_position(self.tokens[-1])), "it went back"
        self.tokens.append(token)
        return token

    def _run(self) -> None:
        while not self._stopping.wait(0.01):
            self.ask()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Asking all the time."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._thread.join()


@pytest.fixture
def reader(pair: Pair) -> Iterator[Reader]:
    """A session of an API that is told of both servers."""
    with TestClient(create_app(settings(pair.api_dsn))) as client:
        yield Reader(client)


def _went_back(before: Positions, after: Positions) -> dict[tuple[str, int], int]:
    return {p: n - after.get(p, 0) for p, n in before.items() if after.get(p, 0) < n}


def test_commits_lost_in_a_fail_over_are_read_and_applied_again(
    pair: Pair, ground: Ground, reader: Reader
) -> None:
    trickle = ground.trickle(ground.traffic(4_000, seed=21), per_s=250)
    ground.wait_for_share(ground.worker(), ground.worker())
    ground.wait_for_progress(200)
    pair.part()
    ground.wait_for_progress(400)
    assert reader.ask() is not None
    acknowledged = pair.positions(pair.primary)
    pair.primary.kill()
    kept = pair.positions(pair.standby)
    lost = _went_back(acknowledged, kept)
    assert sum(lost.values()) >= 300, f"hardly a commit was lost: {lost}"
    ground.bites.bit(WENT_BACK, len(lost))
    assert _went_back(parse_position(reader.tokens[-1]).next_offsets, kept), "it saw what is lost"
    pair.standby.promote()
    ground.bites.bit(FAILED_OVER)
    # What the session saw is not there yet: it is told so, and waits, and never goes back.
    eventually(reader.ask, _BACK_S, "the session's events are in again")
    assert reader.codes <= {"STALE", "UNAVAILABLE"}
    trickle.stop()
    ground.must_be_right()
    assert not _went_back(acknowledged, ground.positions())
    migrate(pair.dsn)  # finds the new primary too


@pytest.mark.parametrize("level", ["on", pytest.param("remote_apply", marks=pytest.mark.proof)])
def test_with_synchronous_replication_nothing_that_a_reader_saw_is_lost(
    pair: Pair, ground: Ground, reader: Reader, level: str
) -> None:
    pair.wait_for_each_other(level)
    trickle = ground.trickle(ground.traffic(4_000, seed=22), per_s=250)
    ground.wait_for_share(ground.worker(), ground.worker())
    with reader.at_work():
        ground.wait_for_progress(400)
        pair.primary.kill()
    pair.replayed()
    kept = pair.positions(pair.standby)
    assert len(set(reader.tokens)) > 5, "it saw nothing move"
    for token in reader.tokens:
        assert not _went_back(parse_position(token).next_offsets, kept), f"{token} is lost"
    pair.standby.promote()
    ground.bites.bit(FAILED_OVER)
    eventually(reader.ask, _BACK_S, "the API answers from the new primary")
    trickle.stop()
    ground.must_be_right()
