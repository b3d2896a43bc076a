"""Rows for the tests of the API, written by SQL: what the worker would have left behind."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import psycopg
from psycopg import sql
from psycopg.types.json import Json

MONDAY = datetime(2026, 3, 2, 23, 0, tzinfo=UTC)
STATUSES = ("PLACED", "CONFIRMED", "SHIPPED", "DELIVERED", "CANCELLED", "UNKNOWN")
PAYMENT_STATUSES = ("AUTHORIZED", "CAPTURED", "REFUNDED", "FAILED", "VOIDED", "UNKNOWN")

_MEASURES = """count(*), count(*) FILTER (WHERE status = 'CANCELLED'),
    coalesce(sum(amount - coalesce(discount, 0)) FILTER (WHERE status <> 'CANCELLED'), 0),
    sum(paid), sum(refunded), sum(outstanding) FROM build_1.orders WHERE visible GROUP BY 1, 2"""
AGGREGATES = (
    f"INSERT INTO build_1.customer_totals SELECT customer_id, currency, {_MEASURES}",
    "INSERT INTO build_1.daily_sales SELECT (placed_at AT TIME ZONE 'UTC')::date, currency,"
    f" {_MEASURES}",
)


def order(order_id: str, **fields: Any) -> dict[str, Any]:
    """A row of `orders`, visible and plain but for the fields given."""
    row: dict[str, Any] = {
        "order_id": order_id,
        "version": 1,
        "event_id": f"event-{order_id}",
        "status": "PLACED",
        "customer_id": "ann",
        "currency": "EUR",
        "amount": Decimal("10.0000"),
        "discount": None,
        "items": [{"sku": "tea", "quantity": 2, "unit_price": "5.0000"}],
        "placed_at": MONDAY,
        "updated_at": MONDAY + timedelta(hours=1),
        "paid": Decimal(0),
        "refunded": Decimal(0),
        "payment_count": 0,
        "mismatched_payment_count": 0,
        "visible": True,
    }
    return {**row, **_source("orders"), **fields}


def payment(order_id: str, payment_id: str, **fields: Any) -> dict[str, Any]:
    """A row of `payments`, plain but for the fields given."""
    row: dict[str, Any] = {
        "order_id": order_id,
        "payment_id": payment_id,
        "version": 1,
        "event_id": f"event-{payment_id}",
        "status": "CAPTURED",
        "currency": "EUR",
        "amount": Decimal("4.0000"),
        "refunded_amount": Decimal(0),
        "method": "card",
        "occurred_at": MONDAY,
    }
    return {**row, **_source("payments"), **fields}


def position(topic: str, partition: int, next_offset: int, **fields: Any) -> dict[str, Any]:
    """A row of `positions`, at its end."""
    row: dict[str, Any] = {
        "topic": topic,
        "partition": partition,
        "next_offset": next_offset,
        "end_offset": next_offset,
        "cluster_id": "cluster",
        "topic_id": f"id-of-{topic}",
        "complete_as_of": None,
    }
    return {**row, **fields}


def _source(topic: str) -> dict[str, Any]:
    return {
        "source_topic": topic,
        "source_partition": 0,
        "source_offset": 41,
        "source_schema_id": 7,
        "source_recorded_at": MONDAY,
    }


@dataclass(frozen=True, slots=True)
class Shop:
    """The rows of a shop; what a test compares answers with."""

    orders: Sequence[dict[str, Any]] = field(default_factory=list)
    payments: Sequence[dict[str, Any]] = field(default_factory=list)

    @property
    def visible(self) -> list[dict[str, Any]]:
        """The orders that a reader may see."""
        return [row for row in self.orders if row["visible"]]


def busy_shop(*, orders: int = 120, seed: int = 7) -> Shop:
    """Several customers, currencies and states; many ties of `placed_at`; a few hidden orders."""
    chance = random.Random(seed)
    rows = [
        order(
            f"o{number:03}",
            status=chance.choice(STATUSES),
            customer_id=chance.choice(("ann", "bob", "čeněk", "d e")),
            currency=chance.choice(("EUR", "USD")),
            amount=Decimal(chance.randint(1, 10**6)) / 10**4,
            discount=chance.choice((None, Decimal("1.5000"))),
            placed_at=MONDAY + timedelta(hours=chance.randint(0, 8)),
            visible=number % 17 != 0,
        )
        for number in range(orders)
    ]
    paid = [
        payment(
            f"o{chance.randint(0, orders + 5):03}",
            f"p{number:03}",
            status=chance.choice(PAYMENT_STATUSES),
            occurred_at=MONDAY + timedelta(hours=chance.randint(0, 5)),
        )
        for number in range(orders * 2)
    ]
    return Shop(rows, paid)


def stock(dsn: str, shop: Shop) -> None:
    """Write a shop's rows and what they add up to."""
    with psycopg.connect(dsn) as connection:
        insert(connection, "orders", shop.orders)
        insert(connection, "payments", shop.payments)
        for statement in AGGREGATES:
            connection.execute(statement.encode())


def _as_the_worker_does(value: Any) -> str:
    return orjson.dumps(value).decode()


def insert(connection: psycopg.Connection[Any], table: str, rows: Iterable[dict[str, Any]]) -> None:
    """Insert rows into a table of `build_1`."""
    for row in rows:
        values = (
            {**row, "items": Json(row["items"], _as_the_worker_does)} if "items" in row else row
        )
        statement = sql.SQL("INSERT INTO build_1.{} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(map(sql.Placeholder, values)),
        )
        connection.execute(statement, values)
