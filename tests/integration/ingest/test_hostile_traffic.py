"""Everything that happens at once, in bulk: one worker against the oracle, in SQL and over GraphQL;
and the same log cut into batches of every size."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ingest import service
from ingest.worker import Limits
from tests.faults.harness import chain
from tests.fixtures.contracts import SchemaIds
from tests.fixtures.databases import Database, DatabaseServer
from tests.fixtures.traffic import Traffic
from tests.integration.api.conftest import Api, settings
from tests.integration.ingest.conftest import StartWorker
from tests.integration.ingest.running import (
    BUILD,
    Worker,
    differences_to_log,
    dump,
    query,
    settings_of,
    tell,
)
from views.positions import Partition, PositionVector

RECORDS_OF_AN_ORDER = 5.2  # at least
HAPPENS = ("event", "duplicate", "late", "conflict", "tombstone", "recreated", "evolved", "poison")
Sums = dict[str, dict[str, Decimal]]
"""Per currency, each measure summed over all rows of a view."""
MEASURES = ("orderCount", "cancelledCount", "ordered", "paid", "refunded", "outstanding")


@pytest.mark.parametrize(
    "events",
    [10_000, pytest.param(100_000, marks=[pytest.mark.proof, pytest.mark.timeout(1_800)])],
)
def test_after_hostile_traffic_every_row_and_every_sum_is_right(
    events: int, worker: StartWorker, database: Database, kafka: str, registry: str, ids: SchemaIds
) -> None:
    records = list(Traffic(seed=2, orders=int(events / RECORDS_OF_AN_ORDER), ids=ids))
    assert len(records) >= events
    kinds = Counter(record.kind.split(":")[0] for record in records)
    assert not [kind for kind in HAPPENS if not kinds[kind]], kinds
    worker(until=PositionVector(tell(kafka, records))).wait()
    assert differences_to_log(database.dsn, bootstrap=kafka, registry=registry) == []
    _sums_agree_for_people(database.dsn)
    with TestClient(create_app(settings(database.api_dsn))) as client:
        _sums_agree_over_graphql(Api(client))


# The invariants, for people in SQL: the views that they are given, not the tables behind.

_OF_PEOPLE = """
    SELECT currency, sum(order_count), sum(cancelled_count), sum(ordered), sum(paid),
           sum(refunded), sum(outstanding) FROM views.{view} GROUP BY currency ORDER BY currency
"""
_OF_ORDERS = """
    SELECT currency, count(*), count(*) FILTER (WHERE status = 'CANCELLED'),
           coalesce(sum(amount - coalesce(discount, 0)) FILTER (WHERE status <> 'CANCELLED'), 0),
           sum(paid), sum(refunded), sum(outstanding)
    FROM views.orders GROUP BY currency ORDER BY currency
"""


def _sums_agree_for_people(dsn: str) -> None:
    of_orders = query(dsn, _OF_ORDERS)
    assert len(of_orders) >= 3, "fewer than three currencies"
    for view in ("customer_totals", "daily_sales"):
        assert query(dsn, _OF_PEOPLE.format(view=view)) == of_orders, view


# The same over GraphQL, with arithmetic of our own on what the answers say.


def _sums_agree_over_graphql(api: Api) -> None:
    answers = Answers(api)
    wanted: Sums = defaultdict(lambda: defaultdict(Decimal))
    for order in answers.all("orders", _ORDER):
        _settled(order)
        for measure, value in _measured(order).items():
            wanted[order["currency"]][measure] += value
    assert len(wanted) >= 3, "fewer than three currencies"
    for view in ("customerTotals", "dailySales"):
        held: Sums = defaultdict(lambda: defaultdict(Decimal))
        for group in answers.all(view, f"currency {' '.join(MEASURES)}"):
            assert group["orderCount"] > 0, "a group of no orders"
            for measure in MEASURES:
                held[group["currency"]][measure] += Decimal(group[measure])
        assert held == wanted, view
    assert len(answers.positions) == 1, "the answers are of different positions"


_ORDER = """
    orderId currency status amount discount paid refunded outstanding paymentCount
    mismatchedPaymentCount
    payments(first: 20) { nodes { status currency amount refundedAmount } }
