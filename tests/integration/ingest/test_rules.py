"""What becomes of each kind of event, on real parts: one worker, one log, a story per test.

Every story has orders of its own. At the end the oracle judges the whole log.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from ingest.metrics import REGISTRY
from tests.fixtures.content import Content, Writer, money, order_content, payment_content
from tests.fixtures.contracts import SchemaIds
from tests.fixtures.databases import DatabaseServer
from tests.fixtures.poison import SHAPES, Poisoner, reasons_of
from tests.fixtures.servers import Servers
from tests.fixtures.topics import recreate_topics
from tests.fixtures.traffic import START_MS, Record, produce
from tests.fixtures.waiting import eventually
from tests.integration.ingest.running import (
    BUILD,
    WAIT_S,
    Worker,
    differences_to_log,
    ends_of,
    query,
    reach,
    settings_of,
)

COUNTERS = ("applied", "superseded", "duplicates", "tombstones", "dead")


@dataclass
class Shop:
    """One order's story: what is told of it, and what the views then hold."""

    dsn: str
    bootstrap: str
    write: Writer
    ids: SchemaIds
    order_id: str = ""
    told: int = 0

    def order(self, **changes: Any) -> Content:
        rng = random.Random(self.order_id)
        return order_content(rng, self.order_id, customers=3) | {"discount": None} | changes

    def payment(self, **changes: Any) -> Content:
        paid: Content = {"status": "CAPTURED", "currency": self.order()["currency"]}
        return payment_content(random.Random(1), self.order(), 0) | paid | changes

    def tell(self, *events: Content | None, topic: str = "") -> dict[str, int]:
        """Produce full states (None: a tombstone) and wait; what the counters rose by."""
        return self.send([self._record(event, topic) for event in events])

    def _record(self, event: Content | None, topic: str) -> Record:
        self.told += 1
        at_ms, key = START_MS + self.told, self.order_id.encode()
        if event is None:
            return Record(topic or "orders", key, None, at_ms, "tombstone")
        kind = "payments" if "payment_id" in event else "orders"
        return Record(kind, key, self.write(kind, event), at_ms, "event")

    def send(self, records: Sequence[Record]) -> dict[str, int]:
        before = self.counters()
        landed = produce(self.bootstrap, records)
        reach(self.dsn, ends_of(landed))
        self.landed = landed
        rose = {name: count - before[name] for name, count in self.counters().items()}
        return {name: count for name, count in rose.items() if count}

    def counters(self) -> dict[str, int]:
        sums = ", ".join(f"coalesce(sum({name}), 0)::int" for name in COUNTERS)
        ((*counts,),) = query(self.dsn, f"SELECT {sums} FROM {BUILD}.positions")
        return dict(zip(COUNTERS, counts, strict=True))

    def row(self, *columns: str) -> tuple[Any, ...] | None:
        names = ", ".join(columns)
        rows = query(
            self.dsn, f"SELECT {names} FROM {BUILD}.orders WHERE order_id = %s", self.order_id
        )
        return rows[0] if rows else None

    def reasons(self) -> list[str]:
        """The reasons of the dead letters among the records of the last `send`, in its order."""
        found = []
        for place in self.landed:
            found += query(
                self.dsn,
                "SELECT reason FROM ingest.dead_letters"
                ' WHERE topic = %s AND partition = %s AND "offset" = %s',
                *place,
            )
        return [reason for (reason,) in found]


@pytest.fixture(scope="module")
def open_shop(
    servers: Servers, database_server: DatabaseServer, registry: str, ids: SchemaIds
) -> Iterator[Shop]:
    """A worker at work on topics and a database for all stories; judged when they are told."""
    bootstrap = servers.kafka.bootstrap_servers
    recreate_topics(bootstrap, partitions=3)
    database = database_server.create(template=database_server.template.name)
    settings = settings_of(dsn=database.dsn, bootstrap=bootstrap, registry=registry)
    with Worker(settings):
        yield Shop(database.dsn, bootstrap, Writer(ids), ids)
    found = differences_to_log(database.dsn, bootstrap=bootstrap, registry=registry)
    database_server.drop(database)
    assert not found, found


@pytest.fixture
def shop(open_shop: Shop, request: pytest.FixtureRequest) -> Shop:
    open_shop.order_id = request.node.name[-60:]
    return open_shop


