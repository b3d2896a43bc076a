"""The walk along the log says what a fold at once says, and finds an answer that is wrong."""

from __future__ import annotations

import json
import random
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.answers.judge import judge
from tests.faults.answers.questions import QUERIES, Browser, Question, due
from tests.faults.answers.sessions import Answer
from tests.faults.oracle import Record, WriterSchema, expect
from tests.faults.oracle.following import Following, Listing, Position
from tests.faults.oracle.rows import Row
from tests.fixtures.contracts import local_ids
from tests.fixtures.traffic import Traffic

IDS, ANSWERS = local_ids()
PARTITIONS = 3
ALL = 10_000


def find_schema(schema_id: int) -> WriterSchema | None:
    return WriterSchema(*ANSWERS[schema_id]) if schema_id in ANSWERS else None


@pytest.fixture(scope="module")
def log() -> list[Record]:
    """Hostile traffic as it lies in the partitions that its keys belong to."""
    ends: Counter[tuple[str, int]] = Counter()
    records = []
    for record in Traffic(seed=5, orders=150, ids=IDS, hot=0.02):
        place = (record.topic, zlib.crc32(record.key or b"") % PARTITIONS)
        records.append(
            Record(
                topic=place[0],
                partition=place[1],
                offset=ends[place],
                timestamp_ms=record.timestamp_ms,
                key=record.key,
                value=record.value,
            )
        )
        ends[place] += 1
    return records


def positions(log: list[Record], *, seed: int, step: int) -> Iterator[dict[tuple[str, int], int]]:
    """Positions one after the other, each partition at its own pace."""
    chance = random.Random(seed)
    ends: Counter[tuple[str, int]] = Counter((record.topic, record.partition) for record in log)
    at = dict.fromkeys(ends, 0)
    while at != ends:
        at = {place: min(at[place] + chance.randrange(step), ends[place]) for place in at}
        yield dict(at)


def up_to(log: list[Record], position: Position) -> list[Record]:
    return [r for r in log if r.offset < position.get((r.topic, r.partition), 0)]


def rows(listing: Listing) -> list[Row]:
    return listing.page(ALL)


def test_going_along_gives_the_rows_that_a_fold_at_once_gives(log: list[Record]) -> None:
    following = Following(log, find_schema)
    for position in positions(log, seed=2, step=150):
        following.go_on(position)
        views = expect(up_to(log, position), find_schema).views
        shown = {key: row for key, row in sorted(views.orders.items()) if row["visible"]}
        assert rows(following.orders) == [*shown.values()]
        for name in ("payments", "customer_totals", "daily_sales"):
            due_rows = [row for _, row in sorted(views.named()[name].items())]
            assert rows(getattr(following, name)) == due_rows
        for (customer_id, currency), listing in following.orders_of_total.items():
            assert rows(listing) == [
                row
                for row in shown.values()
                if (row["customer_id"], row["currency"]) == (customer_id, currency)
            ]
        assert sum(map(len, following.orders_of_day.values())) == len(shown)


def test_it_does_not_go_back(log: list[Record]) -> None:
    following = Following(log, find_schema)
    following.go_on({("orders", 0): 30})
    with pytest.raises(ValueError, match="behind 29"):
        following.go_on({("orders", 0): 29})


def asked(log: list[Record]) -> list[Answer]:
    """Right answers to questions of every kind, at positions along the log."""
    following, made = Following(log, find_schema), []
    recent = [record.key.decode() for record in log if record.key and record.key.isascii()]
    browser = Browser(recent, random.Random(3))
    for position in positions(log, seed=4, step=60):
        following.go_on(position)
        for _ in range(15):
            question = browser.next()
            assert question is not None
            data = answered(question, following)
            browser.learn(question, data)
            made.append(Answer(question, json.dumps({"data": data}).encode(), position))
    return made


def answered(question: Question, following: Following) -> dict[str, Any]:
    data = due(question, following)
    for page in data.values():
        if isinstance(page, dict) and "pageInfo" in page:
            page["pageInfo"]["endCursor"] = "a cursor"
    return data | {"position": {"token": ""}}


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place within a value that holds a plain one, as its container and its key."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in inner:
        if isinstance(each, dict | list):
            yield from leaves(each)
        else:
            yield value, key


def test_right_answers_in_any_order_are_right(log: list[Record]) -> None:
    answers = asked(log)
    assert {answer.question.kind for answer in answers} == {*QUERIES}
    random.Random(6).shuffle(answers)
    judgement = judge(answers, log, find_schema, {})
    assert judgement.problems == {}
    assert judgement.judged == len(answers)
    assert judgement.positions > 10


def test_one_wrong_value_anywhere_in_an_answer_is_found(log: list[Record]) -> None:
    chance, spoilt = random.Random(7), []
    for answer in asked(log):
        body = json.loads(answer.body)
        places = [
            (container, key)
            for container, key in leaves(body["data"])
            if key not in ("endCursor", "token")
        ]
        if places:
            container, key = chance.choice(places)
            container[key] = "something else"
            spoilt.append(Answer(answer.question, json.dumps(body).encode(), answer.position))
    assert len(spoilt) > 100
    assert len(judge(spoilt, log, find_schema, {}).problems["I4 snapshots"]) == len(spoilt)


def test_an_answer_under_another_position_than_its_own_is_found(log: list[Record]) -> None:
    answers = asked(log)
    last = answers[-1].position
    early = [Answer(a.question, a.body, last) for a in answers if a.position != last]
    found = judge(early, log, find_schema, {}).problems["I4 snapshots"]
    assert len(found) > len(early) // 4


def test_positions_of_which_neither_contains_the_other_are_found(log: list[Record]) -> None:
    question = Question("order", {"order": "nobody"})
    body = b'{"data": {"order": null}}'
    one, other = {("orders", 0): 5}, {("orders", 1): 6}
    judgement = judge([Answer(question, body, at) for at in (one, other)], log, find_schema, {})
    assert len(judgement.problems["I6 positions"]) == 1
    assert judgement.judged == 1
