"""`viewkeeper demo`: the whole product and a shop's traffic in one command, nothing left after it.

The order of the page: what is being set up, where everything is, a query with its real answer,
what to try next, and then one line of figures that lives until the end.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Final

import httpx
import typer
from rich.live import Live
from rich.text import Text

from cli.misuse import CommandError
from cli.produce import make_encoders, read_generation
from cli.status import connect
from cli.stopping import StoppedError, raised_stop
from cli.terminal import ERR, PLAIN_EVERY_S, answer, say
from dev.cache import PartUnavailableError
from dev.feed import Feed, NotDeliveredError
from dev.process import ServerFailedError
from dev.shop import Shop
from dev.system import System
from ingest import operate
from schemas.registry import Registry
from views.positions import PositionVector, parse_position

FIRST_ORDERS: Final = 400
RATE_PER_S: Final = 150.0
SEED: Final = 20
ANSWER_TIMEOUT_S: Final = 90.0
ASK_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.1
LIVE_EVERY_S: Final = 1.0

QUERY: Final = """\
{
  dailySales(first: 2, orderBy: [{field: DAY, direction: DESC}]) {
    nodes { day currency orderCount ordered paid refunded outstanding }
  }
  orders(
    first: 1
    where: {status: {eq: DELIVERED}}
    orderBy: [{field: PLACED_AT, direction: DESC}]
  ) {
    nodes {
      orderId customerId status amount discount currency paid outstanding
      items { sku quantity unitPrice }
      payments(first: 2) { nodes { status amount method } }
    }
  }
}"""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer of the API and how long it took."""

    body: dict[str, Any]
    took_ms: float

    @property
    def position(self) -> PositionVector:
        """What the answer contains, by its own words."""
        token = self.body.get("extensions", {}).get("consistency", {}).get("position") or ""
        return parse_position(token)


@dataclass(slots=True)
class Traffic:
    """The traffic that is running, and what broke it off."""

    feed: Feed
    failure: NotDeliveredError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One look at the running system."""

    applied: int
    lag_events: int
    dead_letters: int
    answer_ms: float | None


def demo(
    seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Stop by itself so long after the first answer."),
    ] = None,
) -> None:
    """Set everything up, produce a shop's traffic, answer a query, and show live figures."""
    began_at = time.monotonic()
    try:
        with raised_stop(), _running() as system:
            _run(system, began_at, seconds)
    except StoppedError:
        pass
    except (ServerFailedError, PartUnavailableError) as error:
        raise CommandError(str(error)) from error
    say("stopped; nothing is left running")


@contextmanager
def _running() -> Iterator[System]:
    """The system, ended whatever happens."""
    say("setting up (the first time downloads 206 MB) ...")
    system = System(say=lambda line: say(f"  {line}"))
    try:
        system.start()
        yield system
    finally:
        say("stopping ...")
        system.close()


def _run(system: System, began_at: float, seconds: float | None) -> None:
    feed, shop = _open_shop(system)
    feed.run(shop.orders(FIRST_ORDERS), threading.Event())
    say(f"  {feed.reached.records:,} events of {FIRST_ORDERS} orders are produced")
    reached = feed.reached.position(read_generation(_client_options(system), feed.reached))
    with httpx.Client(timeout=ASK_TIMEOUT_S) as http:
        found = _first_answer(system, http, reached)
        _tell_everything(system, found, began_at)
        with _traffic(system) as traffic:
            _watch(system, http, traffic, seconds)


def _open_shop(system: System) -> tuple[Feed, Shop]:
    return Feed(_client_options(system)), Shop(_encoders(system), seed=SEED)


def _encoders(system: System) -> dict[str, Callable[[Any], bytes]]:
    with Registry(system.stack.registry.url) as registry:
        return {topic: made.encode for topic, made in make_encoders(registry).items()}


def _client_options(system: System) -> dict[str, str]:
    return {"bootstrap.servers": system.stack.kafka.bootstrap_servers}


def _first_answer(system: System, http: httpx.Client, reached: PositionVector) -> Answered:
    """The first answer that contains everything produced so far.

    ServerFailedError: the worker or the API has ended. CommandError: no such answer in time.
    """
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    pause = threading.Event()
    last = "no answer at all"
    while time.monotonic() < deadline:
        system.raise_if_ended()
        try:
            found = _ask(http, system.address.graphql)
            if found.position.includes(reached):
                return found
            last = f"an answer at position {found.position}"
        except httpx.HTTPError as error:
            last = str(error)
        pause.wait(POLL_S)
    raise CommandError(
        f"no answer with every event after {ANSWER_TIMEOUT_S:g} s ({last}); logs: {system.logs}"
    )


def _ask(http: httpx.Client, url: str) -> Answered:
    """CommandError: the API answers with errors."""
    began_at = time.monotonic()
    response = http.post(url, json={"query": QUERY})
    took_ms = (time.monotonic() - began_at) * 1000
    if response.status_code >= 500:
        response.raise_for_status()
    body = response.json()
    if body.get("errors"):
        raise CommandError(f"the API answers: {body['errors'][0].get('message')}")
    return Answered(body, took_ms)


