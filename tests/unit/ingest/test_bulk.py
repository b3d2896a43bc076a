"""Texts in bulk: which of them need a look is told from eight bytes at a time."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.bulk import Bulk

# Mostly plain, so that one odd byte decides; 1 and 0x80 are next to what the arithmetic looks for.
PLAIN = st.sampled_from(b"\x01a~\x7f")
BYTE = st.one_of(PLAIN, PLAIN, PLAIN, st.sampled_from(b"\x00\x80\x81\xff"))
TEXT = st.lists(BYTE, max_size=40).map(bytes)


def is_odd(text: bytes) -> bool:
    return any(byte == 0 or byte >= 0x80 for byte in text)


@given(st.lists(TEXT, min_size=1, max_size=12))
@example([b"12345678", b"1234567", b"", b"12345678\x00"])
@example([b"\x00\x01", b"\x01\x00", b"a" * 8 + b"\x80", b"\xff" * 9])
def test_texts_with_a_nul_or_beyond_ascii_are_found_wherever_it_is(texts: list[bytes]) -> None:
    # Odd bytes on both sides of each: they are nobody's.
    bulk = Bulk([b"\xff\x00" + text + b"\x00\xff" for text in texts], header_bytes=2)
    sizes = np.array([len(text) for text in texts], np.int64)
    found = bulk._odd(bulk.start, bulk.start + sizes)
    assert found.tolist() == [is_odd(text) for text in texts]
