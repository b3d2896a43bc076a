"""`viewkeeper rebuild`, `verify`, `swap`: all views anew from offset zero, proved, switched."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Final

import structlog
import typer

from cli.logs import log_to_stderr
from cli.misuse import UsageError
from cli.stopping import stop_signal
from cli.terminal import OUT, answer, answer_json, answer_table, progress, say, table
from ingest.settings import IngestSettings
from rebuild import repair, run, textfile
from rebuild.builder import StoppedError
from rebuild.compare import Difference, Result, ViewResult
from rebuild.report import Options, Report
from rebuild.swap import Swapped

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Declared = Annotated[
    list[str] | None,
    typer.Option(
        "--except",
        metavar="VIEW[.COLUMN]",
        help="What is expected to differ: reported, not failed on. May be repeated.",
    ),
]
Throttle = Annotated[
    float | None,
    typer.Option(min=1, help="Most events a second. Without it, live ingest goes first."),
]
Processes = Annotated[
    int | None, typer.Option(min=1, max=64, help="Processes for the bulk; one per processor.")
]
Missing = Annotated[
    bool, typer.Option(help="Build from what the log still has, where events are gone from it.")
]
FreeGb = Annotated[
    float | None, typer.Option(min=0, help="Room on the server's disk, where it can't be told.")
]


class _Terminal:
    """Progress on the terminal, or as plain lines."""

    def say(self, line: str) -> None:
        """A line on standard error."""
        say(line)

    @contextmanager
    def stage(self, title: str) -> Iterator[Callable[[int, int | None], None]]:
        """A bar with rate and ETA."""
        with progress(title, "events") as tell:
            yield tell


def rebuild(
    context: typer.Context,
    order: Annotated[str | None, typer.Option(help="Only this order, on the live views.")] = None,
    customer: Annotated[
        str | None, typer.Option(help="Only the orders and totals of this customer.")
    ] = None,
    swap: Annotated[bool, typer.Option(help="Make the new build live once it is proved.")] = True,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Drop what an earlier call has begun.")
    ] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Drop what earlier calls have begun, and stop.")
    ] = False,
    accept_differences: Annotated[
        bool, typer.Option("--accept-differences", help="Swap though the live views differ.")
    ] = False,
    accept_missing: Missing = False,
    other_log: Annotated[
        bool,
        typer.Option("--other-log", help="The topics are new: no proof, swap at this log's end."),
    ] = False,
    retry_dead_letters: Annotated[
        bool, typer.Option("--retry-dead-letters", help="Take in open ones that can be read now.")
    ] = False,
    declared: Declared = None,
    throttle: Throttle = None,
    processes: Processes = None,
    free_gb: FreeGb = None,
    as_json: AsJson = False,
) -> None:
    """Build every view anew from offset zero, prove it equal to the live ones, and switch.

    Queries and ingest go on meanwhile. Safe to end at any moment; the next call goes on. Exit
    code 1: differences were found, nothing was switched.
    """
    for alone in ("order", "customer", "abandon"):
        _refuse_beside(context, alone)
    if retry_dead_letters and (other_log or not swap):
        raise UsageError(
            "--retry-dead-letters closes them in the transaction that switches to a build of the"
            " same log: it goes with neither --no-swap nor --other-log"
        )
    settings = quiet_settings()
    if order is not None or customer is not None:
        _repair(settings, order, customer, as_json=as_json)
        return
    if abandon:
        _say_dropped(run.abandon(settings), as_json=as_json)
        return
    options = Options(
        swap=swap,
        from_scratch=from_scratch,
        rate=throttle,
        processes=processes,
        accept_missing=accept_missing,
        accept_differences=accept_differences,
        other_log=other_log,
        declared=_declared(declared),
        retry_letters=retry_dead_letters,
        free_bytes=None if free_gb is None else round(free_gb * 1e9),
    )
    with stoppable() as stop:
        _answer(run.rebuild(settings, options, _Terminal(), stop), as_json=as_json)


def verify(
    accept_missing: Missing = False,
    declared: Declared = None,
    throttle: Throttle = None,
    processes: Processes = None,
    free_gb: FreeGb = None,
    metrics: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="Leave the figures for Prometheus in this file, named *.prom.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that the live views are what the log adds up to: build them anew, compare every row.

    Needs no pause of ingest, and leaves nothing behind. Exit code 1: differences were found.
    """
    options = Options(
        rate=throttle,
        processes=processes,
        accept_missing=accept_missing,
        declared=_declared(declared),
        free_bytes=None if free_gb is None else round(free_gb * 1e9),
    )
    if metrics is not None and not metrics.parent.is_dir():
        raise UsageError(f"--metrics {metrics}: there is no folder {metrics.parent}")
    with stoppable() as stop:
        report = run.verify(quiet_settings(), options, _Terminal(), stop)
    if metrics is not None:
        textfile.write(report, metrics, ended_at=time.time())
    _answer(report, as_json=as_json)


