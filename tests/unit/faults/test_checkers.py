"""What judges the fault tests finds what it is there to find: each checker is shown one wrong."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from tests.faults.answers.sessions import position_of
from tests.faults.harness import campaign, chain
from tests.faults.harness.bites import Bites
from tests.faults.harness.campaign import Run, lacking, write_report
from tests.faults.harness.chain import Link
from tests.faults.harness.judge import Counted, accounting, spent_on_an_outage
from tests.faults.harness.producers import ABORTED, Ledger
from tests.faults.oracle import Record as Logged
from tests.faults.oracle import WriterSchema, expect
from tests.faults.oracle.events import FindSchema
from tests.faults.soak import report
from tests.faults.soak.faults import FAULTS
from tests.faults.soak.run import Injected, Plan, Result
from tests.faults.soak.watch import Course, Sample, Watch
from tests.fixtures.content import Writer, order_content
from tests.fixtures.contracts import local_ids
from tests.fixtures.traffic import Record

# I2, the offset chain.


def _link(old: int, new: int, *, epoch: int = 1, drawn: bool = False, writer: str = "a") -> Link:
    return Link("orders", 0, old, new, epoch - drawn, epoch, writer, f"viewkeeper ingest {writer}")


WHOLE = [
    _link(0, 0, drawn=True),
    _link(0, 5),
    _link(5, 9),
    _link(9, 9, epoch=2, drawn=True, writer="b"),
    _link(9, 12, epoch=2, writer="b"),
]


def test_a_chain_that_holds_has_no_problem() -> None:
    assert chain.problems(WHOLE) == []


@pytest.mark.parametrize(
    ("place", "wrong", "said"),
    [
        (2, _link(5, 4), "went back from 5 to 4"),
        (2, _link(6, 9), "was left at (5, 1) and met at (6, 1)"),
        (4, _link(9, 12, epoch=1), "was left at (9, 2) and met at (9, 1)"),
        (4, _link(9, 12, epoch=3, writer="b"), "was left at (9, 2) and met at (9, 3)"),
        (3, replace(WHOLE[3], new_epoch=4), "the epoch went from 1 to 4"),
        (3, replace(WHOLE[3], new_next=11), "one change moved position and epoch 2"),
        (2, _link(5, 9, writer="b"), "epoch 1 was written by ['viewkeeper ingest a',"),
    ],
)
def test_a_broken_chain_is_told_with_its_place(place: int, wrong: Link, said: str) -> None:
    broken = [*WHOLE[:place], wrong, *WHOLE[place + 1 :]]
    assert any(found.startswith("orders:0: ") and said in found for found in chain.problems(broken))


def test_a_takeover_is_a_change_of_hands_and_nothing_else() -> None:
    assert chain.takeovers(WHOLE) == chain.takeovers(WHOLE, by="b") == 1
    assert chain.takeovers(WHOLE, by="a") == chain.takeovers(WHOLE[:3]) == 0


# I3, the ledger.


def _sent(key: bytes) -> Record:
    return Record("orders", key, b"value", 0, "event")


def _logged(*keys: bytes) -> list[Logged]:
    return [_read(at, key, b"value") for at, key in enumerate(keys)]


def _read(offset: int, key: bytes, value: bytes) -> Logged:
    return Logged(topic="orders", partition=0, offset=offset, timestamp_ms=0, key=key, value=value)


def _ledger() -> Ledger:
    ledger = Ledger()
    ledger.told(_sent(b"told"), None)
    ledger.told(_sent(b"unknown"), KafkaError(KafkaError._TIMED_OUT))
    return ledger


@pytest.mark.parametrize("keys", [(b"told",), (b"told", b"unknown")])
def test_what_is_unknown_may_be_there_or_not(keys: tuple[bytes, ...]) -> None:
    assert _ledger().problems(_logged(*keys)) == []


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ((b"unknown",), "acknowledged, and not in the log"),
        ((b"told", b"stranger"), "in the log, and never sent"),
        ((b"told", f"{ABORTED}x".encode()), "aborted, and in the committed log"),
    ],
)
def test_what_the_log_must_not_be_is_told(keys: tuple[bytes, ...], said: str) -> None:
    assert any(said in found for found in _ledger().problems(_logged(*keys)))


def test_what_lies_in_the_log_too_often_is_named_and_no_problem() -> None:
    log = _logged(b"told", b"told")
    assert _ledger().problems(log) == []
    assert len(_ledger().repeated(log)) == 2


# I9, accounting.

AT = ("orders", 0)
RIGHT = Counted(counted=3, dead=1, next_offset=5, letters=1)


def test_counters_and_what_is_hidden_make_up_the_log() -> None:
    assert accounting({AT: RIGHT}, _logged(b"a", b"b", b"c"), {AT: 5}) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (replace(RIGHT, counted=4), "4 counted and 2 control or aborted are not 5"),
        (replace(RIGHT, counted=2), "2 counted and 2 control or aborted are not 5"),
        (replace(RIGHT, letters=0), "1 counted dead, 0 dead letters"),
        (replace(RIGHT, letters=2), "1 counted dead, 2 dead letters"),
    ],
)
def test_an_account_that_does_not_close_is_told(wrong: Counted, said: str) -> None:
    assert accounting({AT: wrong}, _logged(b"a", b"b", b"c"), {AT: 5}) == [f"orders:0: {said}"]


def test_a_good_event_that_an_outage_made_a_dead_letter_is_an_anomaly() -> None:
    ids, answers = local_ids()
    value = Writer(ids)("orders", order_content(random.Random(1), "a", customers=1))
    event = [_read(0, b"a", value)]
    recorded = {("orders", 0, 0): ("UNKNOWN_SCHEMA", "open")}

    def judged(find: FindSchema) -> list[str]:
        return spent_on_an_outage(expect(event, find, recorded=recorded))

    assert judged(lambda _id: None) == []
    assert judged(lambda schema_id: WriterSchema(*answers[schema_id])) == [
        "orders:0@0: a dead letter, though its record is good"
    ]


# Positions.


def test_a_token_is_read_as_the_offsets_behind_what_it_names() -> None:
    token = "orders:0:4,payments:2:0@build_1"
    assert position_of(token) == {("orders", 0): 5, ("payments", 2): 1}


# The bites.


def test_a_kind_that_did_not_bite_is_not_counted() -> None:
    one = Bites()
    one.bit("kind", 0)
    one.bit("kind", -1)
    assert (one.total, str(one)) == (0, "no fault bit")
    one.bit("kind", 2)
    assert (one.of("kind"), one.by_kind()) == (2, {"kind": 2})
    with pytest.raises(AssertionError, match="bit 2 of 3 times"):
        one.wait_for("kind", 3, timeout_s=0)


def test_a_run_that_met_too_little_lacks_it() -> None:
    enough = {**campaign.EXPECTED, "another": campaign.LEAST}
    assert lacking(enough) == []
    assert lacking({**enough, "deadlock": 0}) == ["deadlock: bit 0 times, 1 are due"]
    without = {kind: times for kind, times in enough.items() if kind != "deadlock"}
    assert lacking(without) == ["deadlock: bit 0 times, 1 are due"]
    assert any("faults bit, 150 are due" in said for said in lacking({"deadlock": 1}))


def test_each_seed_has_its_place_in_the_report(tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    passed = {"test_x": "passed, 3 s"}
    write_report(page, Run(2, "abc", {"test_x": {"a": 5}}, passed, {"test_x": "fast"}))
    write_report(page, Run(1, "abc", {"test_y": {"a": 1, "b": 1}}, {"test_y": "passed, 1 s"}))
    text = page.read_text("utf-8")
    for line in (
        "|  | seed 1, abc | seed 2, abc |",
        "| a | 1 | 5 |",
        "| b | 1 | 0 |",
        "| all | 2 | 5 |",
    ):
        assert line in text
    assert "| test_x | not run | passed, 3 s |" in text
    assert "- `test_x`, seed 2: fast" in text


def test_a_test_that_runs_again_takes_its_own_place_alone(tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    both = {"test_x": "failed, 3 s", "test_y": "passed, 1 s"}
    bites = {"test_x": {"a": 5}, "test_y": {"a": 1}}
    write_report(page, Run(1, "abc", bites, both, {"test_x": "slow"}))
    write_report(page, Run(1, "abc", {}, {"test_x": "passed, 2 s"}))
    text = page.read_text("utf-8")
    assert "| test_x | passed, 2 s |" in text
    assert "| test_y | passed, 1 s |" in text
    assert "| all | 1 |" in text
    assert "slow" not in text


def test_nothing_of_another_commit_stays_in_the_report(tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    write_report(page, Run(1, "abc", {"test_x": {"a": 5}}, {"test_x": "passed, 3 s"}))
    write_report(page, Run(1, "def", {"test_y": {"a": 1}}, {"test_y": "passed, 2 s"}))
    text = page.read_text("utf-8")
    assert "|  | seed 1, def |" in text
    assert "test_x" not in text


# The soak.


def _result(tmp_path: Path, **changes: Any) -> Result:
    plan = Plan(minutes=10, seed=1, brokers=1, folder=tmp_path)
    faults = [Injected(kind, 0.0, 1, 1.0) for kind in FAULTS for _ in range(2)]
    return replace(Result(plan, ran_s=600.0, faults=faults), **changes)


def test_a_soak_without_an_anomaly_whose_every_fault_bit_has_passed(tmp_path: Path) -> None:
    assert report.passed(_result(tmp_path))
    assert "passed" in report.as_markdown(_result(tmp_path))


@pytest.mark.parametrize("what", ["anomaly", "too few", "a kind at 0"])
def test_a_soak_that_proves_too_little_has_failed(tmp_path: Path, what: str) -> None:
    whole = _result(tmp_path)
    first = next(iter(FAULTS))
    mute = [replace(one, bites=0) if one.kind == first else one for one in whole.faults]
    changes: Mapping[str, Mapping[str, Any]] = {
        "anomaly": {"anomalies": {"I1 rows": ["one is wrong"]}},
        "too few": {"ran_s": 6_000.0},
        "a kind at 0": {"faults": mute},
    }
    failed = _result(tmp_path, **changes[what])
    assert not report.passed(failed)
    assert "**failed**" in report.as_markdown(failed)
    assert report.mute(failed) == ([first] if what == "a kind at 0" else [])


def _course(sizes: Iterator[float]) -> Course:
    course = Course()
    course.lives[1] = [Sample(60.0 + 2 * n, size, 50) for n, size in enumerate(sizes)]
    return course


@pytest.mark.parametrize(
    ("grows", "said"),
    [
        (lambda watch: watch.connections.extend([10] * 40 + [30] * 40), "connections"),
        (
            lambda watch: watch.courses.update(api=_course(100.0 + n for n in range(80))),
            "api grew from",
        ),
    ],
)
def test_what_grows_during_a_soak_is_told(grows: Callable[[Watch], None], said: str) -> None:
    watch = Watch("", {})
    watch.courses = {name: _course(iter([90.0] * 80)) for name in ("worker 1", "api")}
    assert watch.problems() == []
    grows(watch)
    assert any(said in problem for problem in watch.problems())
