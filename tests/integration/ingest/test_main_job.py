"""100,000 events while workers are killed, come and go: the main job, judged as a whole.

Traffic comes at a steady pace, so that whatever happens to a worker happens in mid-stream.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.faults.harness.producers import Ledger, Trickle
from tests.faults.harness.workers import WorkerProcess
from tests.fixtures.contracts import SchemaIds
from tests.fixtures.databases import Database
from tests.fixtures.reports import table_rows, write_page
from tests.fixtures.traffic import Traffic
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import Api, settings
from tests.integration.ingest.running import BUILD, differences_to_log, positions, query
from tests.integration.ingest.sums import sums_agree_for_people, sums_agree_over_graphql

pytestmark = [pytest.mark.proof, pytest.mark.timeout(5_400)]

EVENTS = 100_000
KILLS = 10
STORIES = 2
PER_S = 1_000
RECORDS_OF_AN_ORDER = 5.2  # at least
WAIT_S = 900.0

PAGE = """# The main job under way

`make proof ARGS=tests/integration/ingest/test_main_job.py`, {day}, {cpus} cores. Hostile traffic
(three currencies, payments first, duplicates, older versions, conflicts, tombstones, poison) comes
at up to {per_s:,} records a second, and each story below happens while it comes. Afterwards every
row of every view equals an independent fold of the log, column by column, and every invariant holds
in SQL and over GraphQL; otherwise there would be no page.

| story | records | applied | superseded | duplicates | tombstones | dead | what, at which record |
|---|---|---|---|---|---|---|---|
{rows}
"""


Stories = list[tuple[object, ...]]


@pytest.fixture(scope="module")
def stories() -> Stories:
    """What was found in each story that is told already."""
    return []


@dataclass
class Job:
    """The traffic, and the workers on it."""

    database: Database
    bootstrap: str
    registry: str
    folder: Path
    events: int
    workers: list[WorkerProcess] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)

    def worker(self) -> WorkerProcess:
        """Start another one."""
        environment = {
            "VIEWKEEPER_DATABASE_URL": self.database.dsn,
            "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "VIEWKEEPER_SCHEMA_REGISTRY_URL": self.registry,
            "VIEWKEEPER_GROUP_ID": self.database.name,
            "VIEWKEEPER_BATCH_ROWS": "500",
        }
        made = WorkerProcess(str(len(self.workers) + 1), self.folder, environment)
        self.workers.append(made)
        made.start()
        return made

    def held(self) -> int:
        """How many records the views contain."""
        return sum(positions(self.database.dsn).values())

    def wait_for(self, share: float) -> None:
        """Until the views contain this share of all records."""
        eventually(lambda: self.held() >= self.events * share, WAIT_S, f"{share:.0%} of it is in")

    def note(self, what: str) -> None:
        """Something happened to a worker, in mid-stream."""
        held = self.held()
        assert held < self.events, f"{what} came too late"
        self.happened.append(f"{what} at {held:,}")

    def owns(self, worker: WorkerProcess) -> bool:
        """Whether a worker owns a partition."""
        return bool(query(self.database.dsn,
            f"SELECT partition FROM {BUILD}.positions WHERE owner = %s", worker.owner))  # fmt: skip


@pytest.fixture
def job(
    database: Database, kafka: str, registry: str, ids: SchemaIds, tmp_path: Path
) -> Iterator[Job]:
    """The traffic begins; at the end everything is in, and is right."""
    records = list(Traffic(seed=12, orders=int(EVENTS / RECORDS_OF_AN_ORDER), ids=ids))
    assert len(records) >= EVENTS
    trickle = Trickle(kafka, records, Ledger(), per_s=PER_S)
    made = Job(database, kafka, registry, tmp_path, len(records))
    try:
        yield made
    finally:
        for worker in made.workers:
            worker.kill()
        trickle.stop()


def finish(job: Job, name: str, stories: Stories) -> None:
    """Wait for the end, judge, and tell what was found."""
    job.wait_for(1.0)
    dsn = job.database.dsn
    assert differences_to_log(dsn, bootstrap=job.bootstrap, registry=job.registry) == []
    sums_agree_for_people(dsn)
    with TestClient(create_app(settings(job.database.api_dsn))) as client:
        sums_agree_over_graphql(Api(client))
    columns = ("next_offset", "applied", "superseded", "duplicates", "tombstones", "dead")
    sums = ", ".join(f"sum({column})::int" for column in columns)
    (counts,) = query(dsn, f"SELECT {sums} FROM {BUILD}.positions")
    stories.append((name, *counts, ", ".join(job.happened)))
    if len(stories) == STORIES:
        write_page("main-job", PAGE, dsn=dsn, per_s=PER_S, rows=table_rows(stories))


def test_ten_kills_in_mid_stream_change_nothing(job: Job, stories: Stories) -> None:
    for number in range(KILLS):
        worker = job.worker()
        job.wait_for((number + 1) / (KILLS + 2))
        job.note("`kill -9`")
        worker.kill()
    job.worker()
    finish(job, "one worker, killed and started again", stories)


def test_three_workers_of_which_one_comes_and_one_goes_change_nothing(
    job: Job, stories: Stories
) -> None:
    workers = [job.worker() for _ in range(3)]
    eventually(lambda: all(job.owns(w) for w in workers), WAIT_S, "three workers share it")
    job.wait_for(0.2)
    fourth = job.worker()
    eventually(lambda: job.owns(fourth), WAIT_S, "the fourth has its share")
    job.note("a fourth came")
    job.wait_for(0.5)
    assert workers[0].stop() == 0, workers[0].log
    job.note("one left (SIGTERM)")
    job.wait_for(0.7)
    workers[1].kill()
    job.note("one was killed")
    finish(job, "three workers, one comes and one goes", stories)
