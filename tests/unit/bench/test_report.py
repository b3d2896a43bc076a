"""The tables say which side is ahead, by ratios within a round."""

from bench.followers import Result as Followed
from bench.freshness import BARE_LOOP, FreshnessSample
from bench.live import ONE_QUERY, OWN_QUERY, LiveSample
from bench.live import table as live_table
from bench.load import Result
from bench.report import freshness_table, ingest_table, serving_table
from bench.results import Conditions, Table, document, sections_of
from bench.serving import ServingSample
from bench.throughput import Sample

_CONDITIONS = Conditions("python -m bench", 1000, 4, 2)


def _ingest(contestant: str, rate: float) -> Sample:
    return Sample(
        contestant=contestant,
        rate=rate,
        rate_assigned=rate * 2,
        cpu_s=1.0,
        database_cpu_s=None,
        peak_rss_mb=100.0,
    )


def test_the_ingest_table_divides_ours_by_each_within_its_round() -> None:
    rounds = [
        [_ingest("naive floor", 100), _ingest("viewkeeper", 200)],
        [_ingest("viewkeeper", 20), _ingest("naive floor", 10)],
    ]
    ours, floor = ingest_table(rounds, _CONDITIONS).rows
    assert ours[0] == "viewkeeper"
    assert ours[2] == "1.00 (1.00 to 1.00)"
    assert floor[2] == "2.00 (2.00 to 2.00)"
    assert floor[5] == "-"


def test_the_ingest_table_stands_without_us() -> None:
    (floor,) = ingest_table([[_ingest("naive floor", 100)]], _CONDITIONS).rows
    assert floor[:3] == ("naive floor", "100 (100 to 100)", "-")


def test_the_serving_table_compares_within_one_query() -> None:
    def sample(service: str, shape: str, rate: float) -> ServingSample:
        result = Result(requests=1, rate=rate, p50_ms=1, p99_ms=2, body_bytes=3)
        return ServingSample(service=service, shape=shape, result=result, rss_mb=1)

    rounds = [
        [
            sample("viewkeeper", "one row", 900),
            sample("stock Strawberry", "one row", 300),
            sample("viewkeeper", "20 rows", 80),
            sample("stock Strawberry", "20 rows", 10),
        ]
    ]
    found = {(row[0], row[1]): row[3] for row in serving_table(rounds).rows}
    assert found["one row", "stock Strawberry"] == "3.00 (3.00 to 3.00)"
    assert found["20 rows", "stock Strawberry"] == "8.00 (8.00 to 8.00)"


def test_labels_are_priced_by_the_rate_with_them_over_the_rate_without() -> None:
    def sample(service: str, rate: float) -> ServingSample:
        result = Result(requests=1, rate=rate, p50_ms=1, p99_ms=2, body_bytes=3)
        return ServingSample(service=service, shape="one row", result=result, rss_mb=70)

    rows = serving_table(
        [[sample("viewkeeper", 90), sample("viewkeeper without labels", 100)]]
    ).rows
    assert [row[4] for row in rows] == ["0.90 (0.90 to 0.90)", "-"]
    assert {row[-1] for row in rows} == {"70 (70 to 70)"}


def test_the_freshness_table_tells_what_only_one_side_has() -> None:
    def sample(side: str, **more: float) -> FreshnessSample:
        return FreshnessSample(side=side, rate=100, p50_ms=1, p99_ms=2, worker_rss_mb=150, **more)

    ours = sample("viewkeeper", api_rss_mb=80, woken_p50_ms=2, woken_p99_ms=4)
    rows = freshness_table([[ours, sample(BARE_LOOP)]]).rows
    assert rows[0][6:] == (
        "2.0 (2.0 to 2.0)",
        "4.0 (4.0 to 4.0)",
        "150 (150 to 150)",
        "80 (80 to 80)",
    )
    assert rows[1][6:] == ("-", "-", "150 (150 to 150)", "-")


def test_the_live_table_has_a_row_per_crowd() -> None:
    def sample(clients: int, what: str, updates_per_s: float) -> LiveSample:
        result = Followed(
            clients=clients,
            came_s=1,
            grown_mb=10,
            grown_busy_mb=20,
            changes=5,
            updates_per_s=updates_per_s,
            p50_ms=3,
            p99_ms=9,
            cpu_us_per_update=50,
        )
        return LiveSample(what, result)

    rounds = [
        [sample(100, ONE_QUERY, rate), sample(100, OWN_QUERY, rate), sample(1000, ONE_QUERY, rate)]
        for rate in (1000, 3000)
    ]
    rows = live_table(rounds).rows
    assert [row[:2] for row in rows] == [
        ("100", ONE_QUERY),
        ("100", OWN_QUERY),
        ("1,000", ONE_QUERY),
    ]
    assert rows[0][2] == "2,000 (1,000 to 3,000)"
    assert rows[0][6] == "102 (102 to 102)"


def test_a_run_of_one_part_keeps_the_sections_of_the_others() -> None:
    def table(title: str, figure: str) -> Table:
        return Table(title, "A note.", ("what",), ((figure,),))

    first = document([table("Poison", "one"), table("Serving", "two")], _CONDITIONS)
    again = Conditions("python -m bench --only serving", 1000, 4, 2)
    merged = document([table("Serving", "three")], again, before=first)
    assert [*sections_of(merged)] == ["Serving", "Poison"]
    assert "two" not in merged
    assert sections_of(merged)["Poison"] == sections_of(first)["Poison"]
    assert "`python -m bench --only serving`" in sections_of(merged)["Serving"]
    assert document([], _CONDITIONS, before=merged) == merged


def test_the_freshness_table_divides_by_the_bare_loop_at_the_same_rate() -> None:
    def sample(side: str, rate: int, p50_ms: float) -> FreshnessSample:
        return FreshnessSample(
            side=side, rate=rate, p50_ms=p50_ms, p99_ms=3 * p50_ms, worker_rss_mb=1
        )

    rounds = [[sample(s, r, v) for s, r, v in _DELAYS]]
    found = {(row[0], row[1]): row[4] for row in freshness_table(rounds).rows}
    assert found["100", "viewkeeper"] == "2.00 (2.00 to 2.00)"
    assert found["1,000", "viewkeeper"] == "1.50 (1.50 to 1.50)"


_DELAYS = (
    ("viewkeeper", 100, 8.0),
    (BARE_LOOP, 100, 4.0),
    (BARE_LOOP, 1000, 10.0),
    ("viewkeeper", 1000, 15.0),
)


def test_a_table_in_markdown_has_a_line_per_row() -> None:
    lines = (
        ingest_table([[_ingest("naive floor", 100)]], _CONDITIONS)
        .markdown("Made once.")
        .splitlines()
    )
    assert lines[0] == "## Ingest throughput"
    assert lines[-1] == "Made once."
    assert sum(line.startswith("| ") for line in lines) == 3
    assert len({len(line) for line in lines if line.startswith("| ")}) == 1