def swap(
    context: typer.Context,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Go back to the build that was live before.")
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Go back at once; it catches up while it is served.")
    ] = False,
    drop_previous: Annotated[
        bool, typer.Option("--drop-previous", help="Drop the builds that were live before.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the build live that `rebuild --no-swap` left, or go back to the one before."""
    _refuse_beside(context, "drop_previous")
    if now and not rollback:
        raise UsageError("--now goes with --rollback")
    settings = quiet_settings()
    if drop_previous:
        _say_dropped(run.drop_previous(settings), as_json=as_json)
        return
    with stoppable() as stop:
        if rollback:
            report = run.roll_back(settings, _Terminal(), stop, now=now)
        else:
            report = run.swap_ready(settings, _Terminal(), stop)
        _answer(report, as_json=as_json)


def quiet_settings() -> IngestSettings:
    """The worker's settings; its lines about every partition stay out of the answer."""
    log_to_stderr()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    return IngestSettings.model_validate({})


def _declared(names: list[str] | None) -> tuple[str, ...]:
    try:
        return run.declared(names or ())
    except ValueError as error:
        raise UsageError(str(error)) from error


@contextmanager
def stoppable(left: str = "and the next call goes on from here") -> Iterator[Any]:
    """Ctrl-C ends it between two batches; what is done stays for the next call."""
    with stop_signal() as stop:
        try:
            yield stop
        except StoppedError:
            say(f"stopped; the live views are as they were, {left}")
            raise typer.Exit(1) from None


def _repair(
    settings: IngestSettings, order: str | None, customer: str | None, *, as_json: bool
) -> None:
    with stoppable() as stop:
        found = repair.repair(settings, order=order, customer=customer, stop=stop, say=say)
    if as_json:
        answer_json(asdict(found))
        return
    for line in found.changes:
        answer(line)
    what = "nothing was wrong" if not found.changes else f"{len(found.changes)} rows mended"
    answer(f"{', '.join(found.orders) or 'no order'}: {what}, at {found.position}")


def _refuse_beside(context: typer.Context, alone: str) -> None:
    """UsageError: an option that does something else was given beside one that stands alone."""
    given = [name for name in context.params if _is_given(context, name)]
    others = [_FLAGS.get(name, name) for name in given if name not in (alone, "as_json")]
    if alone in given and others:
        raise UsageError(
            f"{_flag(alone)} stands alone, or with --json: not with"
            f" {', '.join(map(_flag, sorted(others)))}"
        )


_FLAGS: Final = {"swap": "no-swap", "declared": "except"}
"""Where an option is not called as its parameter."""


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _say_dropped(names: list[str], *, as_json: bool) -> None:
    if as_json:
        answer_json({"dropped": names})
        return
    answer(f"dropped: {', '.join(names)}" if names else "there was nothing to drop")


def _answer(report: Report, *, as_json: bool) -> None:
    if as_json:
        answer_json(_for_programs(report))
    else:
        _show(report)
    if not report.ok:
        raise typer.Exit(1)


def _for_programs(report: Report) -> dict[str, object]:
    result, swapped = report.result, report.swapped
    return {
        "ok": report.ok,
        "build": report.build,
        "live_before": report.live,
        "resumed": report.resumed,
        "events": report.events,
        "position": report.position,
        "seconds": report.seconds,
        "equal": None if result is None else result.equal,
        "views": [] if result is None else [_view(view) for view in result.views],
        "first_differences": [] if result is None else [_difference(d) for d in result.first],
        "notes": [*report.notes, *(result.notes if result else ())],
        "swapped": None if swapped is None else asdict(swapped),
    }


def _view(found: ViewResult) -> dict[str, object]:
    # dataclasses.asdict counts the pairs of a Counter instead of copying them.
    counted = {"columns": dict(found.columns), "declared": dict(found.declared)}
    return {**{each.name: getattr(found, each.name) for each in fields(found)}, **counted}


def _difference(found: Difference) -> dict[str, object]:
    return {**asdict(found), "kind": found.kind, "columns": found.columns}


def _show(report: Report) -> None:
    if report.result is not None:
        _show_result(report.result)
        verdict = "equal" if report.result.equal else "NOT equal"
        answer(
            f"{report.live} and the log are {verdict}: {report.result.rows:,} rows of"
            f" {report.events:,} events at {report.position}"
        )
    for note in report.notes:
        answer(f"note: {note}")
    if report.seconds:
        answer(", ".join(f"{stage} {spent:,.1f} s" for stage, spent in report.seconds.items()))
    if report.swapped is not None:
        _show_swapped(report.swapped)
    elif report.result is not None and not report.result.equal:
        answer(
            "The rebuilt rows come from the log by this code. If they are the right ones:"
            " `viewkeeper rebuild --accept-differences`, or `--order ID` for a few."
        )


def _show_result(result: Result) -> None:
    counts = table(
        *("view", "rows", "missing", "too many", "different", "columns"),
        right=("rows", "missing", "too many", "different"),
    )
    for view in result.views:
        columns = [f"{name} {count:,}" for name, count in view.columns.most_common()]
        columns += [f"{name} {count:,} (declared)" for name, count in view.declared.most_common()]
        counts.add_row(
            f"{view.view} (declared)" if view.expected else view.view,
            f"{view.rows:,}",
            f"{view.missing:,}",
            f"{view.too_many:,}",
            f"{view.different:,}",
            ", ".join(columns),
        )
    answer_table(counts)
    for difference in result.first:
        _show_difference(difference)
    for note in result.notes:
        answer(f"note: {note}")


def _show_difference(found: Difference) -> None:
    answer(f"{found.view} {' '.join(found.key)}: {found.kind} in the live views")
    sides = table("column", "live", "rebuilt")
    names = found.columns or list(found.live or found.built or ())
    for name in names:
        sides.add_row(
            name,
            "" if found.live is None else str(found.live[name]),
            "" if found.built is None else str(found.built[name]),
        )
    answer_table(sides)
    OUT.print()


def _show_swapped(swapped: Swapped) -> None:
    since = swapped.events_since_proof
    proof = "" if since is None else f"; {since:,} events came after the proof"
    waited = f"ingest waited {swapped.held_s * 1000:.0f} ms"
    answer(f"{swapped.now} is live at {swapped.at}{proof}; {waited}")
    if swapped.retried:
        answer(f"{len(swapped.retried):,} dead letters went in and are closed")
    if swapped.back_by_events:
        answer(
            f"it goes back by {swapped.back_by_events:,} events; whoever has seen them gets STALE"
            " until the workers have caught up"
        )
    answer(f"{swapped.before} is kept: `viewkeeper swap --rollback` goes back to it")
