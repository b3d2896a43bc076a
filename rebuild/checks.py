"""What is looked at before anything is made: what the log still has, the database, the disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka.admin import AdminClient
from psycopg import Connection

from ingest import watermarks
from ingest.claim import BrokerView
from ingest.connect import refuse_unsafe
from ingest.consume import Log
from ingest.errors import RefusedError
from ingest.operate import Build
from ingest.settings import IngestSettings
from ingest.worker import BROKER_TIMEOUT_S
from rebuild import builds
from rebuild.builds import Row
from views import CATALOGUE
from views.model import BUILD
from views.positions import Partition

Brokers = Mapping[Partition, BrokerView]
BYTES_PER_EVENT: Final = 600
"""What an event takes in a build, where there is no live build to compare with."""
_GB: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Start:
    """What a build may begin with: the partitions, and where the log of some begins."""

    brokers: Brokers
    begins: Mapping[Partition, int]
    missing: Mapping[Partition, int]
    """Of those, where events are gone: compaction by key drops only what newer ones replace."""

    @property
    def topic_ids(self) -> list[str]:
        """The ids of the topics as they are now."""
        return sorted({broker.topic_id for broker in self.brokers.values()})

    @property
    def notes(self) -> list[str]:
        """What a build from this log lacks, where that was accepted."""
        if not self.missing:
            return []
        gone = sum(self.missing.values())
        return [f"{gone:,} events that are gone from the log are not in: {_begins(self.missing)}"]


def look(settings: IngestSettings, log: Log, *, accept_missing: bool) -> Start:
    """What the log has. RefusedError: events are gone and that was not accepted."""
    log.refuse_compacted(BROKER_TIMEOUT_S)
    brokers = log.describe(log.all_partitions(BROKER_TIMEOUT_S), BROKER_TIMEOUT_S)
    begins = {p: broker.low for p, broker in brokers.items() if broker.low > 0}
    missing = {p: low for p, low in begins.items() if not _compacted(settings, p[0])}
    if missing and not accept_missing:
        gone = sum(missing.values())
        raise RefusedError(
            f"{gone:,} events are gone from the log ({_begins(missing)}): a build from it would"
            " lack them silently. Restore them, or accept a partial build with --accept-missing."
        )
    return Start(brokers, begins, missing)


def _begins(missing: Mapping[Partition, int]) -> str:
    return ", ".join(f"{t}:{p} begins at {low:,}" for (t, p), low in sorted(missing.items()))


def _compacted(settings: IngestSettings, topic: str) -> bool:
    """Whether the topic's key is its identity and compaction has dropped only old versions."""
    if not CATALOGUE.stream(topic).compactable:
        return False
    admin = AdminClient({"log_level": 0, **settings.admin_options()})
    policy = watermarks.topic_config(admin, topic, BROKER_TIMEOUT_S).get("cleanup.policy")
    return policy == "compact"


def refuse_database(settings: IngestSettings, connection: Connection[Row]) -> None:
    """RefusedError: the server can lose what it acknowledged."""
    if not settings.allow_unsafe_database:
        refuse_unsafe(connection)


def refuse_other_log(connection: Connection[Row], live: Build, brokers: Brokers) -> None:
    """RefusedError: the live positions are of another topic or cluster, so nothing compares."""
    rows = connection.execute(
        f"SELECT topic, partition, cluster_id, topic_id FROM {live.name}.positions"
        " WHERE next_offset > 0 ORDER BY topic, partition"
    )
    for topic, partition, cluster_id, topic_id in rows:
        broker = brokers.get((topic, partition))
        if broker is None or (cluster_id, topic_id) != (broker.cluster_id, broker.topic_id):
            raise RefusedError(
                f"{topic}:{partition} of {live.name} belongs to another log (cluster {cluster_id},"
                f" topic id {topic_id}): a build from this one can't be proved equal to it. Build"
                " with --other-log, which goes to the end of this log and asks for no proof."
            )


def refuse_other_tables(connection: Connection[Row], live: Build, *, is_kept: bool) -> None:
    """RefusedError: the database is at another migration than this code.

    A build that is kept must have what a newer release put into the live one, too.
    """
    found = _columns(connection, live.name)
    expected = {f"{t.name}.{c.name}" for t in BUILD.sorted_tables for c in t.columns}
    if missing := sorted(expected - found):
        raise RefusedError(
            f"{live.name} has no {', '.join(missing)}, which this code wants: run `alembic upgrade"
            " head` first"
        )
    if is_kept and (unknown := sorted(found - expected)):
        raise RefusedError(
            f"{live.name} has {', '.join(unknown)}, which this code does not know, so a build by it"
            " would lack them: rebuild with the release that migrated the database"
        )


def _columns(connection: Connection[Row], schema: str) -> set[str]:
    rows = connection.execute(
        "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE c.relnamespace = %s::regnamespace AND c.relkind = 'r'"
        " AND a.attnum > 0 AND NOT a.attisdropped",
        (schema,),
    )
    return {f"{table}.{column}" for table, column in rows}


def room_needed_bytes(connection: Connection[Row], live: Build, events: int) -> int:
    """An estimate of the disk that another build takes, with what making it needs meanwhile."""
    return round(max(builds.size_bytes(connection, live), events * BYTES_PER_EVENT) * 1.3)


def refuse_full_disk(needed_bytes: int, free_bytes: int | None) -> None:
    """RefusedError: said to be too little room. None: nobody can tell from here."""
    if free_bytes is not None and free_bytes < needed_bytes:
        raise RefusedError(
            f"the build needs about {needed_bytes / _GB:,.1f} GB beside the live one and"
            f" {free_bytes / _GB:,.1f} GB are free. Make room (`viewkeeper swap --drop-previous`"
            " frees the build before), or say how much there is with --free-gb."
        )
