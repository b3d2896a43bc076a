"""Contestant (a), the naive floor: consume, decode one by one, COPY and upsert two plain tables.

What a capable developer writes in an afternoon, and nothing else: no guard against older versions,
no sums, no positions, no dead letters. Run as a program of its own; ends after `--events`.
"""

import argparse
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import fastavro
import orjson
import psycopg
from confluent_kafka import Consumer, Message
from psycopg import sql
from psycopg.types.json import set_json_dumps

from bench.eventlog import TOPICS, contract

BATCH_EVENTS: Final = 10_000
POLL_TIMEOUT_S: Final = 5.0

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PlainTable:
    """A table whose columns are the fields of the contract."""

    name: str
    key: str
    columns: Sequence[tuple[str, str]]


MONEY: Final = "numeric"
ORDERS: Final = PlainTable(
    "orders",
    "order_id",
    (
        ("event_id", "uuid"),
        ("order_id", "text"),
        ("version", "int8"),
        ("status", "text"),
        ("customer_id", "text"),
        ("currency", "text"),
        ("amount", MONEY),
        ("discount", MONEY),
        ("items", "json"),
        ("placed_at", "timestamptz"),
        ("occurred_at", "timestamptz"),
    ),
)
PAYMENTS: Final = PlainTable(
    "payments",
    "payment_id",
    (
        ("event_id", "uuid"),
        ("payment_id", "text"),
        ("order_id", "text"),
        ("version", "int8"),
        ("status", "text"),
        ("currency", "text"),
        ("amount", MONEY),
        ("refunded_amount", MONEY),
        ("method", "text"),
        ("occurred_at", "timestamptz"),
    ),
)
TABLES: Final = {table.name: table for table in (ORDERS, PAYMENTS)}


def create_tables(dsn: str) -> None:
    """Make the two plain tables."""
    with psycopg.connect(dsn) as connection:
        for table in TABLES.values():
            columns = sql.SQL(", ").join(
                sql.SQL("{} " + kind).format(sql.Identifier(name)) for name, kind in table.columns
            )
            create = sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))")
            connection.execute(
                create.format(sql.Identifier(table.name), columns, sql.Identifier(table.key))
            )


class Writer:
    """COPY into a staging table, then one upsert."""

    def __init__(self, connection: psycopg.Connection, table: PlainTable) -> None:
        self._connection = connection
        self._types = [kind for _, kind in table.columns]
        self._names = [name for name, _ in table.columns]
        parts = {
            "table": sql.Identifier(table.name),
            "staged": sql.Identifier(f"staged_{table.name}"),
            "key": sql.Identifier(table.key),
            "columns": sql.SQL(", ").join(map(sql.Identifier, self._names)),
            "changes": sql.SQL(", ").join(
                sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name))
                for name in self._names
                if name != table.key
            ),
        }
        self._copy = sql.SQL("COPY {staged} ({columns}) FROM STDIN (FORMAT binary)").format(**parts)
        self._upsert = sql.SQL(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM {staged}"
            " ON CONFLICT ({key}) DO UPDATE SET {changes}"
        ).format(**parts)
        connection.execute(
            sql.SQL("CREATE TEMP TABLE {staged} (LIKE {table}) ON COMMIT DELETE ROWS").format(
                **parts
            )
        )

    def write(self, rows: Iterable[Row]) -> None:
        """Stage and upsert rows with distinct keys."""
        with self._connection.cursor() as cursor:
            with cursor.copy(self._copy) as copy:
                copy.set_types(self._types)
                for row in rows:
                    copy.write_row([row[name] for name in self._names])
            cursor.execute(self._upsert)


class Floor:
    """The loop."""

    def __init__(self, consumer: Consumer, connection: psycopg.Connection) -> None:
        self._consumer = consumer
        self._connection = connection
        self._writers = {name: Writer(connection, table) for name, table in TABLES.items()}
        self._schemas = {topic: fastavro.parse_schema(contract(topic)) for topic in TOPICS}
        connection.commit()

    def run(self, events: int) -> None:
        """Take in exactly so many events."""
        while events > 0:
            batch = self._consumer.consume(min(BATCH_EVENTS, events), POLL_TIMEOUT_S)
            if batch:
                self._apply(batch)
                events -= len(batch)

    def _apply(self, batch: list[Message]) -> None:
        latest: dict[str, dict[str, Row]] = {name: {} for name in TABLES}
        for message in batch:
            topic, row = self._decode(message)
            latest[topic][row[TABLES[topic].key]] = row
        for name, rows in latest.items():
            if rows:
                self._writers[name].write(rows.values())
        self._connection.commit()
        self._consumer.commit(asynchronous=True)

    def _decode(self, message: Message) -> tuple[str, Row]:
        topic, value = message.topic(), message.value()
        if message.error() is not None or topic is None or value is None:
            raise RuntimeError(f"the broker answered with {message.error()}")
        decoded = fastavro.schemaless_reader(io.BytesIO(value[5:]), self._schemas[topic], None)
        row: Row = decoded  # type: ignore[assignment]
        return topic, row


def main() -> None:
    """Parse, connect, run."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--bootstrap-servers", "--dsn", "--group"):
        parser.add_argument(name, required=True)
    parser.add_argument("--events", type=int, required=True)
    options = parser.parse_args()
    set_json_dumps(lambda items: orjson.dumps(items, default=str))
    consumer = Consumer(
        {
            "bootstrap.servers": options.bootstrap_servers,
            "group.id": options.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe(list(TOPICS))
    with psycopg.connect(options.dsn) as connection:
        Floor(consumer, connection).run(options.events)
    consumer.close()


if __name__ == "__main__":
    main()
