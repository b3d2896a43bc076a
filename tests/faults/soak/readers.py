"""Readers of the API while everything breaks: each is a session that never may go back.

Checked at once: the status and the error codes (I11), that a session's answers contain what it saw
before (I5), that positions of one server are comparable (I6). Answers are sampled and held against
the log at the end (`answers`, I4).
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Final, Self

import httpx

from tests.faults.soak.threads import Threads

Position = Mapping[tuple[str, int], int]

ORDER: Final = """query($id: String!) {
  order(orderId: $id) {
    orderId version eventId status customerId currency amount discount paid refunded outstanding
    paymentCount mismatchedPaymentCount
    payments(first: 100) { nodes {
      paymentId version eventId status currency amount refundedAmount method } } }
  position { token } }"""
SALES: Final = """{
  dailySales(first: 100) {
    pageInfo { hasNextPage }
    nodes { day currency orderCount cancelledCount ordered paid refunded outstanding } }
  position { token } }"""
CODES: Final = frozenset({"STALE", "UNAVAILABLE", "TIMEOUT"})
"""What a well-formed question may be refused with while servers come and go."""
LEAKS: Final = ("Traceback", "postgresql://", "psycopg", "SELECT ", "127.0.0.1", 'File "')
_TIMEOUT_S: Final = 20.0
_PAUSE_S: Final = 0.15
_SALES_EVERY: Final = 40
_MOST_ORDERS: Final = 3_000
_MOST_SALES: Final = 16


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer: the order that was asked for, or None for the sales; its data and position."""

    order_id: str | None
    data: Mapping[str, Any]
    position: Position


@dataclass(slots=True)
class Seen:
    """What the readers saw, shared by all of them."""

    answers: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    anomalies: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    orders: list[Sample] = field(default_factory=list)
    sales: list[Sample] = field(default_factory=list)
    positions: set[tuple[tuple[str, int, int], ...]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Readers:
    """So many sessions, each on a thread of its own, from `start` to `stop`."""

    def __init__(self, url: str, recent: Sequence[str], *, sessions: int, seed: int) -> None:
        self.seen = Seen()
        chances = [random.Random(seed * 100 + number) for number in range(sessions)]
        self._threads = Threads([partial(self._read, url, recent, each) for each in chances])

    def start(self) -> Self:
        """Ask from now on."""
        self._threads.start()
        return self

    def stop(self) -> None:
        """Ask no more."""
        self._threads.stop(2 * _TIMEOUT_S)

    def _read(self, url: str, recent: Sequence[str], chance: random.Random) -> None:
        session = _Session(url, self.seen)
        with httpx.Client(timeout=_TIMEOUT_S) as client:
            turn = 0
            while not self._threads.stopping.wait(_PAUSE_S):
                turn += 1
                if turn % _SALES_EVERY == 0:
                    session.ask(client, None, chance)
                elif recent:
                    session.ask(client, recent[chance.randrange(len(recent))], chance)


class _Session:
    def __init__(self, url: str, seen: Seen) -> None:
        self._url = url
        self._seen = seen
        self._token: str | None = None

    def ask(self, client: httpx.Client, order_id: str | None, chance: random.Random) -> None:
        """One question that must contain what this session saw before."""
        body: dict[str, Any] = {
            "query": SALES if order_id is None else ORDER,
            "variables": {} if order_id is None else {"id": order_id},
        }
        if self._token is not None:
            body["extensions"] = {"consistency": {"atLeast": self._token, "timeoutMs": 2_000}}
        began_at = time.monotonic()
        try:
            response = client.post(self._url, json=body)
        except httpx.HTTPError as error:
            self._wrong("I11 honesty", f"no answer: {error!r}")
            return
        took_s = time.monotonic() - began_at
        with self._seen.lock:
            self._take(response, order_id, took_s, chance)

    def _take(
        self, response: httpx.Response, order_id: str | None, took_s: float, chance: random.Random
    ) -> None:
        seen = self._seen
        for leak in LEAKS:
            if leak in response.text:
                self._note("I11 honesty", f"{leak!r} in {response.text[:300]}")
        try:
            answer = response.json()
        except json.JSONDecodeError:
            self._note("I11 honesty", f"{response.status_code}: {response.text[:300]}")
            return
        errors = answer.get("errors") or []
        if errors:
            seen.refused_s.append(took_s)
            for error in errors:
                code = str(error.get("extensions", {}).get("code"))
                seen.codes[code] += 1
                if code not in CODES or response.status_code not in (200, 503, 504):
                    self._note("I11 honesty", f"{response.status_code}: {error}"[:300])
            return
        seen.answers += 1
        seen.took_s.append(took_s)
        self._judge(answer, order_id, chance)

    def _judge(self, answer: Any, order_id: str | None, chance: random.Random) -> None:
        data, token = answer["data"], answer["data"]["position"]["token"]
        position = position_of(token)
        if answer["extensions"]["consistency"]["position"] != token:
            self._note("I4 snapshots", f"data at {token}, told {answer['extensions']}")
        if self._token is not None:
            behind = _behind(position, position_of(self._token))
            if behind:
                self._note("I5 sessions", f"went back: {behind} in {token} after {self._token}")
        self._token = token
        self._seen.positions.add(tuple(sorted((t, p, n) for (t, p), n in position.items())))
        sample = Sample(order_id, data, position)
        if order_id is None:
            _keep(self._seen.sales, sample, _MOST_SALES, chance)
        else:
            _keep(self._seen.orders, sample, _MOST_ORDERS, chance)

    def _wrong(self, invariant: str, said: str) -> None:
        with self._seen.lock:
            self._note(invariant, said)

    def _note(self, invariant: str, said: str) -> None:
        self._seen.anomalies[invariant].append(said)


def _keep(samples: list[Sample], sample: Sample, most: int, chance: random.Random) -> None:
    """A fair choice of everything seen is not wanted: late answers tell as much as early ones."""
    if len(samples) < most:
        samples.append(sample)
    else:
        samples[chance.randrange(most)] = sample


def position_of(token: str) -> dict[tuple[str, int], int]:
    """The next offset of each partition that a position names."""
    body = token.partition("@")[0]
    parts = (part.rsplit(":", 2) for part in body.split(",") if part)
    return {(topic, int(partition)): int(offset) + 1 for topic, partition, offset in parts}


def _behind(position: Position, wanted: Position) -> dict[tuple[str, int], int]:
    return {p: n for p, n in wanted.items() if position.get(p, 0) < n}


def incomparable(positions: set[tuple[tuple[str, int, int], ...]]) -> list[str]:
    """I6: positions that one server gave, of which neither contains the other."""
    vectors = [{(t, p): n for t, p, n in position} for position in positions]
    vectors.sort(key=lambda vector: sum(vector.values()))
    return [f"{one} and {other}" for one, other in pairwise(vectors) if _behind(other, one)]