"""


@dataclass
class Answers:
    """Pages of a list, and the positions that they said to be of."""

    api: Api
    positions: set[str] = field(default_factory=set)

    def all(self, name: str, fields: str) -> Iterator[Mapping[str, Any]]:
        """Every row, page by page."""
        text = (
            f"query($after: String) {{ {name}(first: 100, after: $after)"
            f" {{ nodes {{ {fields} }} pageInfo {{ hasNextPage endCursor }} }} }}"
        )
        after, more = None, True
        while more:
            body = self.api.answer(text, after=after)
            assert "errors" not in body, body["errors"]
            self.positions.add(body["extensions"]["consistency"]["position"])
            page = body["data"][name]
            yield from page["nodes"]
            after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]


def _measured(order: Mapping[str, Any]) -> dict[str, Decimal]:
    """What one order adds to its groups."""
    gone = order["status"] == "CANCELLED"
    net = Decimal(order["amount"]) - Decimal(order["discount"] or 0)
    return {
        "orderCount": Decimal(1),
        "cancelledCount": Decimal(gone),
        "ordered": Decimal(0) if gone else net,
        **{name: Decimal(order[name]) for name in ("paid", "refunded", "outstanding")},
    }


def _settled(order: Mapping[str, Any]) -> None:
    """An order says of its payments what they say themselves."""
    payments = order["payments"]["nodes"]
    own = [payment for payment in payments if payment["currency"] == order["currency"]]
    counted = [payment for payment in own if payment["status"] in ("CAPTURED", "REFUNDED")]
    paid = sum((Decimal(payment["amount"]) for payment in counted), Decimal(0))
    refunded = sum((Decimal(payment["refundedAmount"]) for payment in counted), Decimal(0))
    due = _measured(order)["ordered"]
    assert (
        Decimal(order["paid"]),
        Decimal(order["refunded"]),
        Decimal(order["outstanding"]),
        order["paymentCount"],
        order["mismatchedPaymentCount"],
    ) == (paid, refunded, due - paid + refunded, len(payments), len(payments) - len(own)), order


# Batches.


class AnySize(Limits):
    """Limits whose batches are of another size each time that they are asked for."""

    _chance = random.Random(6)

    def __getattribute__(self, name: str) -> Any:
        return self._chance.randint(1, 60) if name == "rows" else super().__getattribute__(name)


def _most_at_once(dsn: str) -> int:
    """How far a position moved at most in one transaction, by the trigger of `chain`."""
    return max(link.new_next - link.old_next for link in chain.read(dsn))


def test_the_same_log_cut_into_batches_of_any_size_gives_the_same(
    kafka: str,
    registry: str,
    ids: SchemaIds,
    database_server: DatabaseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows, counters, tombstones and dead letters, column by column; one worker for each size."""
    ends = tell(kafka, Traffic(seed=4, orders=100, ids=ids, woven=40, poison=0.03))
    found: dict[str, dict[str, list[str]]] = {}
    for name, rows in (("1", 1), ("2", 2), ("7", 7), ("1,000", 1_000), ("at random", 60)):
        if name == "at random":
            monkeypatch.setattr(service, "Limits", AnySize)
        database = database_server.create(template=database_server.template.name)
        chain.install(database.dsn, BUILD)
        _apply(database.dsn, kafka, registry, ends=ends, rows=rows)
        assert differences_to_log(database.dsn, bootstrap=kafka, registry=registry) == [], name
        assert _most_at_once(database.dsn) <= rows, name
        found[name] = dump(database.dsn)
        if name == "1,000":
            assert _most_at_once(database.dsn) > 60, "nothing was cut coarser"
        database_server.drop(database)
    assert all(found["1"][table] for table in ("orders", "payments", "tombstones", "dead_letters"))
    for name, tables in found.items():
        assert tables == found["1"], name


def _apply(
    dsn: str, kafka: str, registry: str, *, ends: Mapping[Partition, int], rows: int
) -> None:
    """A worker from the start of the log to its end, with a group and batches of its own."""
    group = dsn.rpartition("/")[2]
    given = settings_of(dsn=dsn, bootstrap=kafka, registry=registry, group=group, batch_rows=rows)
    with Worker(given, until=PositionVector(ends)) as worker:
        worker.wait()
