"""What a catalogue refuses."""

from dataclasses import replace

import pytest

from views import CATALOGUE
from views.model import Catalogue


def test_two_views_of_one_stream_are_refused() -> None:
    orders, payments = CATALOGUE.stream_views
    second = replace(payments, stream=orders.stream)
    with pytest.raises(ValueError, match="each stream has one view"):
        Catalogue(CATALOGUE.streams, (orders, second))