def test_an_order_is_kept_with_every_field_and_where_it_came_from(shop: Shop) -> None:
    event = shop.order(
        amount=money(1_234_567), discount=money(4_567), currency="EUR", status="SHIPPED"
    )
    assert shop.tell(event) == {"applied": 1}
    ((topic, partition, offset),) = shop.landed
    columns = (
        "version, status, customer_id, currency, amount, discount, outstanding, visible,"
        " source_topic, source_partition, source_offset, source_schema_id"
    )
    assert shop.row(columns) == (
        1,
        "SHIPPED",
        event["customer_id"],
        "EUR",
        Decimal("123.4567"),
        Decimal("0.4567"),
        Decimal("123.0000"),
        True,
        topic,
        partition,
        offset,
        shop.ids.orders,
    )


def test_amounts_are_exact_to_the_last_of_eighteen_digits(shop: Shop) -> None:
    most = 10**18 - 1
    items = [{"sku": "a", "quantity": 1, "unit_price": money(most)}]
    event = shop.order(amount=money(most), discount=money(-most), items=items, currency="EUR")
    assert shop.tell(event) == {"applied": 1}
    largest = Decimal("99999999999999.9999")
    assert shop.row("amount, discount, outstanding") == (largest, -largest, 2 * largest)
    assert shop.row("items->0->>'unit_price'") == (str(largest),)
    paid = {"amount": money(most), "refunded_amount": money(1)}
    payment = shop.payment(currency="EUR", **paid)
    assert shop.tell(payment) == {"applied": 1}
    assert shop.row("paid, refunded") == (largest, Decimal("0.0001"))


def test_the_same_event_twice_changes_nothing(shop: Shop) -> None:
    assert shop.tell(shop.order()) == {"applied": 1}
    before = shop.row("version, source_offset, amount")
    assert shop.tell(shop.order()) == {"duplicates": 1}
    assert shop.tell(shop.order(), shop.order()) == {"duplicates": 2}
    assert shop.row("version, source_offset, amount") == before


def test_an_older_version_after_a_newer_one_changes_nothing(shop: Shop) -> None:
    assert shop.tell(shop.order(version=5, status="SHIPPED")) == {"applied": 1}
    assert shop.tell(shop.order(version=4, status="PLACED")) == {"superseded": 1}
    assert shop.row("version, status") == (5, "SHIPPED")


def test_the_same_version_with_other_content_is_a_dead_letter_and_the_first_stays(
    shop: Shop,
) -> None:
    assert shop.tell(shop.order(amount=money(10_000))) == {"applied": 1}
    assert shop.tell(shop.order(amount=money(20_000))) == {"dead": 1}
    assert shop.reasons() == ["VERSION_CONFLICT"]
    assert shop.row("amount") == (Decimal("1.0000"),)


def test_another_event_id_is_other_content(shop: Shop) -> None:
    assert shop.tell(shop.order(), shop.order(event_id="another")) == {"applied": 1, "dead": 1}
    assert shop.reasons() == ["VERSION_CONFLICT"]


def test_the_same_key_many_times_in_a_batch_counts_each_and_keeps_the_last(shop: Shop) -> None:
    name, batches = shop.order_id, []
    for attempt in range(20):
        shop.order_id = f"{name}-{attempt}"
        batches.append(_batches_of(shop, [1, 3, 2, 3, 4, 4]))
        assert shop.row("version, amount") == (4, Decimal("4.0000"))
        if batches[-1] == 1:
            return
    raise AssertionError(f"the records of one key never came in one batch, but in {batches}")


def _batches_of(shop: Shop, versions: list[int]) -> int:
    """In how many batches these versions of an order were applied."""
    before, told = _metric("batches_total"), _metric("batch_records_sum") + len(versions)
    rose = shop.tell(*(shop.order(version=v, amount=money(v * 10_000)) for v in versions))
    assert rose == {"applied": 3, "superseded": 1, "duplicates": 2}
    eventually(lambda: _metric("batch_records_sum") >= told, WAIT_S, "they are counted")
    return int(_metric("batches_total") - before)


def _metric(name: str) -> float:
    """A figure of the worker, which runs in this process."""
    return REGISTRY.get_sample_value(f"viewkeeper_{name}") or 0.0


def test_a_payment_may_come_before_its_order(shop: Shop) -> None:
    assert shop.tell(shop.payment(amount=money(30_000))) == {"applied": 1}
    assert shop.row("version, visible, payment_count") == (0, False, 1)
    assert shop.tell(shop.order(amount=money(50_000))) == {"applied": 1}
    assert shop.row("visible, paid, outstanding") == (True, Decimal("3.0000"), Decimal("2.0000"))


def test_a_payment_in_another_currency_is_counted_and_not_summed(shop: Shop) -> None:
    shop.tell(shop.order(currency="EUR"), shop.payment(currency="USD"))
    columns = "paid, payment_count, mismatched_payment_count"
    assert shop.row(columns) == (Decimal("0.0000"), 1, 1)


