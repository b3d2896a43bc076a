"""What happens to the batch in hand when a partition is to go to another worker."""

from ingest.worker import REVOKE_BUDGET_S
from tests.faults.simulator.database import Database, Transaction
from tests.faults.simulator.world import Schedule, World, quiet


class _Slow(Database):
    """A database that ends nothing by itself, and knows how long it was waited for."""

    waited_s: float = 0.0

    def wait(self, transaction: Transaction, timeout_s: float) -> None:
        self.waited_s = max(self.waited_s, timeout_s)


def _writing() -> tuple[World, _Slow]:
    """A world in which a worker has just handed over a batch."""
    world = World(Schedule(1, ()), database=_Slow)
    database = world.database
    assert isinstance(database, _Slow)
    for _ in range(200):
        world.produce()
        world.step()
        if database.open:
            return world, database
    raise AssertionError("no batch was handed over")


def test_a_revoke_waits_for_the_batch_that_is_being_written() -> None:
    with quiet():
        world, database = _writing()
        (transaction,) = database.open[:1]
        (actor,) = [a for a in world.actors if a.store is transaction.store]
        database.waited_s = 0.0
        actor.consumer.revoked(list(transaction.folded.advances))
    assert database.waited_s == REVOKE_BUDGET_S
    assert not set(transaction.folded.advances) & actor.worker.positions().keys()
