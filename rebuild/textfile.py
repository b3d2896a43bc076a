"""The outcome of `verify` for Prometheus: a file that a node exporter's textfile collector reads.

A nightly job has no page that somebody could scrape, so it leaves its figures behind. A run that
was refused or ended leaves the file of the run before: alert on its age as well.
"""

from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from rebuild.report import Report

_KINDS: Final = ("missing", "too_many", "different")


def write(report: Report, path: Path, *, ended_at: float) -> None:
    """Write the file in one step; `ended_at` in seconds since 1970."""
    write_to_textfile(str(path), collect(report, ended_at=ended_at))


def collect(report: Report, *, ended_at: float) -> CollectorRegistry:
    """The figures of a run that has compared."""
    registry = CollectorRegistry()

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"viewkeeper_verify_{name}", text, labels, registry=registry)

    result = report.result
    assert result is not None, "verify answers with a result or an error"
    gauge("equal", "Whether the live views are what the log adds up to.").set(result.equal)
    gauge("events", "Events that were folded anew.").set(report.events)
    gauge("ended_timestamp_seconds", "When the comparison ended.").set(ended_at)
    seconds = gauge("seconds", "How long a stage took.", "stage")
    for stage, spent in report.seconds.items():
        seconds.labels(stage).set(spent)
    rows = gauge("rows", "Rows that were compared.", "view")
    wrong = gauge("rows_wrong", "Rows that are not what they must be.", "view", "kind")
    columns = gauge("column_differences", "Rows in which a column differs.", "view", "column")
    declared = gauge("declared_differences", "The same, as declared.", "view", "column")
    for view in result.views:
        rows.labels(view.view).set(view.rows)
        for kind in _KINDS:
            wrong.labels(view.view, kind).set(getattr(view, kind))
        for name, count in view.columns.items():
            columns.labels(view.view, name).set(count)
        for name, count in view.declared.items():
            declared.labels(view.view, name).set(count)
    return registry
