"""Contestant (b): Quix Streams with its own PostgreSQL sink, one raw table per topic.

Runs in an environment of its own (`requirements-bench.lock`), so it imports nothing of ours. It
appends every event and keeps no latest row; it ends by itself after `--events`.
"""

import argparse
import logging
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from quixstreams import Application
from quixstreams.models.serializers.avro import AvroDeserializer
from quixstreams.models.serializers.schema_registry import SchemaRegistryClientConfig
from quixstreams.sinks.community.postgresql import PostgreSQLSink

COMMIT_EVERY: Final = 10_000
COMMIT_INTERVAL_S: Final = 1.0


def storable(value: dict[str, Any]) -> dict[str, Any]:
    """The sink knows no UUID, and no decimals within a list, which it turns into JSON."""
    value["event_id"] = str(value["event_id"])
    for item in value.get("items", ()):
        item["unit_price"] = str(item["unit_price"])
    return value


def sink(dsn: str, table: str) -> PostgreSQLSink:
    """The sink of one topic."""
    address = urlsplit(dsn)
    return PostgreSQLSink(
        host=address.hostname,
        port=address.port,
        dbname=address.path.lstrip("/"),
        user=unquote(address.username or ""),
        password=unquote(address.password or ""),
        table_name=table,
    )


def main() -> None:
    """Both topics through one application."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--bootstrap-servers", "--registry", "--dsn", "--group"):
        parser.add_argument(name, required=True)
    parser.add_argument("--events", type=int, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    application = Application(
        broker_address=options.bootstrap_servers,
        consumer_group=options.group,
        auto_offset_reset="earliest",
        commit_every=COMMIT_EVERY,
        commit_interval=COMMIT_INTERVAL_S,
        loglevel="WARNING",
    )
    registry = SchemaRegistryClientConfig(url=options.registry)
    for name in ("orders", "payments"):
        topic = application.topic(
            name,
            key_deserializer="str",
            value_deserializer=AvroDeserializer(schema_registry_client_config=registry),
        )
        frame = application.dataframe(topic).apply(storable)
        frame.sink(sink(options.dsn, name))
    application.run(count=options.events, collect=False)


if __name__ == "__main__":
    main()