def test_a_payment_that_moves_on_is_summed_once(shop: Shop) -> None:
    order, paid = shop.order(amount=money(50_000)), money(50_000)
    refund = {"status": "REFUNDED", "version": 2, "refunded_amount": money(20_000)}
    shop.tell(order, shop.payment(amount=paid), shop.payment(amount=paid, **refund))
    assert shop.row("paid, refunded, outstanding, payment_count") == (
        Decimal("5.0000"),
        Decimal("2.0000"),
        Decimal("2.0000"),
        1,
    )
    shop.tell(shop.payment(amount=paid, status="VOIDED", version=3))
    assert shop.row("paid, refunded, payment_count") == (Decimal("0.0000"), Decimal("0.0000"), 1)


def test_a_tombstone_for_an_order_never_seen_is_nothing(shop: Shop) -> None:
    assert shop.tell(None) == {"tombstones": 1}
    assert shop.row("visible") in (None, (False,))


def test_a_tombstone_hides_an_order_and_keeps_its_version(shop: Shop) -> None:
    shop.tell(shop.order(version=3))
    groups = "SELECT coalesce(sum(order_count), 0)::int FROM build_1.customer_totals"
    ((before,),) = query(shop.dsn, groups)
    assert shop.tell(None) == {"tombstones": 1}
    assert shop.row("version, visible") == (3, False)
    assert query(shop.dsn, groups) == [(before - 1,)]
    assert (
        query(shop.dsn, "SELECT order_id FROM views.orders WHERE order_id = %s", shop.order_id)
        == []
    )


def test_only_a_higher_version_brings_a_removed_order_back(shop: Shop) -> None:
    shop.tell(shop.order(version=3), None)
    assert shop.tell(shop.order(version=2)) == {"superseded": 1}
    assert shop.tell(shop.order(version=3)) == {"duplicates": 1}
    assert shop.row("visible") == (False,)
    assert shop.tell(shop.order(version=4)) == {"applied": 1}
    assert shop.row("version, visible") == (4, True)


def test_removed_and_re_created_within_one_batch_is_there(shop: Shop) -> None:
    told = shop.tell(shop.order(), None, shop.order(version=2), None, shop.order(version=3))
    assert told == {"applied": 3, "tombstones": 2}
    assert shop.row("version, visible") == (3, True)
    assert shop.tell(shop.order(version=4), None) == {"applied": 1, "tombstones": 1}
    assert shop.row("version, visible") == (4, False)


def test_payments_of_a_removed_order_stay(shop: Shop) -> None:
    shop.tell(shop.order(amount=money(50_000)), shop.payment(amount=money(10_000)), None)
    assert shop.row("visible, payment_count") == (False, 1)
    shop.tell(shop.payment(amount=money(20_000), version=2))
    shop.tell(shop.order(amount=money(50_000), version=2))
    assert shop.row("visible, paid") == (True, Decimal("2.0000"))


def test_a_null_payment_is_a_dead_letter(shop: Shop) -> None:
    assert shop.tell(None, topic="payments") == {"dead": 1}
    assert shop.reasons() == ["NULL_VALUE"]


def test_a_record_without_a_key_is_a_dead_letter(shop: Shop) -> None:
    value = shop.write("orders", shop.order())
    assert shop.send([Record("orders", None, value, START_MS, "")]) == {"dead": 1}
    assert shop.reasons() == ["NULL_KEY"]


def test_an_unknown_schema_id_is_a_dead_letter_and_its_neighbours_land(shop: Shop) -> None:
    good = shop._record(shop.order(), "")
    assert good.value is not None
    unknown = b"\x00" + shop.ids.unknown.to_bytes(4, "big") + good.value[5:]
    bad = Record("orders", good.key, unknown, START_MS, "")
    assert shop.send([bad, good, bad]) == {"applied": 1, "dead": 2}
    assert shop.reasons() == ["UNKNOWN_SCHEMA"] * 2
    assert shop.row("version") == (1,)


