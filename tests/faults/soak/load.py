"""The traffic of a soak: a backlog, a steady stream with bursts and hot keys, transactions.

Stands apart because it only sends and keeps the ledger; what is broken meanwhile is no business of
its own, so every outcome that it is not told counts as unknown.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Final, Self

from confluent_kafka import KafkaException, Message, Producer
from confluent_kafka.cimpl import KafkaError

from tests.faults.harness.ground import Ground
from tests.faults.harness.producers import ABORTED, offer, producer
from tests.faults.harness.threads import Threads
from tests.fixtures.traffic import Record

TURN_S: Final = 0.1
BURST_EVERY: Final = 200
BURST_TURNS: Final = 30
BURST_FACTOR: Final = 6
ABORTS: Final = 0.1
TRANSACTION_SIZE: Final = 10
TRANSACTION_PAUSE_S: Final = 0.5
ORDERS_AT_ONCE: Final = 4_000
POISON: Final = 0.01
_STEP_S: Final = 5.0
_LAST_S: Final = 120.0


class Load:
    """Sends from `start` until `stop`; `recent` holds keys of orders that were sent lately."""

    def __init__(self, ground: Ground, *, seed: int, per_s: int) -> None:
        self._ground = ground
        self._seed = seed
        self._per_s = per_s
        self._client = producer(ground.place.bootstrap)
        self.recent: deque[str] = deque(maxlen=2_000)
        self.sent = 0
        self.committed = 0
        self.aborted = 0
        self.unknown_transactions = 0
        self._threads = Threads((self._steadily, self._in_transactions))

    def backlog(self, orders: int) -> None:
        """Send so many orders' records now, and wait for each."""
        traffic = self._traffic("backlog", orders=orders)
        self._ground.send(self._noted(record) for record in traffic)

    def start(self) -> Self:
        """Send on threads of its own."""
        self._threads.start()
        return self

    def stop(self) -> None:
        """Stop sending; returns when each outcome is known or counted as unknown."""
        self._threads.stop(_LAST_S)
        assert self._client.flush(_LAST_S) == 0, "not every record has an outcome"

    def _traffic(self, prefix: str, *, orders: int) -> Iterator[Record]:
        return self._ground.traffic(orders, seed=self._seed, prefix=prefix, poison=POISON)

    def _endless(self, prefix: str) -> Iterator[Record]:
        for number in count():
            yield from self._traffic(f"{prefix}{number}", orders=ORDERS_AT_ONCE)

    def _noted(self, record: Record) -> Record:
        self.sent += 1
        if record.kind == "event" and record.key is not None:
            self.recent.append(record.key.decode())
        return record

    def _steadily(self) -> None:
        records = self._endless("steady")
        for turn in count():
            if self._threads.stopping.wait(TURN_S):
                return
            burst = turn % BURST_EVERY < BURST_TURNS
            rate = self._per_s * (BURST_FACTOR if burst else 1)
            for record in islice(records, max(1, int(rate * TURN_S))):
                offer(self._client, self._noted(record), self._told(record))

    def _told(self, record: Record) -> Callable[[KafkaError | None, Message], None]:
        def told(error: KafkaError | None, _message: Message) -> None:
            self._ground.ledger.told(record, error)

        return told

    # Transactions.

    def _in_transactions(self) -> None:
        """One transaction after the other; one in ten is aborted after its records landed."""
        chance = random.Random(self._seed)
        kept = self._endless("transacted")
        thrown = self._endless(f"{ABORTED}soak")
        client: Producer | None = None
        while not self._threads.stopping.wait(TRANSACTION_PAUSE_S):
            if client is None:
                client = self._transactional()
            elif not self._transact(client, kept, thrown, aborts=chance.random() < ABORTS):
                client = None
        self._transactional()  # ends what is open: another of the same name, that nobody goes on

    def _transactional(self) -> Producer | None:
        client = producer(
            self._ground.place.bootstrap,
            **{"transactional.id": f"soak-{self._ground.place.group}"},
        )
        try:
            client.init_transactions(_STEP_S)
        except KafkaException:
            return None
        return client

    def _transact(
        self, client: Producer, kept: Iterator[Record], thrown: Iterator[Record], *, aborts: bool
    ) -> bool:
        """One transaction. False: its producer is of no more use."""
        source = thrown if aborts else kept
        records = [self._noted(record) for record in islice(source, TRANSACTION_SIZE)]
        try:
            client.begin_transaction()
            for record in records:
                offer(client, record)
            if client.flush(_STEP_S) > 0:
                self._unknown(records)
                return False
            (client.abort_transaction if aborts else client.commit_transaction)(_STEP_S)
        except KafkaException:
            self._unknown(records)
            return False
        if aborts:
            self.aborted += 1
            self._ground.ledger.aborted += 1
        else:
            self.committed += 1
            for record in records:
                self._ground.ledger.told(record, None)
        return True

    def _unknown(self, records: list[Record]) -> None:
        """Nobody knows whether it was committed; aborted orders stay aborted in any case."""
        self.unknown_transactions += 1
        lost = KafkaError(KafkaError._TIMED_OUT)
        for record in records:
            if not (record.key or b"").startswith(ABORTED.encode()):
                self._ground.ledger.told(record, lost)