def _tell_everything(system: System, found: Answered, began_at: float) -> None:
    address = system.address
    answer(f"\nready after {time.monotonic() - began_at:.0f} s\n")
    answer(f"  GraphQL, with an IDE   {address.graphql}")
    answer(f"  API health, metrics    {address.graphql.removesuffix('/graphql')}/readyz, /metrics")
    answer(f"  worker                 {address.ops}/readyz, /metrics")
    answer(f"  PostgreSQL             {system.stack.database_url}")
    answer(f"  Kafka                  {system.stack.kafka.bootstrap_servers}")
    answer(f"  schema registry        {system.stack.registry.url}")
    answer(f"  logs                   {system.logs}")
    answer(f"\na query\n\n{QUERY}\n\nand its answer, {found.took_ms:.0f} ms\n")
    answer(json.dumps(found.body, indent=2, ensure_ascii=False))
    answer(_TRY_NEXT.format(graphql=address.graphql, dsn=system.stack.database_url))
    environment = system.logs / "env"
    environment.touch(mode=0o600)  # it holds passwords
    lines = (f"export {name}='{value}'\n" for name, value in system.environment().items())
    environment.write_text("".join(lines))
    answer(f"  . {environment}   then: viewkeeper status, viewkeeper dead-letters list\n")


_TRY_NEXT: Final = """
to try next
  open {graphql} in a browser
  psql '{dsn}' -c 'SELECT * FROM views.daily_sales'"""


@contextmanager
def _traffic(system: System) -> Iterator[Traffic]:
    """Traffic at a steady rate, in a thread, until the block ends."""
    feed = Feed(_client_options(system), rate_per_s=RATE_PER_S)
    shop = Shop(_encoders(system), seed=SEED + 1, prefix="live-")
    stop = threading.Event()
    traffic = Traffic(feed)

    def run() -> None:
        try:
            feed.run(shop, stop)
        except NotDeliveredError as error:
            traffic.failure = error

    thread = threading.Thread(target=run, name="traffic", daemon=True)
    thread.start()
    try:
        yield traffic
    finally:
        stop.set()
        thread.join(ASK_TIMEOUT_S)


def _watch(system: System, http: httpx.Client, traffic: Traffic, seconds: float | None) -> None:
    """Figures until the time is up: in one line on a terminal, else every few seconds."""
    end = None if seconds is None else time.monotonic() + seconds
    every_s = LIVE_EVERY_S if ERR.is_terminal else PLAIN_EVERY_S
    pause = threading.Event()
    say("live figures; Ctrl-C ends the demo" if end is None else f"live figures for {seconds:g} s")
    before, before_at = _look(system, http, traffic), time.monotonic()
    with _line() as show:
        while end is None or time.monotonic() < end:
            left_s = every_s if end is None else min(every_s, end - time.monotonic())
            pause.wait(max(left_s, 0.0))
            system.raise_if_ended()
            if traffic.failure is not None:
                raise traffic.failure
            now, now_at = _look(system, http, traffic), time.monotonic()
            rate = (now.applied - before.applied) / max(now_at - before_at, 0.001)
            show(_figures(now, rate))
            before, before_at = now, now_at


def _look(system: System, http: httpx.Client, traffic: Traffic) -> Figures:
    """The lag is counted against what the broker acknowledged to us, not what somebody observed."""
    acknowledged = dict(traffic.feed.reached.next_offsets)
    answer_ms: float | None = None
    with suppress(httpx.HTTPError):
        answer_ms = _ask(http, system.address.graphql).took_ms
    with connect(system.stack.database_url) as connection:
        states = operate.partitions(connection, operate.live_build(connection))
        counts = operate.count_dead_letters(connection, operate.DeadLetterFilter(state="open"))
    return Figures(
        applied=sum(state.next_offset for state in states),
        lag_events=sum(max(acknowledged.get(s.place, 0) - s.next_offset, 0) for s in states),
        dead_letters=sum(counts.values()),
        answer_ms=answer_ms,
    )


def _figures(now: Figures, rate: float) -> str:
    """Short enough for a terminal of 80 columns."""
    took = "no answer" if now.answer_ms is None else f"answer in {now.answer_ms:.0f} ms"
    return (
        f"{rate:5,.0f} events/s  {now.applied:9,} applied  lag {now.lag_events:,}  "
        f"{now.dead_letters:,} dead letters  {took}"
    )


@contextmanager
def _line() -> Iterator[Callable[[str], None]]:
    """One line that is written over on a terminal, and one line after the other elsewhere."""
    if not ERR.is_terminal:
        yield say
        return
    with Live(console=ERR, auto_refresh=False) as live:
        yield lambda line: live.update(Text(line, no_wrap=True), refresh=True)
