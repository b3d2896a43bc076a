"""`viewkeeper produce`: sample traffic or events from a file, and the position that they reach."""

import json
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from confluent_kafka.admin import AdminClient

from cli.misuse import CommandError, UsageError
from cli.settings import ProduceSettings
from cli.stopping import stop_signal
from cli.terminal import answer, answer_json, progress
from dev.feed import Feed, Produced, Reached
from dev.shop import Shop
from ingest import watermarks
from schemas import contracts
from schemas.encode import EncodeError, Encoder
from schemas.registry import Registry
from views import CATALOGUE
from views.positions import PositionVector, generation_of

WATCH_S = 0.2
BROKER_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Line:
    """A record from a file."""

    topic: str
    key: bytes | None
    value: bytes | None


def produce(
    file: Annotated[
        str | None,
        typer.Argument(
            help='JSON lines {"topic", "key", "value"}; - reads standard input. '
            "Sample traffic if not given."
        ),
    ] = None,
    orders: Annotated[int, typer.Option(min=1, help="Orders of sample traffic.")] = 100,
    seed: Annotated[int, typer.Option(help="The same seed tells the same stories.")] = 0,
    rate: Annotated[float | None, typer.Option(min=0.01, help="Records a second.")] = None,
    prefix: Annotated[
        str | None, typer.Option(help="What order ids begin with; drawn if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Produce sample traffic, or events from a file, and print the position reached."""
    settings = ProduceSettings.model_validate({})
    with settings.registry() as registry:
        encoders = make_encoders(registry)
    feed = Feed(settings.client_options(), rate_per_s=rate)
    if file is not None:
        with _opened(file) as lines:
            reached = _watched(feed, read_lines(lines, encoders), None)
    else:
        chosen = secrets.token_hex(2) + "-" if prefix is None else prefix
        encode = {topic: encoder.encode for topic, encoder in encoders.items()}
        shop = Shop(encode, seed=seed, prefix=chosen)
        reached = _watched(feed, shop.orders(orders), (shop, orders))
    position = reached.position(read_generation(settings.client_options(), reached))
    _tell(reached, position, as_json=as_json)


def make_encoders(registry: Registry) -> dict[str, Encoder]:
    """An encoder per topic, for our contracts as they are registered.

    CommandError: a contract is not registered.
    """
    encoders: dict[str, Encoder] = {}
    for stream in CATALOGUE.streams:
        contract = contracts.load(stream.contract)
        found = registry.find(contracts.subject_of(stream.topic), contract.text)
        if found is None:
            raise CommandError(
                f"{contract.name} is not registered: run `viewkeeper schemas register`"
            )
        encoders[stream.topic] = Encoder(contract, found.schema_id)
    return encoders


def read_lines(lines: IO[str], encoders: Mapping[str, Encoder]) -> Iterator[Line]:
    """The records of a file of JSON lines. UsageError: a line is not one; it says which."""
    for number, text in enumerate(lines, start=1):
        if text.strip():
            try:
                yield _line(json.loads(text), encoders)
            except (ValueError, EncodeError, KeyError, TypeError) as error:
                raise UsageError(f"line {number}: {_words(error)}") from error


def read_generation(client_options: Mapping[str, str], reached: Reached) -> str | None:
    """What ties a position to this life of the topics that it names; None where it names none."""
    named = {topic for topic, _ in reached.next_offsets}
    if not named:
        return None
    admin = AdminClient({"log_level": "0", **client_options})
    topics = watermarks.topic_ids(admin, named, BROKER_TIMEOUT_S)
    cluster = watermarks.cluster_id(admin, min(named), BROKER_TIMEOUT_S)
    return generation_of(cluster, [(name, info.id) for name, info in topics.items()])


def _line(record: Any, encoders: Mapping[str, Encoder]) -> Line:
    if not isinstance(record, dict) or not {"topic", "key", "value"} <= set(record):
        raise ValueError('a record is {"topic": ..., "key": ..., "value": {...} or null}')
    topic, key, value = record["topic"], record["key"], record["value"]
    if topic not in encoders:
        raise ValueError(f"no stream has the topic {topic!r}")
    if key is not None and not isinstance(key, str):
        raise ValueError("the key must be text or null")
    encoded_key = None if key is None else key.encode()
    if value is None:
        return Line(topic, encoded_key, None)
    encoder = encoders[topic]
    return Line(topic, encoded_key, encoder.encode(encoder.from_json(value)))


def _words(error: Exception) -> str:
    return f"is not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)


def _opened(file: str) -> Any:
    if file == "-":
        return nullcontext(sys.stdin)
    try:
        return Path(file).open(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error


def _watched(feed: Feed, records: Iterator[Produced], shop: tuple[Shop, int] | None) -> Reached:
    """Produce in a thread of its own, and show from here how far it is."""
    failures: list[Exception] = []
    with stop_signal() as stop, progress("producing", "records") as tell:

        def work() -> None:
            try:
                feed.run(records, stop)
            except Exception as error:  # noqa: BLE001 - raised below, in the command's own thread
                failures.append(error)

        worker = threading.Thread(target=work, name="producing")
        worker.start()
        while worker.is_alive():
            worker.join(WATCH_S)
            tell(feed.reached.records, _expected(feed.reached.records, shop))
    if failures:
        raise failures[0]
    return feed.reached


def _expected(records: int, shop: tuple[Shop, int] | None) -> int | None:
    """How many records it will be, by how many came of each order so far."""
    if shop is None or not shop[0].begun:
        return None
    told, asked = shop
    return max(records, round(records * asked / told.begun))


def _tell(reached: Reached, position: PositionVector, *, as_json: bool) -> None:
    if as_json:
        answer_json({"records": reached.records, "position": str(position)})
        return
    answer(str(position))
