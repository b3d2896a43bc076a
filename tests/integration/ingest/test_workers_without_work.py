"""More workers than partitions: the spare ones are ready, and take over what becomes free."""

from tests.fixtures.databases import Database
from tests.fixtures.topics import FreshTopics
from tests.fixtures.waiting import eventually
from tests.integration.ingest.running import WAIT_S, Worker, settings_of


def test_a_worker_without_a_partition_is_ready_and_takes_over(
    database: Database, fresh_topics: FreshTopics, registry: str
) -> None:
    bootstrap = fresh_topics(partitions=1)
    settings = [
        settings_of(dsn=database.dsn, bootstrap=bootstrap, registry=registry, group=database.name)
        for _ in range(3)
    ]
    with Worker(settings[0]) as first, Worker(settings[1]) as second, Worker(settings[2]) as third:
        workers = [first, second, third]

        def owned() -> list[int]:
            found = [worker.ready() for worker in workers if worker.running]
            return sorted(body["partitions"] for body in found if body.get("ready"))

        eventually(lambda: owned() == [0, 1, 1], WAIT_S, "one of three ready workers is spare")
        busy = next(worker for worker in workers if worker.ready()["partitions"])
        busy.stop()
        eventually(lambda: owned() == [1, 1], WAIT_S, "the spare one has taken over")
