"""Swaps back and forth under load: every answer is one build, and the fold at its position."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from ingest.operate import DeadLetterFilter
from ingest.redrive import redriving
from rebuild import run
from rebuild.report import Options, Report
from schemas.registry import Registry
from tests.faults.harness.producers import Ledger, Trickle
from tests.faults.oracle.compare import Held, check_invariants, differences, hold
from tests.faults.oracle.fold import Expected, Recorded, expect
from tests.faults.oracle.following import Following
from tests.faults.oracle.log import Registry as SchemaRegistry
from tests.faults.oracle.log import read_log
from tests.faults.oracle.rows import text
from tests.fixtures.databases import Database
from tests.fixtures.reports import table_rows, write_page
from tests.fixtures.traffic import Traffic
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import Api, serving
from tests.integration.dead_letters.scene import LateSchema
from tests.integration.rebuild.parts import (
    TOPICS,
    Log,
    Watcher,
    execute,
    live,
    offsets,
    value,
    wait_until_live_includes,
    worker,
)
from tests.integration.rebuild.telling import scene_of
from views.positions import PositionVector, parse_position

FIRST, PAYMENTS = 100, 5
PREFIX, LATE = "a", "a--late"
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
_PAGE = """# A hundred swaps under load

`make proof ARGS="-k fold_at_its_position"`, {day}, {cpus} cores: passed. Two builds were swapped
back and forth, each caught up first, beside a worker with hostile traffic and a session that asks
without a pause and says each time what it saw last.

| what | figure |
|---|---|
{rows}

