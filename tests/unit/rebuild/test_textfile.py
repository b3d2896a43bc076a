"""What `verify --metrics` leaves for Prometheus."""

from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from rebuild import textfile
from rebuild.compare import Result, ViewResult
from rebuild.report import Report


def written(report: Report, path: Path) -> dict[tuple[str, ...], float]:
    """Each sample of the file: its name and the values of its labels, which come by name."""
    textfile.write(report, path, ended_at=1_767_225_600.0)
    return {
        (sample.name.removeprefix("viewkeeper_verify_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


def test_every_figure_of_a_comparison_is_in_the_file(tmp_path: Path) -> None:
    orders = ViewResult("orders", rows=70, missing=1, too_many=2, different=3)
    orders.columns, orders.declared = Counter(amount=3), Counter(discount=4)
    result = Result(views=[orders, ViewResult("payments", rows=20)])
    report = Report(events=90, result=result, seconds={"bulk": 1.5})
    assert written(report, tmp_path / "verify.prom") == {
        ("equal",): 0,
        ("events",): 90,
        ("ended_timestamp_seconds",): 1_767_225_600,
        ("seconds", "bulk"): 1.5,
        ("rows", "orders"): 70,
        ("rows", "payments"): 20,
        ("rows_wrong", "missing", "orders"): 1,
        ("rows_wrong", "too_many", "orders"): 2,
        ("rows_wrong", "different", "orders"): 3,
        ("rows_wrong", "missing", "payments"): 0,
        ("rows_wrong", "too_many", "payments"): 0,
        ("rows_wrong", "different", "payments"): 0,
        ("column_differences", "amount", "orders"): 3,
        ("declared_differences", "discount", "orders"): 4,
    }


def test_the_next_run_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    bad = Report(result=Result(views=[ViewResult("orders", rows=7, missing=1)]))
    good = Report(result=Result(views=[ViewResult("orders", rows=8)]))
    assert written(bad, tmp_path / "verify.prom")["equal",] == 0
    assert written(good, tmp_path / "verify.prom")["equal",] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["verify.prom"]
