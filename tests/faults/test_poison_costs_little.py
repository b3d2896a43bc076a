"""One record in a hundred is poison, of every shape: the others hardly notice."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.faults.harness.bites import Bites
from tests.faults.harness.field import Field
from tests.faults.harness.ground import Ground
from tests.fixtures.waiting import eventually

POISONED: Final = "record that is poison"
ORDERS: Final = 60_000
POISON: Final = 0.01
LEAST_SHARE: Final = 0.7
ROUNDS: Final = 2
_S: Final = 600.0


def _per_s(ground: Ground) -> float:
    """Offsets a second from the first that is in to the last, by a worker as it comes."""
    ground.worker(BATCH_ROWS="20000", BATCH_MS="200")
    eventually(lambda: sum(ground.positions().values()), _S, "the first batch is in")
    first, began_at = sum(ground.positions().values()), time.perf_counter()
    ground.wait_until_in(_S)
    return (sum(ground.positions().values()) - first) / (time.perf_counter() - began_at)


@pytest.mark.proof
@pytest.mark.timeout(1_800)
def test_one_poison_in_a_hundred_leaves_most_of_the_throughput(
    field: Field, tmp_path: Path, bites: Bites, record_property: Callable[[str, object], None]
) -> None:
    best = {0.0: 0.0, POISON: 0.0}
    for turn in range(ROUNDS):
        for share in best:
            with field.ground(tmp_path / f"{turn} {share}", bites) as ground:
                traffic = ground.traffic(ORDERS, seed=91 + turn, poison=share)
                sent = [(record.kind, record) for record in traffic]
                bites.bit(POISONED, sum(kind.startswith("poison:") for kind, _record in sent))
                ground.send(record for _kind, record in sent)
                best[share] = max(best[share], _per_s(ground))
                ground.must_be_right()
    ratio = best[POISON] / best[0.0]
    record_property(
        "said",
        f"{best[0.0]:,.0f} events/s clean, {best[POISON]:,.0f} with {POISON:.0%} poison:"
        f" {ratio:.2f}",
    )
    assert ratio >= LEAST_SHARE