def test_malformed_bytes_of_every_kind_are_dead_letters_with_their_bytes(shop: Shop) -> None:
    """Each with a good order before and behind it; a few at once, to stay below what stops it."""
    poisoner = Poisoner(
        rng=random.Random(3),
        write=shop.write,
        ids=shop.ids,
        topics=("orders", "payments"),
        shapes=tuple(SHAPES),
    )
    for number, shape in enumerate(SHAPES):
        made = poisoner.make(shop.order_id)
        bad = Record(made.topic, made.key, made.value, START_MS, made.kind)
        before, behind = shop.order(version=2 * number + 1), shop.order(version=2 * number + 2)
        records = [shop._record(before, ""), bad, shop._record(behind, "")]
        assert shop.send(records) == {"applied": 2, "dead": 1}, made.kind
        (reason,) = shop.reasons()
        assert reason in reasons_of(shape), shape
        (kept,) = query(
            shop.dsn,
            "SELECT key, value, state FROM ingest.dead_letters"
            ' WHERE topic = %s AND partition = %s AND "offset" = %s',
            *shop.landed[1],
        )
        assert kept == (bad.key, bad.value, "open")
        assert shop.row("version") == (2 * number + 2,)


def test_a_dead_letter_waits_in_the_outbox_once(shop: Shop) -> None:
    shop.send([Record("orders", b"k", b"", START_MS, "")])
    rows = query(
        shop.dsn,
        "SELECT d.reason, d.attempts FROM ingest.dead_letters d"
        " JOIN ingest.outbox o ON o.dead_letter_id = d.id"
        ' WHERE topic = %s AND partition = %s AND "offset" = %s',
        *shop.landed[0],
    )
    assert rows == [("EMPTY", 1)]


def test_a_suspect_was_tried_three_times(shop: Shop) -> None:
    value = shop.write("orders", shop.order())[:-1]
    shop.send([Record("orders", shop.order_id.encode(), value, START_MS, "")])
    rows = query(
        shop.dsn,
        "SELECT reason, attempts FROM ingest.dead_letters"
        ' WHERE topic = %s AND partition = %s AND "offset" = %s',
        *shop.landed[0],
    )
    assert rows == [("TRUNCATED", 3)]


@pytest.mark.parametrize("at_ms", [0, 1], ids=str)
def test_the_time_of_a_record_breaks_nothing(shop: Shop, at_ms: int) -> None:
    """It is whatever a producer says; the broker refuses what lies more than an hour ahead."""
    good = shop._record(shop.order(), "")
    bad = Record("orders", shop.order_id.encode(), b"", at_ms, "")
    timed = Record(good.topic, good.key, good.value, at_ms, "")
    shop.send([bad, timed])
    assert "EMPTY" in shop.reasons()


def test_a_record_that_the_database_refuses_is_found_and_its_neighbours_land(shop: Shop) -> None:
    name = "refused-by-a-trigger"
    query(
        shop.dsn,
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF NEW.customer_id = '{name}' THEN"
        " RAISE check_violation USING MESSAGE = 'not this one'; END IF;"
        " RETURN NEW; END $$;"
        f" CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {BUILD}.orders"
        " FOR EACH ROW EXECUTE FUNCTION public.refuse()",
    )
    try:
        mine = shop.order_id
        records = []
        for number in range(40):
            shop.order_id = f"{mine}-{number}"
            customer = {"customer_id": name} if number == 23 else {}
            records.append(shop._record(shop.order(**customer), ""))
        shop.send(records)
        assert shop.reasons() == ["REFUSED_BY_DATABASE"]
        for number in range(40):
            shop.order_id = f"{mine}-{number}"
            assert (shop.row("version") == (1,)) is (number != 23), number
    finally:
        query(shop.dsn, f"DROP TRIGGER refuse ON {BUILD}.orders; DROP FUNCTION public.refuse()")
    # The oracle knows nothing of this trigger: with its story told, the letter is taken back.
    query(
        shop.dsn,
        f"UPDATE {BUILD}.positions p SET dead = dead - d.n, applied = applied + d.n FROM"
        " (SELECT topic, partition, count(*) AS n FROM ingest.dead_letters"
        " WHERE reason = 'REFUSED_BY_DATABASE' GROUP BY 1, 2) d"
        " WHERE d.topic = p.topic AND d.partition = p.partition;"
        " DELETE FROM ingest.outbox WHERE dead_letter_id IN"
        " (SELECT id FROM ingest.dead_letters WHERE reason = 'REFUSED_BY_DATABASE');"
        " DELETE FROM ingest.dead_letters WHERE reason = 'REFUSED_BY_DATABASE'",
    )
    shop.order_id = f"{mine}-23"
    assert shop.send([shop._record(shop.order(version=2), "")]) == {"applied": 1}


def test_a_symbol_we_do_not_know_becomes_unknown(shop: Shop) -> None:
    value = shop.write("orders_evolved", shop.order(status="RETURNED"))
    record = Record("orders", shop.order_id.encode(), value, START_MS, "")
    assert shop.send([record]) == {"applied": 1}
    assert shop.row("status") == ("UNKNOWN",)
