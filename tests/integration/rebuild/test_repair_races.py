"""`rebuild --order` beside a worker and redrives: whoever comes in between, rows are right.

Each race is run on purpose: somebody acts just before the repair keeps others out, or is seen to
wait for it.
"""

import threading
from typing import Any

import psycopg
import pytest

from rebuild import repair, swap
from tests.fixtures.databases import Database
from tests.integration.rebuild.parts import (
    Log,
    content,
    execute,
    live,
    value,
    wait_until_live_includes,
    worker,
)
from tests.integration.rebuild.racing import mend, once_before, wait_until_kept_out
from tests.integration.rebuild.telling import Teller
from views import CATALOGUE


def invent_payment(shop: Database, order_id: str) -> None:
    """A payment that never was: no later event of the order takes it away."""
    names = ", ".join(CATALOGUE.view("payments").table.columns.keys())
    copied = names.replace("order_id", f"'{order_id}'", 1)
    execute(
        shop,
        f"INSERT INTO build_1.payments ({names}) SELECT"
        f" {copied} FROM build_1.payments"
        " WHERE status = 'CAPTURED' ORDER BY order_id LIMIT 1",
    )


def tamper(shop: Database, order_id: str) -> None:
    """An order at another customer, on another day, and sums that follow nothing."""
    one = f"FROM build_1.orders WHERE order_id = '{order_id}'"
    execute(
        shop,
        "INSERT INTO build_1.customer_totals (customer_id, currency, order_count, cancelled_count,"
        f" ordered, paid, refunded, outstanding) SELECT 'nobody', currency, 7, 7, 7, 7, 7, 7 {one}",
        "UPDATE build_1.customer_totals SET ordered = ordered + 1, order_count = order_count + 1"
        f" WHERE (customer_id, currency) = (SELECT customer_id, currency {one})",
        "UPDATE build_1.daily_sales SET paid = paid + 1 WHERE (day, currency) ="
        f" (SELECT (placed_at AT TIME ZONE 'UTC')::date, currency {one})",
        "UPDATE build_1.orders SET customer_id = 'nobody', placed_at = placed_at - interval '9 d'"
        f" WHERE order_id = '{order_id}'",
    )


def an_order(shop: Database) -> str:
    """A visible order with a payment that counts."""
    query = "SELECT min(order_id) FROM build_1.orders WHERE visible AND paid > 0"
    return str(value(shop, query))


def test_an_order_that_moved_between_customers_and_days_is_mended_with_all_their_sums(
    log: Log, shop: Database
) -> None:
    right, order_id = content(shop, "build_1"), an_order(shop)
    tamper(shop, order_id)
    assert all(content(shop, "build_1")[v] != right[v] for v in right if v != "payments")
    changes = mend(log, shop, order=order_id).changes
    assert {change.split()[0] for change in changes} == {"orders", "customer_totals", "daily_sales"}
    assert content(shop, "build_1") == right


def test_a_version_that_the_worker_took_in_between_is_not_taken_back(
    log: Log, shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    teller = Teller(log, shop, "race-before")
    teller.tell()
    with worker(log.settings(shop)):
        wait_until_live_includes(shop, log.end())
        invent_payment(shop, teller.order_id)

        def overtake(_connection: psycopg.Connection[Any]) -> None:
            teller.tell()
            wait_until_live_includes(shop, log.end())

        acted = once_before(monkeypatch, swap, "hold_live", overtake)
        changes = mend(log, shop, order=teller.order_id).changes
    assert acted == ["hold_live"]
    assert any(change.startswith("payments ") for change in changes)
    assert _version(shop, teller) == teller.version == 2
    assert log.judge(shop, "build_1") == []


def test_a_worker_that_waits_for_a_repair_goes_on_with_rows_that_are_right(
    log: Log, shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    teller = Teller(log, shop, "race-held")
    teller.tell()
    with worker(log.settings(shop)):
        wait_until_live_includes(shop, log.end())
        tamper(shop, teller.order_id)

        def keep_out(connection: psycopg.Connection[Any]) -> None:
            teller.tell()
            wait_until_kept_out(connection)

        acted = once_before(monkeypatch, repair, "_overwrite", keep_out)
        mend(log, shop, order=teller.order_id)
        wait_until_live_includes(shop, log.end())
    assert acted == ["_overwrite"]
    assert _version(shop, teller) == teller.version == 2
    assert log.judge(shop, "build_1") == []


def test_repairs_one_after_the_other_beside_a_busy_worker_leave_every_row_right(
    log: Log, shop: Database
) -> None:
    tellers = [Teller(log, shop, f"race-busy-{number}") for number in range(3)]
    for teller in tellers:
        teller.tell()
    stop = threading.Event()

    def tell() -> None:
        while not stop.wait(0.05):
            for teller in tellers:
                teller.tell()

    with worker(log.settings(shop)):
        wait_until_live_includes(shop, log.end())
        telling = threading.Thread(target=tell)
        telling.start()
        try:
            for teller in tellers:
                invent_payment(shop, teller.order_id)
                changes = mend(log, shop, order=teller.order_id).changes
                assert any(change.startswith("payments ") for change in changes)
        finally:
            stop.set()
            telling.join()
        wait_until_live_includes(shop, log.end())
    assert [_version(shop, teller) for teller in tellers] == [t.version for t in tellers]
    assert log.judge(shop, live(shop)) == []


def test_all_orders_of_a_customer_are_mended_and_those_it_only_had_before(
    log: Log, shop: Database
) -> None:
    right = content(shop, "build_1")
    customer = value(
        shop,
        "SELECT customer_id FROM build_1.orders WHERE visible GROUP BY 1"
        " ORDER BY count(*) DESC, 1 LIMIT 1",
    )
    owned = f"WHERE visible AND customer_id = '{customer}'"
    assert value(shop, f"SELECT count(*) FROM build_1.orders {owned}") >= 3
    lost = value(shop, f"SELECT min(order_id) FROM build_1.orders {owned}")
    execute(
        shop,
        f"UPDATE build_1.orders SET amount = amount + 1 {owned}",
        f"UPDATE build_1.orders SET customer_id = 'nobody' WHERE order_id = '{lost}'",
        f"DELETE FROM build_1.customer_totals WHERE customer_id = '{customer}'",
        "INSERT INTO build_1.customer_totals (customer_id, currency, order_count, cancelled_count,"
        f" ordered, paid, refunded, outstanding) VALUES ('{customer}', 'NOK', 1, 1, 1, 1, 1, 1)",
    )
    found = mend(log, shop, customer=str(customer))
    assert lost in found.orders
    assert content(shop, "build_1") == right


def _version(shop: Database, teller: Teller) -> int:
    query = "SELECT version FROM build_1.orders WHERE order_id = %s AND customer_id = %s"
    return int(value(shop, query, teller.order_id, f"{teller.order_id}-{teller.version}"))
