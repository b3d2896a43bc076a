"""The registry fails, stalls, lies and sends away: no good event becomes a dead letter for it."""

from __future__ import annotations

from typing import Final

from tests.faults.harness.ground import Ground
from tests.faults.harness.registryfront import FAULTS, OTHER_SCHEMA
from tests.fixtures.waiting import PATIENCE_S, eventually

SLOW: Final = "slow"
OUT_OF_TIME: Final = "worker kept from polling for longer than its poll interval"
SAID: Final = "can't be fetched"


def test_a_registry_that_fails_in_any_way_is_waited_for(ground: Ground) -> None:
    """A worker that knows no schema meets one kind after the other; another file has the kind that
    is refused."""
    kinds = sorted(FAULTS.keys() - {OTHER_SCHEMA})
    ground.send(ground.traffic(60, seed=81))
    ground.registry.spoil_in_turn(kinds)
    worker = ground.worker()
    ground.wait_until_in()
    assert {kind: ground.bites.of(f"registry: {kind}") for kind in kinds} == dict.fromkeys(kinds, 1)
    assert SAID in worker.log
    ground.must_be_right()


def test_a_worker_that_is_kept_from_polling_too_long_gives_up_its_place_and_comes_back(
    ground: Ground,
) -> None:
    """The registry takes longer than the poll interval allows; the session lives meanwhile."""
    trickle = ground.trickle(ground.traffic(50_000, seed=82), per_s=100)
    ground.registry.spoil(SLOW, 1_000_000)
    worker = ground.worker(KAFKA_MAX_POLL_INTERVAL_MS="2500")
    eventually(lambda: "poll interval" in worker.log, PATIENCE_S, "its time to poll is over")
    ground.bites.bit(OUT_OF_TIME)
    ground.registry.heal()
    ground.wait_for_progress(50)
    trickle.stop()
    ground.must_be_right()
