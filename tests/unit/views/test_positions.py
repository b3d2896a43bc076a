"""Position vectors: their text, what one of them holds of another, and the life they belong to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from views.positions import BadPositionError, PositionVector, generation_of, parse_position

PARTITIONS = st.tuples(st.sampled_from(["orders", "payments"]), st.integers(0, 3))
VECTORS = st.dictionaries(PARTITIONS, st.integers(0, 5)).map(PositionVector)


@given(VECTORS)
def test_the_text_of_a_vector_is_read_back_without_those_at_zero(vector: PositionVector) -> None:
    read = parse_position(str(vector))
    assert read.next_offsets == {p: n for p, n in vector.next_offsets.items() if n}


@given(VECTORS, VECTORS)
def test_a_vector_includes_another_where_each_partition_is_as_far(
    one: PositionVector, other: PositionVector
) -> None:
    partitions = one.next_offsets.keys() | other.next_offsets.keys()
    behind = [p for p in partitions if one.next_offsets.get(p, 0) < other.next_offsets.get(p, 0)]
    assert one.includes(other) is not bool(behind)


@pytest.mark.parametrize(
    "token",
    ["orders:1", "orders:x:1", "orders:0:1,orders:0:2", "orders:0:1@life", ",", "orders:0:-1"],
)
def test_what_is_no_vector_is_refused(token: str) -> None:
    with pytest.raises(BadPositionError):
        parse_position(token)


def test_another_cluster_or_a_topic_made_anew_gives_another_generation() -> None:
    first = generation_of("cluster", [("orders", "a"), ("payments", "b")])
    assert first == generation_of("cluster", [("payments", "b"), ("orders", "a"), ("orders", "a")])
    assert first != generation_of("another", [("orders", "a"), ("payments", "b")])
    assert first != generation_of("cluster", [("orders", "c"), ("payments", "b")])
