"""`viewkeeper dead-letters redrive`, `discard` and `purge`: what becomes of dead letters.

Stands apart from `dead_letters.py`, which only looks. Each takes the same filters, can be rehearsed
with `--dry-run`, and notes who decided and when.
"""

import getpass
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from cli.misuse import CommandError, UsageError
from cli.settings import DeadLetterSettings
from cli.status import connect
from cli.stopping import stop_signal
from cli.terminal import answer, answer_json, progress, say
from ingest import operate
from ingest.errors import Reason
from ingest.operate import DeadLetterFilter
from ingest.redrive import Outcome, redriving

SHOWN = 20
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN = re.compile(r"(\d{1,6})([smhdw])")

Ids = Annotated[
    list[int] | None, typer.Argument(metavar="ID...", help="As `list` names them.", min=1)
]
Topic = Annotated[str | None, typer.Option(help="Only of this topic.")]
PartitionNumber = Annotated[int | None, typer.Option(min=0, help="Only of this partition.")]
ReasonCode = Annotated[Reason | None, typer.Option(help="Only with this reason.")]
FromOffset = Annotated[int | None, typer.Option(min=0, help="Only from this offset on.")]
ToOffset = Annotated[int | None, typer.Option(min=0, help="Only up to this offset, it included.")]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only those first seen since: 2026-01-31T12:00.")
]
Every = Annotated[bool, typer.Option("--all", help="All of them: needed where nothing filters.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Do it, say what came of it, undo it.")]
As = Annotated[str | None, typer.Option("--as", metavar="WHO", help="Who decides: you.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def redrive(
    ids: Ids = None,
    topic: Topic = None,
    partition: PartitionNumber = None,
    reason: ReasonCode = None,
    from_offset: FromOffset = None,
    to_offset: ToOffset = None,
    since: Since = None,
    every: Every = False,
    dry_run: DryRun = False,
    who: As = None,
    as_json: AsJson = False,
) -> None:
    """Try open dead letters again, with today's code and schemas.

    Those that can be applied now are applied and closed, in one transaction per batch: it may be
    interrupted and given again. Those that can't stay open. Exit code 1 where some stay open.
    """
    which = _filter(ids, topic, partition, reason, from_offset, to_offset, since, every=every)
    settings = DeadLetterSettings.model_validate({})
    registry = settings.registry()
    if registry is None:
        raise UsageError("VIEWKEEPER_SCHEMA_REGISTRY_URL is not set: a redrive needs its schemas")
    with (
        stop_signal() as stop,
        registry,
        redriving(
            settings.dsn, registry, who=who_decides(who), dry_run=dry_run, stop=stop
        ) as redriver,
        connect(settings.dsn) as connection,
    ):
        total = sum(operate.count_dead_letters(connection, which).values())
        connection.rollback()
        outcomes = list(_told(redriver.run(which), total))
        stopped = stop.is_set()
    _report(outcomes, dry_run=dry_run, as_json=as_json)
    if stopped:
        raise CommandError("stopped: what is reported is done, the rest is open as before")
    if any(not outcome.redriven for outcome in outcomes):
        raise typer.Exit(1)


def discard(
    ids: Ids = None,
    topic: Topic = None,
    partition: PartitionNumber = None,
    reason: ReasonCode = None,
    from_offset: FromOffset = None,
    to_offset: ToOffset = None,
    since: Since = None,
    every: Every = False,
    dry_run: DryRun = False,
    who: As = None,
    as_json: AsJson = False,
) -> None:
    """Decide that open dead letters stay out of the views for good. They are kept on record."""
    which = _filter(ids, topic, partition, reason, from_offset, to_offset, since, every=every)
    with connect() as connection:
        count = operate.discard(connection, which, who=who_decides(who), dry_run=dry_run)
    _answer_count("discarded", count, dry_run=dry_run, as_json=as_json)


def purge(
    older_than: Annotated[
        str, typer.Option(metavar="SPAN", help="First seen longer ago: 90d, 12h, 30m.")
    ],
    topic: Topic = None,
    partition: PartitionNumber = None,
    reason: ReasonCode = None,
    still_open: Annotated[
        bool, typer.Option("--open", help="Open ones too: they can't be redriven any more.")
    ] = False,
    dry_run: DryRun = False,
    who: As = None,
    as_json: AsJson = False,
) -> None:
    """Remove the bytes of old dead letters: key, value, headers and the detail of the reason.

    Where they were, why, what was decided, and who purged them stays on record. Copies in the
    topics `<topic>.dlq` are Kafka's to remove.
    """
    span, purger = _span(older_than), who_decides(who)
    states = ["redriven", "discarded", *(["open"] if still_open else [])]
    which = _filter(None, topic, partition, reason, None, None, None, every=True)
    with connect() as connection:
        count = sum(
            operate.purge(
                connection,
                replace(which, state=state),
                older_than=span,
                who=purger,
                dry_run=dry_run,
            )
            for state in states
        )
    _answer_count("purged", count, dry_run=dry_run, as_json=as_json)


def _filter(
    ids: list[int] | None,
    topic: str | None,
    partition: int | None,
    reason: Reason | None,
    from_offset: int | None,
    to_offset: int | None,
    since: str | None,
    *,
    every: bool,
) -> DeadLetterFilter:
    which = DeadLetterFilter(
        ids=tuple(ids) if ids else None,
        topic=topic,
        partition=partition,
        reason=reason.value if reason else None,
        state="open",
        from_offset=from_offset,
        to_offset=to_offset,
        since=time_of(since),
    )
    if which == DeadLetterFilter(state="open") and not every:
        raise UsageError("name ids or filters, or give --all for every open dead letter")
    return which


def who_decides(given: str | None) -> str:
    """The name that is noted: the one given, or that of the operating system's user."""
    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        raise UsageError("your user has no name here: say who decides with --as") from None


def time_of(given: str | None) -> datetime | None:
    """A time as people write it, in UTC where they don't say."""
    if given is None:
        return None
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        raise UsageError(f"{given!r} is not a time: 2026-01-31 or 2026-01-31T12:00+00:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _span(given: str) -> timedelta:
    match = _SPAN.fullmatch(given)
    if match is None:
        raise UsageError(f"{given!r} is not a span: a number and s, m, h, d or w, as in 90d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _told(outcomes: Iterator[Outcome], total: int) -> Iterator[Outcome]:
    with progress("redriving", "dead letters") as tell:
        for done, outcome in enumerate(outcomes, start=1):
            tell(done, total)
            yield outcome


def _report(outcomes: list[Outcome], *, dry_run: bool, as_json: bool) -> None:
    open_still = [outcome for outcome in outcomes if not outcome.redriven]
    redriven = len(outcomes) - len(open_still)
    if as_json:
        answer_json(
            {
                "dry_run": dry_run,
                "redriven": redriven,
                "still_open": len(open_still),
                "dead_letters": [asdict(outcome) for outcome in outcomes],
            }
        )
        return
    for outcome in open_still[:SHOWN]:
        place = f"{outcome.topic}:{outcome.partition}:{outcome.offset}"
        say(f"{outcome.id} ({place}) stays open: {outcome.reason}, {outcome.detail}")
    if len(open_still) > SHOWN:
        reasons = Counter(outcome.reason for outcome in open_still)
        say(", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common()))
    words = "would be redriven" if dry_run else "redriven"
    answer(f"{redriven:,} {words}, {len(open_still):,} stay open")


def _answer_count(word: str, count: int, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        answer_json({"dry_run": dry_run, word: count})
    else:
        answer(f"{count:,} dead letters {'would be ' if dry_run else ''}{word}")
