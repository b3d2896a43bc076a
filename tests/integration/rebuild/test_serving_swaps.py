"""Swaps back and forth under load: every answer is one build, and the fold at its position."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from rebuild import run
from rebuild.report import Options
from tests.faults.harness.producers import Ledger, Trickle
from tests.faults.oracle.compare import Held, check_invariants, differences, hold
from tests.faults.oracle.events import Record
from tests.faults.oracle.fold import Expected, Recorded, expect
from tests.faults.oracle.log import Registry, read_log
from tests.faults.oracle.rows import text
from tests.fixtures.databases import Database
from tests.fixtures.traffic import Traffic
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import Api, serving
from tests.integration.rebuild.parts import (
    TOPICS,
    Log,
    Watcher,
    execute,
    live,
    wait_until_live_includes,
    worker,
)
from views.positions import PositionVector, parse_position

FIRST, PAYMENTS = 100, 5
PREFIX = "a"
"""The newest orders come first in the answers."""
ASK = f"""{{
  orders(first: {FIRST}) {{ nodes {{ orderId version status amount paid refunded outstanding
    paymentCount source {{ schemaId }}
    payments(first: {PAYMENTS}) {{ nodes {{ paymentId version status amount
      source {{ schemaId }} }} }} }} }}
  customerTotals(first: {FIRST}) {{ nodes {{ customerId currency orderCount cancelledCount ordered
    paid refunded outstanding }} }}
  dailySales(first: {FIRST}) {{ nodes {{ day currency orderCount cancelledCount ordered
    paid refunded outstanding }} }}
  position {{ token build }} }}"""
MARKS = {"build_1": 1_001, "build_2": 1_002}
WAIT_S = 60.0


@dataclass(slots=True)
class Session:
    """Somebody who asks without a pause and says each time what was seen last."""

    api: Api
    answers: list[dict[str, Any]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def wait_for_more(self) -> None:
        """Return when a question that was asked after now has its answer."""
        wanted = len(self.answers) + 2
        eventually(lambda: len(self.answers) >= wanted, WAIT_S, "the session goes on asking")

    def run(self) -> None:
        """Until `stop`."""
        seen = ""
        while not self.stop.is_set():
            body = {
                "query": ASK,
                "extensions": {"consistency": {"atLeast": seen, "timeoutMs": 5_000}},
            }
            answer: dict[str, Any] = self.api.client.post("/graphql", json=body).json()
            self.answers.append(answer)
            if "errors" in answer:
                return
            seen = answer["data"]["position"]["token"]


@contextmanager
def asking(api: Api) -> Iterator[Session]:
    """A session under way."""
    session = Session(api)
    thread = threading.Thread(target=session.run, name="session")
    thread.start()
    try:
        yield session
    finally:
        session.stop.set()
        thread.join()


@contextmanager
def trickling(log: Log) -> Iterator[None]:
    """Hostile traffic at a steady pace."""
    traffic = Traffic(seed=401, orders=100_000, ids=log.ids, prefix=PREFIX, woven=60)
    trickle = Trickle(log.bootstrap, traffic, Ledger(), per_s=150)
    try:
        yield
    finally:
        trickle.stop()


def mark(database: Database) -> None:
    """Let every row of a build carry its mark, in a column that decides nothing."""
    statements = [
        "CREATE FUNCTION public.mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " NEW.source_schema_id = TG_ARGV[0]::int; RETURN NEW; END $$"
    ]
    for build, number in MARKS.items():
        for view in ("orders", "payments"):
            statements += [
                f"CREATE TRIGGER mark BEFORE INSERT OR UPDATE ON {build}.{view}"
                f" FOR EACH ROW EXECUTE FUNCTION public.mark('{number}')",
                f"UPDATE {build}.{view} SET source_schema_id = 0",
            ]
    execute(database, *statements)


@pytest.mark.parametrize(
    ("swaps", "judged"), [(10, 12), pytest.param(100, 200, marks=pytest.mark.proof)]
)
def test_every_answer_is_one_build_and_the_fold_at_its_position(
    swaps: int, judged: int, log: Log, shop: Database, watcher: Watcher
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    assert run.rebuild(settings, Options(), watcher, stop).build == "build_2"
    mark(shop)
    with worker(settings), serving(shop) as api, asking(api) as session:
        with trickling(log):
            for number in range(swaps):
                report = run.roll_back(settings, watcher, stop, now=False)
                assert live(shop) == report.build == ("build_1", "build_2")[number % 2]
                session.wait_for_more()
        wait_until_live_includes(shop, log.end())
        session.wait_for_more()
    answers = session.answers
    assert [answer["errors"] for answer in answers if "errors" in answer] == []
    builds = [answer["extensions"]["consistency"]["build"] for answer in answers]
    turns = [name for at, name in enumerate(builds) if at == 0 or builds[at - 1] != name]
    assert len(turns) > swaps, "every swap was seen by the session"
    for answer, build in zip(answers, builds, strict=True):
        assert answer["data"]["position"]["build"] == build
        assert _marks(answer["data"]) <= {str(MARKS[build]), MARKS[build]}
    positions = [parse_position(answer["data"]["position"]["token"]) for answer in answers]
    for one, next_one in pairwise(positions):
        assert next_one.includes(one), "a session went back"
    assert len({str(position) for position in positions}) > swaps, "nothing was written meanwhile"
    assert answers[-1]["data"]["orders"]["nodes"][0]["orderId"].startswith(f"{PREFIX}-")
    checker = _Checker(log, shop)
    chosen = range(0, len(answers), max(1, len(answers) // judged))
    for at in chosen:
        assert checker.wrong(positions[at], answers[at]["data"]) == []
    for build in MARKS:
        assert checker.held_wrong(build) == []


def _marks(data: Mapping[str, Any]) -> set[Any]:
    orders = data["orders"]["nodes"]
    payments = [payment for order in orders for payment in order["payments"]["nodes"]]
    return {row["source"]["schemaId"] for row in (*orders, *payments)}


class _Checker:
    """Folds the log up to any position, and holds an answer against it."""

    def __init__(self, log: Log, shop: Database) -> None:
        self._records, _ = read_log(log.bootstrap, TOPICS)
        self._registry = Registry(log.registry)
        self._shop = shop
        self._recorded: Recorded = hold(shop.dsn, live(shop)).recorded

    def _expected(self, position: PositionVector) -> Expected:
        at = position.next_offsets
        records: list[Record] = [
            record
            for record in self._records
            if record.offset < at.get((record.topic, record.partition), 0)
        ]
        return expect(records, self._registry, next_offsets=at, recorded=self._recorded)

    def wrong(self, position: PositionVector, data: Mapping[str, Any]) -> list[str]:
        """Views of an answer that are not what the oracle expects at its position."""
        due = _answer_of(self._expected(position))
        return [
            f"{view} at {position}: {_first_difference(due[view], data[view]['nodes'])}"
            for view in due
            if due[view] != [_without_marks(node) for node in data[view]["nodes"]]
        ]

    def held_wrong(self, build: str) -> list[str]:
        """What is wrong with a whole build, but for the marks."""
        held = hold(self._shop.dsn, build)
        expected = self._expected(PositionVector(held.next_offsets))
        _unmark(held, expected)
        found = [*differences(held, expected), *check_invariants(self._shop.dsn, build)]
        return [str(each) for each in found]


def _unmark(held: Held, expected: Expected) -> None:
    for view in ("orders", "payments"):
        for key, row in held.rows[view].items():
            must = expected.views.named()[view].get(key, {})
            row["source_schema_id"] = must.get("source_schema_id")


def _without_marks(node: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in node.items() if name != "source"}
    if "payments" in kept:
        kept["payments"] = [_without_marks(payment) for payment in kept["payments"]["nodes"]]
    return kept


def _answer_of(expected: Expected) -> dict[str, list[dict[str, Any]]]:
    views = expected.views
    paid: dict[str, list[dict[str, Any]]] = {}
    for key, row in sorted(views.payments.items()):
        paid.setdefault(key[0], []).append(
            {
                "paymentId": key[1],
                "version": str(row["version"]),
                "status": row["status"],
                "amount": text(row["amount"]),
            }
        )
    orders = [
        {
            "orderId": key[0],
            "version": str(row["version"]),
            "status": row["status"],
            **{name: text(row[name]) for name in ("amount", "paid", "refunded", "outstanding")},
            "paymentCount": row["payment_count"],
            "payments": paid.get(key[0], [])[:PAYMENTS],
        }
        for key, row in sorted(views.orders.items())
        if row["visible"] is True
    ]
    return {
        "orders": orders[:FIRST],
        "customerTotals": [
            {"customerId": key[0], "currency": key[1], **_measures(row)}
            for key, row in sorted(views.customer_totals.items())
        ][:FIRST],
        "dailySales": [
            {"day": key[0], "currency": key[1], **_measures(row)}
            for key, row in sorted(views.daily_sales.items())
        ][:FIRST],
    }


def _measures(row: Mapping[str, Any]) -> dict[str, Any]:
    counts = {"orderCount": row["order_count"], "cancelledCount": row["cancelled_count"]}
    return counts | {
        name: text(row[name]) for name in ("ordered", "paid", "refunded", "outstanding")
    }


def _first_difference(due: list[dict[str, Any]], nodes: list[dict[str, Any]]) -> str:
    seen = [_without_marks(node) for node in nodes]
    for must, has in zip(due, seen, strict=False):
        if must != has:
            return f"{has} must be {must}"
    return f"{len(seen)} rows, must be {len(due)}"
