"""`viewkeeper explain`: the events behind a row, what each changed, and the row they add up to."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from cli.rebuild import quiet_settings, stoppable
from cli.terminal import answer, answer_json, answer_table, progress, table
from rebuild.explain import Change, Compared, Explained, Step, explain_order

app = typer.Typer(
    help="Say where a row comes from: every event behind it, in order.", no_args_is_help=True
)

_LONG: Final = 48


@app.callback()
def _explain() -> None:
    """Say where a row comes from: every event behind it, in order."""


@app.command()
def order(
    order_id: Annotated[str, typer.Argument(metavar="ID", help="The order's id.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Every event of an order and of its payments, what each changed, and the rows they add up to.

    Reads the log from its start, all partitions; changes nothing. Exit code 1: the views hold
    something else, or there is no such order.
    """
    settings = quiet_settings()
    with stoppable("nothing was changed") as stop, progress("reading the log", "records") as tell:
        found = explain_order(settings, order_id, stop=stop, tell=tell)
    if as_json:
        answer_json(_for_programs(found))
    else:
        _show(found)
    if not found.equal:
        raise typer.Exit(1)


def _for_programs(found: Explained) -> dict[str, object]:
    return {**asdict(found), "equal": found.equal}


def _show(found: Explained) -> None:
    _show_events(found.events)
    for row in found.rows:
        _show_row(row)
    for note in found.notes:
        answer(f"note: {note}")
    read = sum(part.end - part.first for part in found.scanned)
    parts = ", ".join(f"{p.topic}:{p.partition} {p.first:,}-{p.end:,}" for p in found.scanned)
    answer(f"read: {read:,} offsets of {len(found.scanned)} partitions ({parts})")
    verdict = "hold what these events add up to" if found.equal else "DIFFER from these events"
    answer(f"order {found.order_id}: {found.build} at {found.position}: its rows {verdict}")
    if not found.equal:
        answer(f"`viewkeeper rebuild --order {found.order_id}` puts the rows from the log there")


def _show_events(events: list[Step]) -> None:
    figures = ("part", "offset", "schema", "version")
    shown = table(
        *("topic", "part", "offset", "recorded", "schema", "event", "version", "outcome"),
        "what it changed",
        right=figures,
    )
    for step in events:
        shown.add_row(
            step.topic,
            str(step.partition),
            f"{step.offset:,}",
            f"{step.recorded_at:%Y-%m-%d %H:%M:%S}.{step.recorded_at.microsecond // 1000:03}",
            "-" if step.schema_id is None else str(step.schema_id),
            _event(step),
            "-" if step.version is None else f"{step.version:,}",
            _outcome(step),
            _changed(step),
        )
    answer_table(shown)


def _event(step: Step) -> str:
    if step.key is None:
        return "tombstone" if step.outcome == "tombstone" else "-"
    return " ".join([*step.key[1:], step.status or ""]).strip()


def _outcome(step: Step) -> str:
    return f"{step.outcome}, {step.letter}" if step.letter else step.outcome


def _changed(step: Step) -> str:
    if step.detail is not None:
        return f"{step.reason}: {step.detail}"
    made = {(c.view, c.key) for c in step.changes if c.before is None and c.column == "version"}
    told = [_change(change, made) for change in step.changes if _worth(change, made)]
    return "; ".join(told) or "-"


def _worth(change: Change, made: set[tuple[str, tuple[str, ...]]]) -> bool:
    """Of a new row, what is empty says nothing; a version has a column of its own."""
    if change.column in ("version", "event_id"):
        return False
    return (change.view, change.key) not in made or change.after not in (None, 0, "0.0000", [])


def _change(change: Change, made: set[tuple[str, tuple[str, ...]]]) -> str:
    name = f"{change.view}.{change.column}"
    if (change.view, change.key) in made:
        return f"{name} = {_value(change.after)}"
    return f"{name} {_value(change.before)} -> {_value(change.after)}"


def _show_row(row: Compared) -> None:
    state = f"differs in {', '.join(row.differs)}" if row.differs else "as its events add up to"
    if row.stored is None:
        state = "is missing in the views"
    elif row.from_log is None:
        state = "has no event in the log"
    answer(f"\n{row.view} {' '.join(map(str, row.key))}: {state}")
    sides = table("column", "in the views", "from the log", "")
    for name in dict.fromkeys([*(row.stored or ()), *(row.from_log or ())]):
        differs = name in row.differs
        sides.add_row(
            name,
            _side(row.stored, name, whole=differs),
            _side(row.from_log, name, whole=differs),
            "<- differs" if differs else "",
        )
    answer_table(sides)


def _side(row: Mapping[str, Any] | None, name: str, *, whole: bool) -> str:
    return "" if row is None else _value(row.get(name), whole=whole)


def _value(value: Any, *, whole: bool = False) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if whole or len(text) <= _LONG else f"{text[: _LONG - 1]}…"
