"""Sessions that read while a build changes: so many questions a second, each answer looked through.

A program of its own (`python -m bench.sessions JOB`, a file of JSON; a line of JSON for each answer
on stdout) that ends when it is asked to. Every session sends back the position it saw last.
A question is timed from when it was due, so that a server that stands still is not asked less.
"""

import http.client
import json
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import orjson

from views.positions import parse_position

QUERY: Final = """query Seen($order: String!, $customer: String!, $currency: CurrencyCode!) {
  order(orderId: $order) { version paid source { topic partition offset }
    payments(first: 20) { nodes { status amount source { topic partition offset } } } }
  customerTotal(customerId: $customer, currency: $currency) { orderCount ordered paid
    orders(first: 100) { totalCount nodes { status amount discount paid
      source { topic partition offset } } } }
  position { token build } }"""
TIMEOUT_S: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Whom to ask, how often in all, and what about: (order, customer, currency)."""

    host: str
    port: int
    rate: float
    sessions: int
    things: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One answer: when it came, how long it took, and what was wrong with it, if anything."""

    at: float
    ms: float
    build: str
    lag_ms: int | None
    problem: str | None


class Session:
    """One connection that asks when it is due and never accepts to go back."""

    def __init__(self, job: Job, number: int, stop: threading.Event) -> None:
        self._job = job
        self._number = number
        self._stop = stop
        self._seen = ""
        self._connection = http.client.HTTPConnection(job.host, job.port, timeout=TIMEOUT_S)

    def run(self) -> None:
        """Until `stop`, a line for each answer."""
        every_s = self._job.sessions / self._job.rate
        due_at = time.monotonic() + every_s * self._number / self._job.sessions
        turn = self._number
        while not self._stop.wait(max(0.0, due_at - time.monotonic())):
            thing = self._job.things[turn % len(self._job.things)]
            print(json.dumps(_fields(self._ask(thing, due_at))), flush=True)
            turn += self._job.sessions
            due_at += every_s
        self._connection.close()

    def _ask(self, thing: tuple[str, str, str], due_at: float) -> Seen:
        try:
            answer = self._answer(thing)
            problem = self._problem(answer)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            answer, problem = {}, f"failed: {error!r}"
        said = answer.get("extensions", {}).get("consistency", {})
        return Seen(
            at=time.time(),
            ms=(time.monotonic() - due_at) * 1000,
            build=said.get("build", ""),
            lag_ms=said.get("lagMs"),
            problem=problem,
        )

    def _answer(self, thing: tuple[str, str, str]) -> Mapping[str, Any]:
        order, customer, currency = thing
        body = {
            "query": QUERY,
            "variables": {"order": order, "customer": customer, "currency": currency},
            "extensions": {"consistency": {"atLeast": self._seen, "timeoutMs": 5_000}},
        }
        self._connection.request(
            "POST", "/graphql", orjson.dumps(body), {"Content-Type": "application/json"}
        )
        response = self._connection.getresponse()
        found: Mapping[str, Any] = orjson.loads(response.read())
        if response.status != 200:
            raise ValueError(f"status {response.status}: {found}")
        return found

    def _problem(self, answer: Mapping[str, Any]) -> str | None:
        if "errors" in answer:
            return f"failed: {answer['errors']}"
        data = answer["data"]
        position = parse_position(data["position"]["token"])
        if not position.includes(parse_position(self._seen)):
            return f"went back: from {self._seen} to {position}"
        self._seen = data["position"]["token"]
        if data["position"]["build"] != answer["extensions"]["consistency"]["build"]:
            return "mixed: two builds are named"
        return _mixed(data, position.next_offsets)


def _mixed(data: Mapping[str, Any], ends: Mapping[tuple[str, int], int]) -> str | None:
    """Why rows, sums and position of an answer can't be of one build at one moment."""
    total, order = data["customerTotal"], data["order"]
    rows = [*total["orders"]["nodes"]] if total else []
    for row in [*rows, *([order, *order["payments"]["nodes"]] if order else [])]:
        source = row["source"]
        place = (source["topic"], source["partition"])
        if int(source["offset"]) >= ends.get(place, 0):
            return f"mixed: a row of {place} at {source['offset']} and a position before it"
    if total and total["orders"]["totalCount"] == len(rows):
        net = sum(
            (
                Decimal(row["amount"]) - Decimal(row["discount"] or 0)
                for row in rows
                if row["status"] != "CANCELLED"
            ),
            Decimal(0),
        )
        paid = sum((Decimal(row["paid"]) for row in rows), Decimal(0))
        if (total["orderCount"], Decimal(total["ordered"]), Decimal(total["paid"])) != (
            len(rows),
            net,
            paid,
        ):
            return "mixed: the total of a customer is not the sum of the orders beside it"
    return None


def _fields(seen: Seen) -> dict[str, object]:
    return {name: getattr(seen, name) for name in Seen.__slots__}


def main() -> None:
    """One job, until SIGTERM."""
    fields = json.loads(Path(sys.argv[1]).read_text())
    job = Job(**{**fields, "things": tuple(tuple(thing) for thing in fields["things"])})
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threads = [
        threading.Thread(target=Session(job, number, stop).run, daemon=True)
        for number in range(job.sessions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
