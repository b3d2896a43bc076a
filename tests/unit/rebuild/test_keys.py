"""A text is found in a value as Avro writes it, and not within a longer one."""

import io

import fastavro
import pytest

from ingest.records import Record
from rebuild.keys import mentioning


def holding(text: str) -> Record:
    """A record whose value is that text."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "string", text)
    return Record("orders", 0, 0, b"k", b"\x00\x00\x00\x00\x01" + out.getvalue(), (), 0, -1)


@pytest.mark.parametrize("text", ["c1", "", "ü", "x" * 63, "x" * 64, "y" * 10_000])
def test_a_text_is_found_whatever_its_length(text: str) -> None:
    assert mentioning(text)(holding(text))


@pytest.mark.parametrize("other", ["c10", "xc1", "C1", "c"])
def test_a_text_is_not_found_within_another(other: str) -> None:
    assert not mentioning("c1")(holding(other))


def test_a_null_value_mentions_nothing() -> None:
    assert not mentioning("")(holding("")._replace(value=None))
