"""Sessions that ask while everything breaks, each of which must never go back.

Checked at once: the status and the code of every error, that nothing of the inside leaks (I11), and
that an answer contains what its session saw before, whichever process gave it (I5). Every answer is
kept for `judge`.
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
from typing import Any, Final, Self

import httpx

from tests.faults.answers.questions import QUERIES, Browser, Question
from tests.faults.harness.threads import Threads
from tests.faults.oracle.following import Position

CODES: Final = frozenset({"STALE", "UNAVAILABLE", "TIMEOUT"})
"""What a well-formed question may be refused with while servers come and go."""
STATUSES: Final = frozenset({200, 503, 504})
LEAKS: Final = ("Traceback", "postgresql://", "psycopg", "SELECT ", "127.0.0.1", 'File "')
_TIMEOUT_S: Final = 20.0
_WAIT_MS: Final = 2_000
_REFUSED_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer with data: what was asked, the body as it came, and where it says it stands."""

    question: Question
    body: bytes
    position: Position


@dataclass(slots=True)
class Seen:
    """What the sessions saw, shared by all of them."""

    answers: list[Answer] = field(default_factory=list)
    by_process: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    anomalies: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wrong(self, invariant: str, said: str) -> None:
        """Something that must not happen."""
        with self.lock:
            self.anomalies[invariant].append(said)


class Sessions:
    """So many sessions, each on a thread of its own, from `start` to `stop`.

    Each question goes to any of the processes at `urls`, and names the position seen last.
    """

    def __init__(
        self,
        urls: Sequence[str],
        recent: Sequence[str],
        *,
        sessions: int,
        seed: int,
        pause_s: float,
    ) -> None:
        self.seen = Seen()
        self._urls = urls
        self._pause_s = pause_s
        chances = [random.Random(seed * 100 + number) for number in range(sessions)]
        self._threads = Threads(
            [partial(self._browse, Browser(recent, chance)) for chance in chances]
        )

    @property
    def count(self) -> int:
        """How many answers with data there are."""
        return len(self.seen.answers)

    def start(self) -> Self:
        """Ask from now on."""
        self._threads.start()
        return self

    def stop(self) -> None:
        """Ask no more."""
        self._threads.stop(2 * _TIMEOUT_S)

    def _browse(self, browser: Browser) -> None:
        token = ""
        with httpx.Client(timeout=_TIMEOUT_S) as client:
            while not self._threads.stopping.wait(self._pause_s):
                question = browser.next()
                if question is None:
                    continue
                data = self._ask(client, browser.chance.choice(self._urls), question, token)
                if data is None:
                    self._threads.stopping.wait(_REFUSED_PAUSE_S)
                else:
                    token = data["position"]["token"]
                    browser.learn(question, data)

    def _ask(
        self, client: httpx.Client, url: str, question: Question, token: str
    ) -> Mapping[str, Any] | None:
        """One question that must contain what the session saw; its data, unless it was refused."""
        demand = {"atLeast": token, "timeoutMs": _WAIT_MS}
        body = {
            "query": QUERIES[question.kind],
            "variables": question.variables,
            "extensions": {"consistency": demand if token else {}},
        }
        began_at = time.monotonic()
        try:
            response = client.post(url, json=body)
        except httpx.HTTPError as error:
            self.seen.wrong("I11 honesty", f"no answer: {error!r}")
            return None
        took_s = time.monotonic() - began_at
        answer = self._told(response)
        if answer is None or "errors" in answer:
            self.seen.refused_s.append(took_s)
            return None
        self._keep(question, response.content, answer, token)
        self.seen.took_s.append(took_s)
        with self.seen.lock:
            self.seen.by_process[url] += 1
        data: Mapping[str, Any] = answer["data"]
        return data

    def _told(self, response: httpx.Response) -> dict[str, Any] | None:
        for leak in LEAKS:
            if leak in response.text:
                self.seen.wrong("I11 honesty", f"{leak!r} in {response.text[:300]}")
        try:
            answer: dict[str, Any] = response.json()
        except json.JSONDecodeError:
            self.seen.wrong("I11 honesty", f"{response.status_code}: {response.text[:300]}")
            return None
        for error in answer.get("errors", ()):
            code = str(error.get("extensions", {}).get("code"))
            with self.seen.lock:
                self.seen.codes[code] += 1
            if code not in CODES or response.status_code not in STATUSES:
                self.seen.wrong("I11 honesty", f"{response.status_code}: {error}"[:300])
        return answer

    def _keep(
        self, question: Question, body: bytes, answer: Mapping[str, Any], before: str
    ) -> None:
        token = answer["data"]["position"]["token"]
        position = position_of(token)
        if answer["extensions"]["consistency"]["position"] != token:
            self.seen.wrong("I4 snapshots", f"data at {token}, told {answer['extensions']}")
        if missing := behind(position, position_of(before)):
            self.seen.wrong("I5 sessions", f"went back: {missing} in {token} after {before}")
        self.seen.answers.append(Answer(question, body, position))


def position_of(token: str) -> dict[tuple[str, int], int]:
    """The next offset of each partition that a position names."""
    body = token.partition("@")[0]
    parts = (part.rsplit(":", 2) for part in body.split(",") if part)
    return {(topic, int(partition)): int(offset) + 1 for topic, partition, offset in parts}


def behind(position: Position, wanted: Position) -> dict[tuple[str, int], int]:
    """What a position lacks of another."""
    return {place: end for place, end in wanted.items() if position.get(place, 0) < end}
