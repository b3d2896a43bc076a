"""docs/adding-a-view.md followed to the letter, on a database that holds 10,000 orders.

The two folds below are written for these tests and share nothing with the views of the document.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conventions.steps import left_out
from tests.faults.oracle import Registry, expect, read_log
from tests.fixtures.databases import REPOSITORY, Database, DatabaseServer
from tests.fixtures.servers import Servers
from tests.fixtures.topics import recreate_topics
from tests.fixtures.walks import walks
from tests.integration.documents.checkout import Checkout, ask

ORDERS = 10_000
LATER = 300
CHECKS = """
ruff check migrations/versions views api/types api/schema.py
ruff format --check migrations/versions views api/types api/schema.py
alembic check
"""
PRODUCT_SALES, SHIPMENTS = walks((REPOSITORY / "docs" / "adding-a-view.md").read_text("utf-8"))
Rows = dict[tuple[Any, ...], tuple[Any, ...]]


@pytest.fixture(scope="module")
def settings(servers: Servers, registry: str) -> dict[str, str]:
    """Settings of every program, without a database. The topics are new."""
    recreate_topics(servers.kafka.bootstrap_servers, partitions=2)
    return {
        "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
        "VIEWKEEPER_SCHEMA_REGISTRY_URL": registry,
        "VIEWKEEPER_OPS_PORT": "0",
    }


@pytest.fixture(scope="module")
def filled(
    settings: dict[str, str],
    database_server: DatabaseServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Database]:
    """A database whose views hold the orders of a shop, written by the product as it is."""
    database = database_server.create(template=database_server.template.name)
    product = _checkout(tmp_path_factory.mktemp("product"), settings, database)
    position = product.produce("--orders", str(ORDERS), "--seed", "7")
    product.viewkeeper("ingest", "--until", position)
    assert _query(database, "SELECT count(*) >= 10000 FROM build_1.orders") == [(True,)]
    yield database
    database_server.drop(database)


@pytest.fixture
def database(filled: Database, database_server: DatabaseServer) -> Iterator[Database]:
    """A copy of it for one walk."""
    copy = database_server.create(template=filled.name)
    yield copy
    database_server.drop(copy)


def test_a_view_over_a_stream_that_exists(
    tmp_path: Path, settings: dict[str, str], database: Database
) -> None:
    copy = _checkout(tmp_path, settings, database)
    copy.follow(PRODUCT_SALES)
    assert left_out(copy.folder) == []
    copy.shell(CHECKS)
    assert _product_sales(database) == _sold(settings, database)
    copy.viewkeeper("ingest", "--until", copy.produce("--orders", str(LATER), "--seed", "8"))
    expected = _sold(settings, database)
    assert _product_sales(database) == expected
    with copy.api(database) as client:
        nodes = ask(client, PRODUCT_SALES.query)["productSales"]["nodes"]
    euros = [key for key in sorted(expected) if key[1] == "EUR"]
    assert [_sales_of(node) for node in nodes] == [(key, expected[key]) for key in euros[:3]]


def test_a_new_stream_with_its_view(
    tmp_path: Path, settings: dict[str, str], database: Database
) -> None:
    copy = _checkout(tmp_path, settings, database)
    copy.follow(SHIPMENTS)
    assert left_out(copy.folder) == []
    copy.shell(CHECKS)
    order_ids = [
        order_id
        for (order_id,) in _query(
            database, "SELECT order_id FROM build_1.orders WHERE visible ORDER BY 1 LIMIT 200"
        )
    ]
    events = list(shipment_events(order_ids))
    file = tmp_path / "events.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    copy.viewkeeper("ingest", "--until", copy.produce(str(file)))
    expected = newest_shipments(events)
    assert _shipments(database) == expected
    with copy.api(database) as client:
        nodes = ask(client, SHIPMENTS.query)["shipments"]["nodes"]
    sent = [key for key in sorted(expected) if expected[key][3] == "SENT"]
    assert [(node["shipmentId"],) for node in nodes] == sent[:3]
    assert [node["order"]["orderId"] for node in nodes] == [expected[k][2] for k in sent[:3]]


def _checkout(folder: Path, settings: dict[str, str], database: Database) -> Checkout:
    own = {"VIEWKEEPER_DATABASE_URL": database.dsn, "VIEWKEEPER_GROUP_ID": database.name}
    return Checkout(folder / "checkout", {**settings, **own})


def _query(database: Database, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.dsn) as connection:
        return connection.execute(query).fetchall()


def _product_sales(database: Database) -> Rows:
    rows = _query(database, "SELECT * FROM views.product_sales")
    return {row[:2]: row[2:] for row in rows}


def _sales_of(node: Any) -> tuple[Any, Any]:
    measures = (node["lineCount"], int(node["quantity"]), Decimal(node["sales"]))
    return (node["sku"], node["currency"]), measures


def _sold(settings: dict[str, str], database: Database) -> Rows:
    """Fold of the log up to the database's own positions, with the oracle's reading of orders."""
    positions = {
        (topic, partition): offset
        for topic, partition, offset in _query(
            database,
            "SELECT topic, partition, next_offset FROM build_1.positions WHERE topic = 'orders'",
        )
    }
    records, _ = read_log(
        settings["VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS"], ("orders",), until=positions
    )
    registry = Registry(settings["VIEWKEEPER_SCHEMA_REGISTRY_URL"])
    orders = expect(records, registry).views.orders
    sold: defaultdict[tuple[str, str], list[Any]] = defaultdict(lambda: [0, 0, Decimal(0)])
    for order in orders.values():
        if order["visible"] and order["status"] != "CANCELLED":
            for item in order["items"]:
                sums = sold[item["sku"], order["currency"]]
                sums[0] += 1
                sums[1] += item["quantity"]
                sums[2] += item["quantity"] * Decimal(item["unit_price"])
    return {key: tuple(sums) for key, sums in sold.items()}


def shipment_events(order_ids: list[str]) -> Iterator[dict[str, Any]]:
    """One to four versions of each shipment, some twice, in any order."""
    rng = random.Random(5)
    steps = ("PACKED", "SENT", "DELIVERED", "RETURNED")
    events = []
    for number, order_id in enumerate(order_ids):
        shipment_id = f"shipment-{number}"
        for version, status in enumerate(steps[: rng.randint(1, 4)], start=1):
            value = {
                "event_id": f"00000000-0000-4000-8000-{number:08d}{version:04d}",
                "shipment_id": shipment_id,
                "version": version,
                "order_id": order_id,
                "status": status,
                "carrier": None if version == 1 else rng.choice(("post", "bike")),
                "occurred_at": f"2026-01-0{version}T12:00:00Z",
            }
            events += [{"topic": "shipments", "key": shipment_id, "value": value}] * rng.choice(
                (1, 1, 2)
            )
    rng.shuffle(events)
    yield from events


def newest_shipments(events: list[dict[str, Any]]) -> Rows:
    newest: Rows = {}
    for value in (event["value"] for event in events):
        key = (value["shipment_id"],)
        if key not in newest or newest[key][0] < value["version"]:
            names = ("version", "event_id", "order_id", "status", "carrier")
            newest[key] = tuple(value[name] for name in names)
    return newest


def _shipments(database: Database) -> Rows:
    rows = _query(
        database,
        "SELECT shipment_id, version, event_id, order_id, status, carrier FROM views.shipments",
    )
    return {row[:1]: row[1:] for row in rows}
