"""Dead letters and builds: open and discarded ones stay out, redriven ones go in, none twice."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from psycopg import Connection

from ingest.errors import RefusedError
from rebuild import run, swap
from rebuild.redriven import Row, Taker
from rebuild.report import Options
from tests.fixtures.databases import Database, DatabaseServer
from tests.integration.dead_letters.scene import LateSchema, Scene
from tests.integration.rebuild.parts import (
    Interrupting,
    Log,
    Watcher,
    builds,
    execute,
    live,
    offsets,
    value,
    wait_until_live_includes,
    worker,
)
from tests.integration.rebuild.racing import mend, once_before
from views.positions import PositionVector

PREFIX = "late"


@dataclass(slots=True)
class Late:
    """Three orders that were dead for want of their schema; it is known by now."""

    scene: Scene
    shop: Database
    first: int = field(init=False)

    def __post_init__(self) -> None:
        self.first = min(number for number, _state in self.letters())

    def letters(self) -> list[tuple[int, str]]:
        """Number and state of each."""
        return [
            (number, state)
            for number, state in self.scene.query(
                "SELECT id, state FROM ingest.dead_letters"
                " WHERE convert_from(key, 'UTF8') LIKE %s ORDER BY id",
                f"{PREFIX}-%",
            )
        ]

    def redrive(self, *numbers: int) -> None:
        """`viewkeeper dead-letters redrive ID ...`."""
        for number in numbers:
            self.scene.run("dead-letters", "redrive", str(number))

    def held_by(self, build: str) -> list[str]:
        """Which of the orders a build shows."""
        rows = self.scene.query(
            f"SELECT order_id FROM {build}.orders WHERE visible AND order_id LIKE %s ORDER BY 1",
            f"{PREFIX}-%",
        )
        return [str(row[0]) for row in rows]

    def orders(self, *numbers: int) -> list[str]:
        """The ids of the orders of letters."""
        return sorted(
            str(row[0])
            for number in numbers
            for row in self.scene.query(
                "SELECT convert_from(key, 'UTF8') FROM ingest.dead_letters WHERE id = %s", number
            )
        )

    def count(self) -> int:
        """Dead letters on record, all of them."""
        return int(value(self.shop, "SELECT count(*) FROM ingest.dead_letters"))


@pytest.fixture(scope="module")
def buried(log: Log, read: Database, database_server: DatabaseServer) -> Iterator[Database]:
    """A database whose worker had to bury three orders; their schema was registered afterwards."""
    schema = LateSchema(log.registry, "rebuilt")
    database = database_server.create(template=read.name)
    scene = Scene(dsn=database.dsn, bootstrap=log.bootstrap, registry=log.registry, ids=log.ids)
    scene.tell(scene.of_schema(schema.id, 3, prefix=PREFIX))
    with worker(log.settings(database)):
        wait_until_live_includes(database, log.end())
    schema.register()
    yield database
    database_server.drop(database)


@pytest.fixture
def shop(buried: Database, database_server: DatabaseServer) -> Iterator[Database]:
    """A copy of it for one test."""
    copy = database_server.create(template=buried.name)
    yield copy
    database_server.drop(copy)


@pytest.fixture
def late(log: Log, shop: Database) -> Late:
    """The three letters of a test's own database, all open."""
    scene = Scene(dsn=shop.dsn, bootstrap=log.bootstrap, registry=log.registry, ids=log.ids)
    made = Late(scene, shop)
    assert [state for _number, state in made.letters()] == ["open"] * 3
    return made


def test_open_and_discarded_ones_stay_out_and_redriven_ones_go_in(
    log: Log, shop: Database, watcher: Watcher, late: Late
) -> None:
    (_open, gone, back) = (number for number, _state in late.letters())
    late.scene.run("dead-letters", "discard", str(gone))
    late.redrive(back)
    before = late.count()
    settings, stop = log.settings(shop), threading.Event()
    report = run.rebuild(settings, Options(), watcher, stop)
    assert report.ok, report.result
    assert report.result is not None
    assert report.result.notes == []
    assert live(shop) == report.build
    assert late.held_by(report.build) == late.held_by("build_1") == late.orders(back)
    assert late.count() == before
    assert [state for _number, state in late.letters()] == ["open", "discarded", "redriven"]
    assert log.judge(shop, report.build) == []
    assert run.verify(settings, Options(), watcher, stop).ok


@pytest.mark.parametrize(
    "moment",
    [
        "build_",
        pytest.param("aggregates and indexes", marks=pytest.mark.proof),
        "comparing every row",
    ],
)
def test_one_that_is_redriven_while_a_rebuild_runs_is_in_the_new_build(
    moment: str, log: Log, shop: Database, late: Late
) -> None:
    watcher = Interrupting(at=moment, call=lambda: late.redrive(late.first))
    with worker(log.settings(shop)):
        report = run.rebuild(log.settings(shop), Options(), watcher, threading.Event())
    assert watcher.called == 1
    assert report.ok, report.result
    assert late.held_by(report.build) == late.orders(late.first)
    assert log.judge(shop, report.build) == []