Every row of either build carries a mark, so that an answer of two builds would show. Each answer
was compared with a fold of the log up to its own position, made by a program that shares no code
with the product; at the end both builds were, whole.
"""


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
def trickling(log: Log, per_s: int) -> Iterator[None]:
    """Hostile traffic at a steady pace."""
    traffic = Traffic(seed=401, orders=100_000, ids=log.ids, prefix=PREFIX, woven=60)
    trickle = Trickle(log.bootstrap, traffic, Ledger(), per_s=per_s)
    try:
        yield
    finally:
        trickle.stop()


def wait_until_moved(shop: Database, report: Report) -> None:
    """Return when live ingest has gone on in the build that a swap made live."""
    swapped = report.swapped
    assert swapped is not None

    def moved() -> bool:
        return str(PositionVector(offsets(shop, swapped.now))) != swapped.at

    eventually(moved, WAIT_S, f"live ingest goes on in {swapped.now} from {swapped.at}")


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


class Late:
    """Orders that are dead for want of their schema: one after the other is redriven."""

    def __init__(self, log: Log, shop: Database, count: int) -> None:
        self._log, self._shop = log, shop
        schema = LateSchema(log.registry, "swapped")
        scene = scene_of(log, shop)
        scene.tell(scene.of_schema(schema.id, count, prefix=LATE))
        with worker(log.settings(shop)):
            wait_until_live_includes(shop, log.end())
        schema.register()
        self.orders = [f"{LATE}-{number}" for number in range(count)]
        self._left = list(self.orders)

    def redrive(self) -> None:
        """The next one, if one is left. Once: what it finds open is redriven."""
        if not self._left:
            return
        letter = value(
            self._shop,
            "SELECT id FROM ingest.dead_letters WHERE key = convert_to(%s, 'UTF8')",
            self._left.pop(0),
        )
        with (
            Registry(self._log.registry) as registry,
            redriving(self._shop.dsn, registry, who="a test", stop=threading.Event()) as redrive,
        ):
            (outcome,) = redrive.run(DeadLetterFilter(ids=(letter,)))
        assert outcome.redriven, outcome

    def states(self) -> Counter[str]:
        """How many are in which state."""
        query = "SELECT state FROM ingest.dead_letters WHERE starts_with(encode(key, 'escape'), %s)"
        with psycopg.connect(self._shop.dsn) as connection:
            return Counter(row[0] for row in connection.execute(query, (LATE,)))


@dataclass(frozen=True, slots=True)
class Plan:
    """So many swaps, so many letters redriven meanwhile, and the pace of the traffic."""

    swaps: int
    letters: int
    per_s: int


SMALL, LARGE = Plan(4, 3, per_s=60), Plan(100, 25, per_s=150)


@pytest.mark.parametrize(
    "plan", [SMALL, pytest.param(LARGE, marks=[pytest.mark.proof, pytest.mark.timeout(0)])]
)
def test_every_answer_is_one_build_and_the_fold_at_its_position(
    plan: Plan, log: Log, shop: Database, watcher: Watcher
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    late = Late(log, shop, plan.letters)
    assert run.rebuild(settings, Options(), watcher, stop).build == "build_2"
    mark(shop)
    with worker(settings), serving(shop) as api, asking(api) as session:
        with trickling(log, plan.per_s), ThreadPoolExecutor(1) as beside:
            for number in range(plan.swaps):
                redriven = beside.submit(late.redrive)
                report = run.roll_back(settings, watcher, stop, now=False)
                assert live(shop) == report.build == ("build_1", "build_2")[number % 2]
                wait_until_moved(shop, report)
                session.wait_for_more()
                redriven.result()
        wait_until_live_includes(shop, log.end())
        session.wait_for_more()
    answers = session.answers
    assert [answer["errors"] for answer in answers if "errors" in answer] == []
    builds = [answer["extensions"]["consistency"]["build"] for answer in answers]
    turns = [name for at, name in enumerate(builds) if at == 0 or builds[at - 1] != name]
    assert len(turns) > plan.swaps, "every swap was seen by the session"
    for answer, build in zip(answers, builds, strict=True):
        assert answer["data"]["position"]["build"] == build
        assert _marks(answer["data"]) <= {str(MARKS[build]), MARKS[build]}
    positions = [parse_position(answer["data"]["position"]["token"]) for answer in answers]
    for one, next_one in pairwise(positions):
        assert next_one.includes(one), "a session went back"
    moved = len({str(position) for position in positions})
    assert moved > plan.swaps, "nothing was written meanwhile"
    checker = _Checker(log, shop, late.orders)
    for position, answer in zip(positions, answers, strict=True):
        assert checker.wrong(position, answer["data"]) == []
    assert late.states() == {"redriven": plan.letters}
    shown = [order["orderId"] for order in answers[-1]["data"]["orders"]["nodes"]]
    assert set(late.orders) < set(shown)
    for build in MARKS:
        assert checker.held_wrong(build) == []
    if plan is LARGE:
        _report(shop, plan, answers=len(answers), positions=moved, turns=len(turns))


def _report(shop: Database, plan: Plan, **found: int) -> None:
    rows = (
        ("swaps", plan.swaps),
        ("dead letters redriven beside a swap", plan.letters),
        ("turns of builds that the session saw", found["turns"]),
        ("answers, each held against the fold at its position", found["answers"]),
        ("positions", found["positions"]),
        ("failed, of two builds, wrong, behind the one before", 0),
        ("letters lost or taken in twice, in either build", 0),
    )
    write_page("swaps", _PAGE, dsn=shop.dsn, rows=table_rows(rows))


def _marks(data: Mapping[str, Any]) -> set[Any]:
    orders = data["orders"]["nodes"]
    payments = [payment for order in orders for payment in order["payments"]["nodes"]]
    return {row["source"]["schemaId"] for row in (*orders, *payments)}


class _Checker:
    """Goes along the log with the answers of a session, and holds each against the fold."""

    def __init__(self, log: Log, shop: Database, late: Sequence[str]) -> None:
        self._records, _ = read_log(log.bootstrap, TOPICS)
        self._registry = SchemaRegistry(log.registry)
        self._shop = shop
        self._recorded: Recorded = hold(shop.dsn, live(shop)).recorded
        self._views = Following(self._records, self._registry, recorded=self._recorded)
        self._late = list(late)

    def wrong(self, position: PositionVector, data: Mapping[str, Any]) -> list[str]:
        """Views of an answer that are not what the oracle expects at its position.

        A redrive moves no position: from some answer on, the next letter is in.
        """
        self._views.go_on(position.next_offsets)
        while True:
            due = _answer_of(self._views)
            found = [
                f"{view} at {position}: {_first_difference(due[view], data[view]['nodes'])}"
                for view in due
                if due[view] != [_without_marks(node) for node in data[view]["nodes"]]
            ]
            if not found or not self._late:
                return found
            self._views.redrive(self._late.pop(0))

    def held_wrong(self, build: str) -> list[str]:
        """What is wrong with a whole build, but for the marks."""
        held = hold(self._shop.dsn, build)
        at = held.next_offsets
        records = [r for r in self._records if r.offset < at.get((r.topic, r.partition), 0)]
        expected = expect(records, self._registry, next_offsets=at, recorded=self._recorded)
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


def _answer_of(views: Following) -> dict[str, list[dict[str, Any]]]:
    return {
        "orders": [_order(views, row) for row in views.orders.page(FIRST)],
        "customerTotals": [
            {"customerId": row["customer_id"], "currency": row["currency"], **_measures(row)}
            for row in views.customer_totals.page(FIRST)
        ],
        "dailySales": [
            {"day": row["day"], "currency": row["currency"], **_measures(row)}
            for row in views.daily_sales.page(FIRST)
        ],
    }


def _order(views: Following, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "orderId": row["order_id"],
        "version": str(row["version"]),
        "status": row["status"],
        **{name: text(row[name]) for name in ("amount", "paid", "refunded", "outstanding")},
        "paymentCount": row["payment_count"],
        "payments": [
            {
                "paymentId": payment["payment_id"],
                "version": str(payment["version"]),
                "status": payment["status"],
                "amount": text(payment["amount"]),
            }
            for payment in views.payments.under(row["order_id"])[:PAYMENTS]
        ],
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
