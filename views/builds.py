"""The schema `ingest`: what is known beside the builds, one row per build, dead letter and schema.

Stands apart from the builds because it outlives each of them: it says which build is live.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)

from views.model import BUILD, Timestamp

INGEST = MetaData(schema="ingest", naming_convention=BUILD.naming_convention)

BUILDS = Table(
    "builds",
    INGEST,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, Computed("'build_' || number::text", persisted=True), nullable=False),
    Column("state", Text, nullable=False, doc="building, ready, live or previous"),
    Column(
        "change_counter",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        doc="Raised whenever rows change while no position moves: redrives and repairs.",
    ),
    Column("made_by", Text, nullable=False, doc="What made the build: a migration or a rebuild."),
    Column("made_at", Timestamp, nullable=False, server_default=func.now()),
    Column("live_since_at", Timestamp),
    CheckConstraint("state IN ('building', 'ready', 'live', 'previous')", name="state"),
    Index("builds_live_key", "state", unique=True, postgresql_where=text("state = 'live'")),
)

BUILD_VIEWS = Table(
    "build_views",
    INGEST,
    Column("number", Integer, ForeignKey(BUILDS.c.number, ondelete="CASCADE"), primary_key=True),
    Column("view", Text, primary_key=True, doc="A view whose rows are complete in this build."),
    Column("known_at", Timestamp, nullable=False, server_default=func.now()),
)

DEAD_LETTERS = Table(
    "dead_letters",
    INGEST,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("topic", Text, nullable=False),
    Column("topic_id", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("headers", JSON, doc="A list of [name, value in base64 or null]."),
    Column("recorded_at", Timestamp, nullable=False),
    Column("schema_id", Integer),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("first_seen_at", Timestamp, nullable=False, server_default=func.now()),
    Column("last_seen_at", Timestamp, nullable=False, server_default=func.now()),
    Column("state", Text, nullable=False, server_default="open"),
    Column("decided_at", Timestamp),
    Column("decided_by", Text),
    Column("purged_at", Timestamp, doc="When its key, value and headers were removed for good."),
    CheckConstraint("state IN ('open', 'redriven', 'discarded')", name="state"),
    UniqueConstraint("topic_id", "partition", "offset"),
    Index(None, "state", "topic", "partition", "offset"),
)

OUTBOX = Table(
    "outbox",
    INGEST,
    Column("dead_letter_id", BigInteger, ForeignKey(DEAD_LETTERS.c.id), primary_key=True),
    Column("made_at", Timestamp, nullable=False, server_default=func.now()),
    Column("sent_at", Timestamp, doc="When the broker acknowledged it; null: still to be sent."),
    Index("outbox_unsent_idx", "dead_letter_id", postgresql_where=text("sent_at IS NULL")),
)

DECISIONS = Table(
    "decisions",
    INGEST,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("build", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("decision", Text, nullable=False, doc="The command that was given: accept-gap, ..."),
    Column("from_offset", BigInteger, nullable=False, doc="The first offset that it is about."),
    Column("to_offset", BigInteger, nullable=False, doc="The offset behind the last one."),
    Column("decided_at", Timestamp, nullable=False, server_default=func.now()),
    Column("decided_by", Text, nullable=False),
)

SCHEMA_FINGERPRINTS = Table(
    "schema_fingerprints",
    INGEST,
    Column("schema_id", Integer, primary_key=True, autoincrement=False),
    Column("fingerprint", Text, nullable=False, doc="SHA-256 of the schema's canonical form."),
    Column("first_seen_at", Timestamp, nullable=False, server_default=func.now()),
)
