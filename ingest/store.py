"""The worker's side door to the database: one session, one thread, one thing at a time.

The thread lets the next batch be read and decoded while PostgreSQL works on this one; the psycopg
calls below wait outside the interpreter's lock. Order is kept because there is only one thread.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ingest import claim
from ingest.claim import BrokerView, Claimed, Observation, Refusal
from ingest.connect import Session
from ingest.fold import Folded
from ingest.metrics import METRICS
from ingest.write import write
from views.positions import Partition

T = TypeVar("T")


class Store:
    """What the worker needs of the database (`ingest.ports.StorePort`)."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._topic_ids: dict[str, str] = {}

    def claim(
        self, brokers: Mapping[Partition, BrokerView], still_mine: Mapping[Partition, int]
    ) -> dict[Partition, Claimed | Refusal]:
        """Draw a new epoch for each partition; see `ingest.claim.claim`."""
        self._topic_ids.update({topic: b.topic_id for (topic, _), b in brokers.items()})
        return self._now(lambda: claim.claim(self._session, brokers, still_mine=still_mine))

    def write(
        self,
        folded: Folded,
        epochs: Mapping[Partition, int],
        ends: Mapping[Partition, Observation],
    ) -> "Future[None]":
        """Commit a batch; its outcome is the future's. See `ingest.write.write`."""
        topic_ids = dict(self._topic_ids)

        def timed() -> None:
            with METRICS.write_seconds.time():
                write(self._session, folded, epochs=epochs, topic_ids=topic_ids, ends=ends)

        return self._thread.submit(timed)

    def observe(
        self, ends: Mapping[Partition, Observation], epochs: Mapping[Partition, int]
    ) -> "Future[None]":
        """Note ends of partitions; see `ingest.claim.observe`."""
        return self._thread.submit(claim.observe, self._session, ends, epochs)

    def forget_build(self) -> None:
        """Look up which build is live before the next thing that is done."""
        self._now(self._session.close)

    def open(self) -> None:
        """Open the session, so that what is refused is refused at start."""
        self._now(self._session.open)

    def close(self) -> None:
        """Finish what is under way and close the session."""
        self._thread.shutdown(wait=True)
        self._session.close()

    def _now(self, call: Callable[[], T]) -> T:
        return self._thread.submit(call).result()
