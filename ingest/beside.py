"""What the worker asks of the database beside its batches: the time, pins, pauses, new partitions.

On a connection of its own, because a batch may hold the session's for seconds. Nothing here takes
part in a batch's transaction; each call commits by itself.
"""

import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg import Connection

from ingest.claim import BrokerView
from ingest.connect import APPLICATION, connect, live_build, translated
from ingest.operate import BuildProgress, progress
from views.positions import Partition, PositionVector

Row = tuple[Any, ...]
T = TypeVar("T")


class Beside:
    """One connection, one call at a time, any thread. TransientError: the database is away."""

    def __init__(self, dsn: str, owner: str) -> None:
        self._dsn = dsn
        self._application = f"{APPLICATION} {owner} beside"
        self._connection: Connection[Row] | None = None
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Database time."""

        def ask(connection: Connection[Row]) -> datetime:
            row = connection.execute("SELECT clock_timestamp()").fetchone()
            assert row is not None
            found: datetime = row[0]
            return found

        return self._do(ask)

    def pin(self, schema_id: int, fingerprint: str) -> str:
        """Keep the fingerprint of a schema id unless one is kept; answer the one that is kept."""

        def ask(connection: Connection[Row]) -> str:
            connection.execute(
                "INSERT INTO ingest.schema_fingerprints (schema_id, fingerprint) VALUES (%s, %s)"
                " ON CONFLICT DO NOTHING",
                (schema_id, fingerprint),
            )
            row = connection.execute(
                "SELECT fingerprint FROM ingest.schema_fingerprints WHERE schema_id = %s",
                (schema_id,),
            ).fetchone()
            assert row is not None
            return str(row[0])

        return self._do(ask)

    def ensure_rows(self, brokers: Mapping[Partition, BrokerView]) -> set[Partition]:
        """Give every partition that the broker has a row, at offset 0 where it has none yet.

        Answers the partitions whose row belongs to another cluster or another life of the topic.
        """

        def ask(connection: Connection[Row]) -> set[Partition]:
            build = live_build(connection)
            found = connection.execute(
                f"SELECT topic, partition, cluster_id, topic_id FROM {build}.positions"
            )
            rows = {(topic, partition): ids for topic, partition, *ids in found}
            for partition in sorted(brokers.keys() - rows.keys()):
                broker = brokers[partition]
                connection.execute(
                    f"INSERT INTO {build}.positions (topic, partition, cluster_id, topic_id)"
                    " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                    (*partition, broker.cluster_id, broker.topic_id),
                )
            return {
                partition
                for partition, broker in brokers.items()
                if partition in rows
                and any(
                    known not in (None, now)
                    for known, now in zip(
                        rows[partition], (broker.cluster_id, broker.topic_id), strict=True
                    )
                )
            }

        return self._do(ask)

    def positions(self) -> PositionVector:
        """Where the live build stands."""

        def ask(connection: Connection[Row]) -> PositionVector:
            rows = connection.execute(
                f"SELECT topic, partition, next_offset FROM {live_build(connection)}.positions"
            )
            return PositionVector({(topic, number): offset for topic, number, offset in rows})

        return self._do(ask)

    def held(self) -> set[Partition]:
        """The partitions that an operator paused, or that were stopped."""

        def ask(connection: Connection[Row]) -> set[Partition]:
            rows = connection.execute(
                f"SELECT topic, partition FROM {live_build(connection)}.positions"
                " WHERE paused OR stopped_reason IS NOT NULL"
            )
            return {(topic, partition) for topic, partition in rows}

        return self._do(ask)

    def builds(self) -> tuple[BuildProgress, ...]:
        """How far every build is: one that is being made beside the live one, too."""
        return self._do(lambda connection: tuple(progress(connection)))

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _do(self, ask: Callable[[Connection[Row]], T]) -> T:
        with self._lock, translated():
            try:
                if self._connection is None:
                    self._connection = connect(self._dsn, self._application)
                    self._connection.autocommit = True
                return ask(self._connection)
            except psycopg.Error:
                if self._connection is not None:
                    self._connection.close()
                self._connection = None
                raise
