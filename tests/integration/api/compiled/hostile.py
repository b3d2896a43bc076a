"""A shop in which everything happens that may: ties, nulls, hidden rows, odd texts, odd amounts.

Small, because every operation is answered twice; the rows are written in no order at all.
"""

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from api.opaque import global_id, packed
from api.scalars import date_time_text
from api.schema import TYPES
from tests.integration.api.shop import (
    MONDAY,
    PAYMENT_STATUSES,
    STATUSES,
    Shop,
    insert,
    order,
    payment,
    position,
    stock,
)

ODD = (
    "plain",
    "",
    " ",
    'quo"te',
    "apo'strophe",
    "back\\slash",
    "new\nline\ttab",
    "\x01\x02\x7f\x1f",
    "%s %% $1 {}",
    "čeněk 🛒 e\u0301 \u2028",
    "null",
    '["a", "b"]',
    "Ω" * 40,
)
"""Texts that want an escape somewhere."""

CUSTOMERS = ("ann", "bob", ODD[3], ODD[9])
_CURRENCIES = ("EUR", "USD", "JPY")
_DAWN = datetime(1, 1, 1, tzinfo=UTC)
_DUSK = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
_MOMENTS = (
    *(MONDAY + timedelta(minutes=30 * n) for n in range(5)),
    MONDAY + timedelta(microseconds=1),
    MONDAY + timedelta(microseconds=120_000),
    datetime(999, 3, 4, 5, 6, 7, tzinfo=UTC),
    _DAWN,
    _DUSK,
)
_AMOUNTS = ("0", "0.0001", "1", "2.5", "99999999999999.9999", "-3.1400", "7.1000")


def hostile_shop(*, orders: int = 36, seed: int = 11) -> Shop:
    """Orders and payments."""
    chance = random.Random(seed)
    ids = [*ODD, *(f"o{n:02}" for n in range(orders - len(ODD)))]
    rows = [
        order(
            order_id,
            version=chance.choice((1, 2**62)),
            event_id=chance.choice(ODD),
            status=chance.choice(STATUSES),
            customer_id=chance.choice(CUSTOMERS),
            currency=chance.choice(_CURRENCIES),
            amount=Decimal(chance.choice(_AMOUNTS)),
            discount=chance.choice((None, Decimal("0.5"), Decimal(0))),
            items=_items(chance),
            placed_at=chance.choice(_MOMENTS),
            updated_at=chance.choice(_MOMENTS),
            paid=Decimal(chance.choice(_AMOUNTS)),
            source_offset=chance.choice((0, 2**53 + 1)),
            visible=chance.random() > 0.15,
        )
        for order_id in ids
    ]
    paid = [
        payment(
            chance.choice([*ids, "unknown"]),
            f"{chance.choice(ODD)}{number}",
            status=chance.choice(PAYMENT_STATUSES),
            method=chance.choice(ODD),
            amount=Decimal(chance.choice(_AMOUNTS)),
            occurred_at=chance.choice(_MOMENTS),
        )
        for number in range(orders * 2)
    ]
    chance.shuffle(rows)
    chance.shuffle(paid)
    return Shop(rows, paid)


def _items(chance: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "sku": chance.choice(ODD),
            "quantity": chance.choice((0, 1, 2**31 - 1, -2)),
            "unit_price": chance.choice(_AMOUNTS),
        }
        for _ in range(chance.choice((0, 1, 2, 3)))
    ]


def open_shop(dsn: str) -> Shop:
    """Write the shop into a database, with positions that stand still."""
    shop = hostile_shop()
    stock(dsn, shop)
    with psycopg.connect(dsn) as connection:
        rows = [
            position("orders", 0, 1042, complete_as_of=_DUSK),
            position("orders", 1, 0, end_offset=3, complete_as_of=_DUSK),
            position("payments", 0, 7, complete_as_of=_DUSK, last_event_at=MONDAY),
            position("stranger", 0, 5),
        ]
        insert(connection, "positions", rows)
    return shop


def pools(shop: Shop, ids: Sequence[str]) -> Mapping[str, Sequence[Any]]:
    """Values to ask for: mostly such as there are, and some that mean nothing here."""
    moments = [date_time_text(row["placed_at"]) for row in shop.orders]
    order_ids = [row["order_id"] for row in shop.orders]
    payment_ids = [row["payment_id"] for row in shop.payments]
    return {
        "String": [*order_ids, *CUSTOMERS, *payment_ids[:20], *ODD],
        "orderId": [*order_ids, "missing", "a\x00b"],
        "paymentId": payment_ids,
        "customerId": CUSTOMERS,
        "CurrencyCode": _CURRENCIES,
        "DateTime": [*moments, "2026-03-02T23:30:00+02:00"],
        "day": sorted({moment[:10] for moment in moments}),
        "Date": sorted({moment[:10] for moment in moments}),
        "Boolean": (True, False),
        "isNull": (True, False),
        "first": (0, 1, 2, 2, 3, 3, 5, 8, 40, 101, -1),
        "last": (0, 1, 2, 3, 5, 8, 40, 101),
        "after": ("", "x.y.z"),
        "before": ("", "x.y.z"),
        "id": [*ids, *ids, *ids, *ids, "", "WyJPcmRlciJd", "é"],
        "ids": [*ids, *ids, *ids, *ids, "x"] if len(ids) > 200 else ids,
        "Int": (0, 1, 2),
        "ID": ids,
        "Decimal": _AMOUNTS,
        "BigInt": ("0", "1", str(2**62)),
    }


def node_ids(dsn: str) -> list[str]:
    """Ids of rows of every view, hidden ones too, and of rows that there are not."""
    ids = []
    with psycopg.connect(dsn, options="-c TimeZone=UTC") as connection:
        for view_type in TYPES:
            names = ", ".join(view_type.key)
            rows = connection.execute(f"SELECT {names} FROM build_1.{view_type.view.name}".encode())
            ids += [global_id(view_type, row) for row in rows]
    return [*ids, packed(["Order", "nobody"]), packed(["DailySales", "2020-02-29", "EUR"])]
