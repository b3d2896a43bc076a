"""The floor of freshness: consume one event, commit one row, and nothing else.

Run as a program of its own, until it is asked to end. It starts at the end of the topic.
"""

import argparse
import io
import signal
import threading

import fastavro
import psycopg
from confluent_kafka import Consumer

from bench.eventlog import contract

POLL_TIMEOUT_S = 0.5
TABLE = "CREATE TABLE IF NOT EXISTS bare (order_id text PRIMARY KEY, version int8 NOT NULL)"
UPSERT = (
    "INSERT INTO bare VALUES (%s, %s)"
    " ON CONFLICT (order_id) DO UPDATE SET version = EXCLUDED.version"
)


def main() -> None:
    """Parse, connect, loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--bootstrap-servers", "--dsn", "--group"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    consumer = Consumer(
        {
            "bootstrap.servers": options.bootstrap_servers,
            "group.id": options.group,
            "auto.offset.reset": "latest",
            "enable.auto.commit": False,
        }
    )
    schema = fastavro.parse_schema(contract("orders"))
    with psycopg.connect(options.dsn, autocommit=True) as connection:
        connection.execute(TABLE)
        consumer.subscribe(["orders"])
        while not stop.is_set():
            message = consumer.poll(POLL_TIMEOUT_S)
            value = message.value() if message is not None and message.error() is None else None
            if value is not None:
                event = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
                assert isinstance(event, dict)
                connection.execute(UPSERT, (event["order_id"], event["version"]))
    consumer.close()


if __name__ == "__main__":
    main()