def test_one_that_is_redriven_between_swap_and_rollback_is_in_both_builds(
    log: Log, shop: Database, watcher: Watcher, late: Late
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    (one, two, three) = (number for number, _state in late.letters())
    with worker(settings):
        built = run.rebuild(settings, Options(), watcher, stop).build
        late.redrive(one)
        run.roll_back(settings, watcher, stop, now=False)
        assert live(shop) == "build_1"
        assert late.held_by("build_1") == late.orders(one)
        late.redrive(two)
        run.roll_back(settings, watcher, stop, now=True)
        assert live(shop) == built
        assert late.held_by(built) == late.orders(one, two)
        late.redrive(three)
        log.produce(seed=310, orders=10)
        wait_until_live_includes(shop, log.end())
        run.roll_back(settings, watcher, stop, now=False)
    for build in (built, "build_1"):
        assert late.held_by(build) == late.orders(one, two, three)
        assert log.judge(shop, build) == []
    assert run.verify(settings, Options(), watcher, stop).ok


def test_a_fixed_decoder_brings_open_ones_in_and_the_swap_closes_them(
    log: Log, shop: Database, watcher: Watcher, late: Late
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    waiting = [number for number, state in late.letters() if state == "open"]
    late.scene.run("dead-letters", "discard", str(waiting[0]))
    done = run.rebuild(settings, Options(retry_letters=True), watcher, stop)
    assert done.swapped is not None
    assert len(done.swapped.retried) >= 2  # conflicts that newer versions have settled, too
    assert [state for _number, state in late.letters()] == ["discarded", "redriven", "redriven"]
    assert late.held_by(done.build) == late.orders(*waiting[1:])
    assert log.judge(shop, done.build) == []
    run.roll_back(settings, watcher, stop, now=False)
    assert builds(shop)["build_1"] == "live"
    assert late.held_by("build_1") == late.orders(*waiting[1:])
    assert PositionVector(offsets(shop, "build_1")).includes(
        PositionVector(offsets(shop, done.build))
    )


def test_a_rollback_at_once_takes_redriven_ones_in_before_it_switches(
    log: Log, shop: Database, watcher: Watcher, late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    built = run.rebuild(settings, Options(), watcher, stop).build
    late.redrive(late.first)
    counter = "SELECT change_counter FROM ingest.builds WHERE name = 'build_1'"
    before = value(shop, counter)

    def killed(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Taker, "take", killed)
        with pytest.raises(KeyboardInterrupt):
            run.roll_back(settings, watcher, stop, now=True)
    assert live(shop) == built
    run.roll_back(settings, watcher, stop, now=True)
    assert late.held_by("build_1") == late.orders(late.first)
    assert value(shop, counter) > before  # no position moved: readers' tags go by this one


def test_verify_names_a_redriven_one_that_the_live_build_has_never_taken_in(
    log: Log, shop: Database, watcher: Watcher, late: Late
) -> None:
    late.redrive(late.first)
    execute(shop, "DELETE FROM build_1.applied_dead_letters")
    report = run.verify(log.settings(shop), Options(), watcher, threading.Event())
    assert not report.ok
    assert report.result is not None
    assert [(d.view, d.kind) for d in report.result.first] == [("applied_dead_letters", "missing")]


def test_one_that_is_discarded_before_its_swap_stops_the_swap(
    log: Log, shop: Database, watcher: Watcher, late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    hold_live = swap.hold_live

    def discarded_just_before(connection: Connection[Row]) -> str:
        late.scene.run("dead-letters", "discard", str(late.first))
        return hold_live(connection)

    with monkeypatch.context() as patched:
        patched.setattr(swap, "hold_live", discarded_just_before)
        with pytest.raises(RefusedError, match="open or discarded"):
            run.rebuild(settings, Options(retry_letters=True), watcher, stop)
    assert live(shop) == "build_1"
    assert [state for _number, state in late.letters()] == ["discarded", "open", "open"]
    with pytest.raises(RefusedError, match="open or discarded"):
        run.swap_ready(settings, watcher, stop)
    report = run.rebuild(settings, Options(), watcher, stop)
    assert not report.resumed
    assert live(shop) == report.build
    assert late.held_by(report.build) == []
    assert log.judge(shop, report.build) == []


def test_one_that_is_redriven_just_before_the_live_build_is_held_is_in_the_new_build(
    log: Log, shop: Database, watcher: Watcher, late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    built = run.rebuild(settings, Options(swap=False), watcher, stop).build
    acted = once_before(monkeypatch, swap, "hold_live", lambda _held: late.redrive(late.first))
    run.swap_ready(settings, watcher, stop)
    assert acted == ["hold_live"]
    assert live(shop) == built
    assert late.held_by(built) == late.orders(late.first)
    assert log.judge(shop, built) == []


def test_one_that_is_redriven_just_before_its_order_is_repaired_stays_in(
    log: Log, shop: Database, late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    acted = once_before(monkeypatch, swap, "hold_live", lambda _held: late.redrive(late.first))
    mend(log, shop, order=late.orders(late.first)[0])
    assert acted == ["hold_live"]
    assert late.held_by("build_1") == late.orders(late.first)
    assert log.judge(shop, "build_1") == []
