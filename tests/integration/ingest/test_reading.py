"""The consumer's door to a real broker: what is started is read, whatever it was before."""

from contextlib import closing

from ingest.consume import Log
from rebuild.feed import open_log
from tests.fixtures.contracts import SchemaIds
from tests.fixtures.databases import Database
from tests.fixtures.topics import FreshTopics
from tests.fixtures.traffic import Traffic
from tests.fixtures.waiting import eventually
from tests.integration.ingest.running import WAIT_S, settings_of, tell
from views.positions import Partition


def read_to(log: Log, partition: Partition, end: int) -> None:
    """Poll until it was read to its end."""

    def at_end() -> bool:
        log.poll(100, 0.1)
        return log.positions([partition]).get(partition) == end

    eventually(at_end, WAIT_S, f"{partition} is read to {end}")


def test_what_was_held_back_and_let_go_is_read_when_it_is_started_again(
    database: Database, fresh_topics: FreshTopics, registry: str, ids: SchemaIds
) -> None:
    bootstrap = fresh_topics(partitions=1)
    ends = tell(bootstrap, Traffic(seed=73, orders=20, ids=ids))
    settings = settings_of(
        dsn=database.dsn, bootstrap=bootstrap, registry=registry, group=database.name
    )
    ours: Partition = ("orders", 0)
    with closing(open_log(settings)) as log:
        log.start({ours: 0})
        read_to(log, ours, ends[ours])
        log.pause([ours])  # as in an outage, in which a rebalance or an operator takes it away
        log.drop([ours])
        log.start({ours: 0})
        read_to(log, ours, ends[ours])
