"""Producing records at a rate, and the position that they reach.

Stands apart from what is produced: sample traffic, or events from a file. A record counts once the
broker has acknowledged it with acks=all; the position is what a reader then asks to see.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from views.positions import PositionVector

DELIVERY_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.05
# How far the traffic may run ahead of its pace before it waits: smooth enough to look at.
SLICE_S: Final = 0.02


class NotDeliveredError(RuntimeError):
    """The broker refused records, or did not acknowledge them in time. What was, stands."""


class Produced(Protocol):
    """A record to be produced."""

    @property
    def topic(self) -> str: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


@dataclass(slots=True)
class Reached:
    """What has been acknowledged so far. Read by any thread; written by the feeding one."""

    records: int = 0
    next_offsets: dict[tuple[str, int], int] = field(default_factory=dict)

    def position(self, generation: str | None = None) -> PositionVector:
        """Everything acknowledged is in a view that includes this position."""
        return PositionVector(dict(self.next_offsets), generation)


class Feed:
    """One producer, at `rate_per_s` records a second or, without a rate, as fast as it goes."""

    def __init__(self, options: Mapping[str, str], *, rate_per_s: float | None = None) -> None:
        self._rate_per_s = rate_per_s
        self._failed: list[str] = []
        self._complaint = "no reason given"
        self.reached = Reached()
        self._producer = Producer(
            {
                "linger.ms": 5,
                # What heals by itself is no news; what does not is raised, with the last complaint.
                "log_level": "0",
                "error_cb": self._complained,
                "queue.buffering.max.messages": 100_000,
                **options,
                "acks": "all",
                "enable.idempotence": True,
                "delivery.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
            }
        )

    def run(self, records: Iterable[Produced], stop: threading.Event) -> Reached:
        """Produce until the records end or `stop` is set, and wait for every acknowledgement.

        NotDeliveredError: at least one record was not acknowledged.
        """
        began_at = time.monotonic()
        for number, record in enumerate(records):
            if self._failed or self._stopped_waiting_for(number, began_at, stop):
                break
            self._send(record, stop)
        left = self._producer.flush(DELIVERY_TIMEOUT_S)
        if self._failed:
            raise NotDeliveredError(
                f"the broker did not take a record: {self._failed[0]} ({self._complaint})"
            )
        if left:
            raise NotDeliveredError(
                f"{left} records were not acknowledged by the broker: {self._complaint}"
            )
        return self.reached

    def _stopped_waiting_for(self, number: int, began_at: float, stop: threading.Event) -> bool:
        """Keep the pace: wait until this record is due. True: asked to stop meanwhile."""
        if self._rate_per_s is None:
            return stop.is_set()
        ahead_s = number / self._rate_per_s - (time.monotonic() - began_at)
        if ahead_s > SLICE_S:
            self._producer.poll(0)
        return stop.wait(ahead_s) if ahead_s > SLICE_S else stop.is_set()

    def _send(self, record: Produced, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, on_delivery=self._delivered
                )
                self._producer.poll(0)
                return
            except BufferError:  # the queue is full: acknowledgements make room
                self._producer.poll(POLL_S)
            except KafkaException as error:
                self._failed.append(error.args[0].str())
                return

    def _complained(self, error: KafkaError) -> None:
        """The client's latest trouble with the brokers; it goes on trying by itself."""
        self._complaint = error.str()

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}: {error.str()}")
            return
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is None or partition is None or offset is None:
            self._failed.append("an acknowledgement without its place")
            return
        reached = self.reached
        reached.records += 1
        place = (topic, partition)
        reached.next_offsets[place] = max(reached.next_offsets.get(place, 0), offset + 1)
