"""From samples to tables, on the terminal and in `RESULTS.md`. Pure.

A ratio is viewkeeper's figure over the other's within a round, then the median of the rounds with
its range; absolute figures stand beside it and promise nothing.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from bench.freshness import BARE_LOOP, FreshnessSample
from bench.poison import CLEAN, POISONED
from bench.rebuild import REBUILD, BesideSample, Load
from bench.results import Conditions, Table
from bench.serving import SERVICES, UNLABELLED, VIEWKEEPER, ServingSample
from bench.stats import ratios, spread
from bench.throughput import Sample

S = TypeVar("S")
OURS: Final = VIEWKEEPER.name
NONE: Final = "-"


def ingest_table(measured: Sequence[Sequence[Sample]], conditions: Conditions) -> Table:
    """Ingest throughput; `ours ÷ it` above 1 means that viewkeeper is faster."""

    def row(name: str) -> tuple[str, ...]:
        mine = _column(measured, OURS, lambda s: s.contestant, lambda s: s.rate)
        rates = _column(measured, name, lambda s: s.contestant, lambda s: s.rate)
        joined = _column(measured, name, lambda s: s.contestant, lambda s: s.rate_assigned)
        cpu = _column(measured, name, lambda s: s.contestant, lambda s: s.cpu_s)
        behind = [
            s.database_cpu_s
            for samples in measured
            for s in samples
            if s.contestant == name and s.database_cpu_s is not None
        ]
        peak = _column(measured, name, lambda s: s.contestant, lambda s: s.peak_rss_mb)
        return (
            name,
            spread(rates).text(0),
            ratios(mine, rates).text() if mine else NONE,
            spread(joined).text(0),
            spread(cpu).text(1),
            spread(behind).text(1) if behind else NONE,
            spread(peak).text(0),
        )

    return Table(
        "Ingest throughput",
        f"{conditions.events:,} events (orders and payments 2:1, Avro with logical types) in "
        f"{conditions.partitions} partitions per topic, from process start to the last commit; "
        "beside it from the moment partitions were assigned. Database CPU: the sessions of the "
        "contestant.",
        (
            "contestant",
            "events/s",
            "viewkeeper ÷ it",
            "events/s once assigned",
            "CPU s",
            "database CPU s",
            "peak RSS MB",
        ),
        tuple(row(name) for name in _names(measured, lambda s: s.contestant)),
    )


def serving_table(measured: Sequence[Sequence[ServingSample]]) -> Table:
    """Requests per second; the ratio is viewkeeper's rate over the service's."""
    rows = []
    for shape in _names(measured, lambda s: s.shape):
        at_shape = [[s for s in samples if s.shape == shape] for samples in measured]
        mine = _column(at_shape, OURS, lambda s: s.service, lambda s: s.result.rate)
        bare = _column(at_shape, UNLABELLED.name, lambda s: s.service, lambda s: s.result.rate)
        for name in _names(at_shape, lambda s: s.service):
            rates = _column(at_shape, name, lambda s: s.service, lambda s: s.result.rate)
            p50 = _column(at_shape, name, lambda s: s.service, lambda s: s.result.p50_ms)
            p99 = _column(at_shape, name, lambda s: s.service, lambda s: s.result.p99_ms)
            size = _column(at_shape, name, lambda s: s.service, lambda s: s.result.body_bytes)
            rss_mb = _column(at_shape, name, lambda s: s.service, lambda s: s.rss_mb)
            labelled = name == OURS and bare
            rows.append(
                (
                    shape,
                    name,
                    spread(rates).text(0),
                    ratios(mine, rates).text() if mine else NONE,
                    ratios(mine, bare).text() if labelled else NONE,
                    spread(p50).text(1),
                    spread(p99).text(1),
                    spread(size).text(0),
                    spread(rss_mb).text(0),
                )
            )
    return Table(
        "Serving",
        "16 connections, one server process each. "
        + " ".join(f"{service.name}: {service.does}." for service in SERVICES),
        (
            "query",
            "service",
            "requests/s",
            "viewkeeper ÷ it",
            "with labels ÷ without",
            "p50 ms",
            "p99 ms",
            "answer bytes",
            "RSS MB",
        ),
        tuple(rows),
    )


def freshness_table(measured: Sequence[Sequence[FreshnessSample]]) -> Table:
    """Acknowledged to visible; the ratio is a side's delay over the bare loop's: less is better."""
    rows = []
    for rate in sorted({s.rate for samples in measured for s in samples}):
        at_rate = [[s for s in samples if s.rate == rate] for samples in measured]
        bare = _delays(at_rate, BARE_LOOP)
        for side in _names(at_rate, lambda s: s.side):
            p50, p99 = _delays(at_rate, side)
            rows.append(
                (
                    f"{rate:,}",
                    side,
                    spread(p50).text(1),
                    spread(p99).text(1),
                    ratios(p50, bare[0]).text() if bare[0] else NONE,
                    ratios(p99, bare[1]).text() if bare[1] else NONE,
                    _known(at_rate, side, lambda s: s.woken_p50_ms, digits=1),
                    _known(at_rate, side, lambda s: s.woken_p99_ms, digits=1),
                    _known(at_rate, side, lambda s: s.worker_rss_mb, digits=0),
                    _known(at_rate, side, lambda s: s.api_rss_mb, digits=0),
                )
            )
    return Table(
        "Freshness",
        "From the broker's acknowledgement until the event is visible: through the API for "
        "viewkeeper, in the table for the bare loop (consume one, commit one, a reader polls). "
        "Woken: from the time of the commit, its flush to disk included, until the answer to an "
        "`atLeast` that waited for it. Resident memory: of the worker or the loop, and of the API.",
        (
            "events/s",
            "side",
            "p50 ms",
            "p99 ms",
            "p50 ÷ bare loop's",
            "p99 ÷ bare loop's",
            "woken p50 ms",
            "woken p99 ms",
            "RSS MB",
            "API RSS MB",
        ),
        tuple(rows),
    )


def rebuild_table(measured: Sequence[Sequence[Sample]], conditions: Conditions) -> Table:
    """A rebuild alone, beside what one live worker reaches on the same backlog."""

    def column(name: str, value: Callable[[Sample], float]) -> list[float]:
        return _column(measured, name, lambda s: s.contestant, value)

    worker = column(OURS, lambda s: s.rate)
    rows = [
        (
            name,
            spread(column(name, lambda s: s.rate)).text(0),
            ratios(column(name, lambda s: s.rate), worker).text(),
            spread(column(name, lambda s: s.rate_assigned)).text(0),
            spread(column(name, lambda s: s.cpu_s)).text(1),
            spread(column(name, lambda s: s.database_cpu_s or 0.0)).text(1),
            spread(column(name, lambda s: s.peak_rss_mb)).text(0),
        )
        for name in (OURS, REBUILD)
    ]
    return Table(
        "Rebuild alone",
        f"{conditions.events:,} events in {conditions.partitions} partitions per topic. The live "
        "worker: process start to last commit. The rebuild: process start to its end, with the "
        "proof of every row and the swap. Beside it without start and end: once partitions were "
        "assigned, and the bulk alone.",
        (
            "what",
            "events/s",
            "it ÷ live worker",
            "events/s once assigned, in bulk",
            "CPU s",
            "database CPU s",
            "peak RSS MB",
        ),
        tuple(rows),
    )


def poison_table(measured: Sequence[Sequence[Sample]], conditions: Conditions) -> Table:
    """A log with bad events in it, beside the same log without."""

    def column(name: str, value: Callable[[Sample], float]) -> list[float]:
        return _column(measured, name, lambda s: s.contestant, value)

    clean = column(CLEAN, lambda s: s.rate)
    rows = [
        (
            name,
            spread(column(name, lambda s: s.rate)).text(0),
            ratios(column(name, lambda s: s.rate), clean).text(),
            spread(column(name, lambda s: s.cpu_s)).text(1),
            spread(column(name, lambda s: s.database_cpu_s or 0.0)).text(1),
        )
        for name in (CLEAN, POISONED)
    ]
    return Table(
        "Poison",
        f"{conditions.events:,} good events, and beside them one bad record for each hundred, of "
        "every shape in turn; each became one dead letter. Process start to last commit, the two "
        "seconds for which an unknown schema id is waited for included.",
        ("log", "good events/s", "it ÷ clean", "CPU s", "database CPU s"),
        tuple(rows),
    )


def beside_table(found: BesideSample, load: Load) -> Table:
    """A rebuild, a swap and a rollback beside live ingest and queries: one run, its figures."""
    rows = (
        ("events rebuilt", f"{found.events:,}"),
        ("from start to swapped", f"{found.seconds:,.0f} s, {found.rate:,.0f} events/s"),
        ("live ingest meanwhile", f"{found.live_rate:,.0f} of {load.events_per_s:,} events/s"),
        ("largest lag in an answer", f"{found.most_lag_ms:,} ms"),
        ("queries", f"{found.queries:,}, from {found.builds_seen} builds"),
        ("failed", f"{found.failed:,}"),
        ("answers that mix builds or moments", f"{found.mixed:,}"),
        ("sessions that went back", f"{found.went_back:,}"),
        ("p50 without the rebuild, with it", f"{found.p50_idle_ms:.1f}, {found.p50_ms:.1f} ms"),
        ("p99 without the rebuild, with it", f"{found.p99_idle_ms:.1f}, {found.p99_ms:.1f} ms"),
        ("p99 with it ÷ without", f"{found.p99_ms / found.p99_idle_ms:.2f}"),
        ("p99 from the swap until after the rollback", f"{found.p99_swaps_ms:.1f} ms"),
        (
            "ingest waited at the swap, at the rollback",
            f"{found.held_ms:.0f}, {found.rollback_held_ms:.0f} ms",
        ),
        ("events between proof and swap", f"{found.events_since_proof:,}"),
        ("rows proved equal at the end", f"{found.rows_proved:,}"),
        *(("problem", problem) for problem in found.problems),
    )
    return Table(
        "Rebuild beside live load",
        f"Live ingest at {load.events_per_s:,} events/s and {load.queries_per_s:,.0f} queries/s by "
        "sessions that never accept to go back: rebuilt, verified, swapped, rolled back once it "
        "had caught up, verified again. A query is timed from when it was due.",
        ("what", "figure"),
        rows,
    )


def _column(
    measured: Sequence[Sequence[S]],
    name: str,
    named: Callable[[S], str],
    value: Callable[[S], float],
) -> list[float]:
    return [value(s) for samples in measured for s in samples if named(s) == name]


def _names(measured: Sequence[Sequence[S]], named: Callable[[S], str]) -> list[str]:
    return sorted({named(s): None for s in measured[0]}, key=lambda name: name != OURS)


def _known(
    measured: Sequence[Sequence[FreshnessSample]],
    side: str,
    value: Callable[[FreshnessSample], float | None],
    *,
    digits: int,
) -> str:
    """The spread of a figure that not every side has."""
    values = [value(s) for samples in measured for s in samples if s.side == side]
    known = [each for each in values if each is not None]
    return spread(known).text(digits) if known else NONE


def _delays(
    measured: Sequence[Sequence[FreshnessSample]], side: str
) -> tuple[list[float], list[float]]:
    return (
        _column(measured, side, lambda s: s.side, lambda s: s.p50_ms),
        _column(measured, side, lambda s: s.side, lambda s: s.p99_ms),
    )
