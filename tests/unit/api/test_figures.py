"""Operation names as labels: bounded, whatever clients send."""

import pytest
from graphql import parse

from api.figures import MOST_NAMES, Names, names_in


def test_the_first_names_are_labels_and_all_others_are_one() -> None:
    names = Names()
    first = [f"Q{number}" for number in range(MOST_NAMES)]
    assert [names.label(name) for name in first] == first
    assert {names.label(f"Late{number}") for number in range(1_000)} == {"other"}
    assert [names.label(name) for name in first] == first, "they stay"
    assert names.label("") == ""


def test_a_name_of_any_length_makes_no_label() -> None:
    assert Names().label("Q" * 10_000) == "other"


def test_names_of_trusted_documents_are_the_only_labels() -> None:
    names = Names(names_in(["query A { __typename } mutation B { x }", "{ nameless }"]))
    assert [names.label(name) for name in ("A", "B", "C", "")] == ["A", "B", "other", ""]


def test_a_trusted_document_that_is_broken_hides_no_other() -> None:
    with pytest.raises(Exception, match="Syntax Error"):
        parse("query Broken {")
    assert names_in(["query Broken {", "query Whole { x }"]) == {"Whole"}
