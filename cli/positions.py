"""`viewkeeper positions`: accept what is gone from a log, so that its partition goes on.

A worker refuses to read on where events would be skipped in silence. These commands say it aloud:
each moves one position of the live build, fences whoever owns the partition, and is kept on record
with who, when and which offsets. The worker goes on by itself within seconds.
"""

from typing import Annotated

import typer
from confluent_kafka.admin import AdminClient

from cli.decide import As, AsJson, who_decides
from cli.misuse import UsageError
from cli.settings import StatusSettings
from cli.status import BROKER_TIMEOUT_S, connect
from cli.terminal import answer, answer_json, answer_table, table
from cli.topics import known_topic
from ingest import accept, operate, watermarks
from ingest.accept import Decision
from ingest.claim import BrokerView
from views.positions import Partition

app = typer.Typer(
    no_args_is_help=True, help="Accept what is gone from a log, so that its partition goes on."
)

Topic = Annotated[str, typer.Argument(help="A topic of the catalogue.")]
PartitionNumber = Annotated[int, typer.Argument(min=0)]


def resume(
    topic: Topic,
    partition: Annotated[int | None, typer.Argument(min=0, help="All if not given.")] = None,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Where a partition was stopped because too much would be dead letters: let them"
            " be dead letters, up to the present end of the partition.",
        ),
    ] = False,
    until: Annotated[
        int | None,
        typer.Option(min=1, help="With --accept-loss: up to this offset, it not included."),
    ] = None,
    who: As = None,
) -> None:
    """Let the workers go on, also where a partition was stopped.

    A stopped partition names its reason in `viewkeeper status`. Mend the deploy (a schema, a
    contract, a version of the code) and resume: nothing is lost. Or accept the loss: one resume is
    enough then, however many records become dead letters on the way; they can be redriven later.
    """
    known_topic(topic)
    if until is not None and not accept_loss:
        raise UsageError("--until goes with --accept-loss")
    if not accept_loss:
        with connect() as connection:
            places = operate.resume(connection, topic, partition)
        answer(f"resumed: {', '.join(f'{t}:{p}' for t, p in places)}")
        return
    settings = StatusSettings.model_validate({})
    with connect(settings.dsn) as connection:
        places = operate.stopped(connection, topic, partition)
        connection.rollback()
        ends = high_watermarks(settings, places)
        for place in places:
            end = ends[place] if until is None else until
            _answer(accept.accept_loss(connection, place, until=end, who=who_decides(who)))


@app.command("accept-gap")
def accept_gap(
    topic: Topic, partition: PartitionNumber, who: As = None, as_json: AsJson = False
) -> None:
    """Events before the log's start are gone (retention): go on at the start, without them."""
    settings = StatusSettings.model_validate({})
    place = (known_topic(topic), partition)
    broker = _broker(settings, place)
    with connect(settings.dsn) as connection:
        decision = accept.accept_gap(connection, place, broker=broker, who=who_decides(who))
    _answer(decision, as_json=as_json)


@app.command("accept-log")
def accept_log(
    topic: Topic, partition: PartitionNumber, who: As = None, as_json: AsJson = False
) -> None:
    """The log was cut, or replaced by an older copy: go on with it, from its end at most.

    Rows that the lost events made stay. A rebuild makes the views what the log says.
    """
    settings = StatusSettings.model_validate({})
    place = (known_topic(topic), partition)
    broker = _broker(settings, place)
    with connect(settings.dsn) as connection:
        decision = accept.accept_log(connection, place, broker=broker, who=who_decides(who))
    _answer(decision, as_json=as_json)


@app.command()
def decisions(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most to list.")] = 50,
    as_json: AsJson = False,
) -> None:
    """What was accepted, newest first: gaps, logs, and losses (`resume --accept-loss`)."""
    with connect() as connection:
        found = accept.decisions(connection, limit=limit)
    if as_json:
        answer_json({"decisions": found})
        return
    shown = table("when", "who", "decision", "where", "from", "to", "offsets", right=("offsets",))
    for one in found:
        shown.add_row(
            f"{one.decided_at:%Y-%m-%d %H:%M:%S}",
            one.decided_by,
            one.decision,
            f"{one.topic}:{one.partition}",
            f"{one.from_offset:,}",
            f"{one.to_offset:,}",
            f"{one.offsets:,}",
        )
    if found:
        answer_table(shown)
    answer(f"{len(found):,} decisions")


def high_watermarks(settings: StatusSettings, places: list[Partition]) -> dict[Partition, int]:
    """The ends of partitions now. TransientError: the broker does not answer."""
    return watermarks.high_watermarks(_admin(settings), places, BROKER_TIMEOUT_S)


def _broker(settings: StatusSettings, place: Partition) -> BrokerView:
    admin = _admin(settings)
    info = watermarks.topic_ids(admin, [place[0]], BROKER_TIMEOUT_S).get(place[0])
    if info is None or place[1] >= info.partitions:
        raise UsageError(f"the broker has no partition {place[0]}:{place[1]}")
    return BrokerView(
        cluster_id=watermarks.cluster_id(admin, place[0], BROKER_TIMEOUT_S),
        topic_id=info.id,
        low=watermarks.low_watermarks(admin, [place], BROKER_TIMEOUT_S)[place],
        high=watermarks.high_watermarks(admin, [place], BROKER_TIMEOUT_S)[place],
    )


def _admin(settings: StatusSettings) -> AdminClient:
    return AdminClient({"log_level": "0", **settings.client_options()})


def _answer(decision: Decision, *, as_json: bool = False) -> None:
    if as_json:
        answer_json(decision)
        return
    answer(
        f"{decision.topic}:{decision.partition}: {decision.decision}, offsets"
        f" {decision.from_offset:,} to {decision.to_offset:,} ({decision.offsets:,}), by"
        f" {decision.decided_by}"
    )
