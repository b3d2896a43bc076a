"""First build: the schema of what is known beside the builds, build 1, and who may read it."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply to an empty database; build 1 is live from the start."""
    op.execute(
        """
        DO $$ BEGIN
            CREATE ROLE viewkeeper_reader NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            RAISE NOTICE 'role viewkeeper_reader is there already';
        END $$
        """
    )
    for schema in ("ingest", "views", "build_1"):
        op.execute(f"CREATE SCHEMA {schema}")
        op.execute(f"GRANT USAGE ON SCHEMA {schema} TO viewkeeper_reader")
    _create_ingest()
    op.execute("GRANT SELECT ON ingest.builds, ingest.build_views TO viewkeeper_reader")
    op.execute(
        "INSERT INTO ingest.builds (number, state, made_by, live_since_at) "
        "VALUES (1, 'live', 'migration 0001', now())"
    )
    for build in op.builds():
        _create_views(build)


def downgrade() -> None:
    """Take everything back, in every build, with everything that is in it."""
    for build in op.builds():
        for table in (
            "applied_dead_letters",
            "customer_totals",
            "daily_sales",
            "orders",
            "payments",
            "positions",
            "tombstones",
        ):
            op.drop_table(table, schema=build)
        op.execute(f"DROP SCHEMA {build}")
    for table in ("build_views", "builds", "outbox", "dead_letters", "schema_fingerprints"):
        op.drop_table(table, schema="ingest")
    op.execute("DROP SCHEMA ingest")
    op.execute("DROP SCHEMA views")
    # Roles belong to the whole cluster: another database may live by this one.
    op.execute(
        """
        DO $$ BEGIN
            DROP ROLE viewkeeper_reader;
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
            RAISE NOTICE 'role viewkeeper_reader stays: %', SQLERRM;
        END $$
        """
    )


def _create_ingest() -> None:
    """The tables beside the builds."""
    op.create_table(
        "builds",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "name",
            sa.Text(),
            sa.Computed("'build_' || number::text", persisted=True),
            nullable=False,
        ),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("change_counter", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column(
            "made_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("live_since_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('building', 'ready', 'live', 'previous')", name=op.f("builds_state_check")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("builds_pkey")),
        schema="ingest",
    )
    op.create_index(
        "builds_live_key",
        "builds",
        ["state"],
        unique=True,
        schema="ingest",
        postgresql_where=sa.text("state = 'live'"),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("topic_id", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=True),
        sa.Column("headers", sa.JSON(), nullable=True),
        sa.Column("recorded_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("schema_id", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column(
            "first_seen_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "last_seen_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("decided_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('open', 'redriven', 'discarded')", name=op.f("dead_letters_state_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("dead_letters_pkey")),
        sa.UniqueConstraint(
            "topic_id",
            "partition",
            "offset",
            name=op.f("dead_letters_topic_id_partition_offset_key"),
        ),
        schema="ingest",
    )
    op.create_index(
        op.f("dead_letters_state_topic_partition_offset_idx"),
        "dead_letters",
        ["state", "topic", "partition", "offset"],
        unique=False,
        schema="ingest",
    )
    op.create_table(
        "schema_fingerprints",
        sa.Column("schema_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column(
            "first_seen_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("schema_id", name=op.f("schema_fingerprints_pkey")),
        schema="ingest",
    )
    op.create_table(
        "build_views",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("view", sa.Text(), nullable=False),
        sa.Column(
            "known_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["number"],
            ["ingest.builds.number"],
            name=op.f("build_views_number_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("number", "view", name=op.f("build_views_pkey")),
        schema="ingest",
    )
    op.create_table(
        "outbox",
        sa.Column("dead_letter_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "made_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("sent_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["dead_letter_id"], ["ingest.dead_letters.id"], name=op.f("outbox_dead_letter_id_fkey")
        ),
        sa.PrimaryKeyConstraint("dead_letter_id", name=op.f("outbox_pkey")),
        schema="ingest",
    )
    op.create_index(
        "outbox_unsent_idx",
        "outbox",
        ["dead_letter_id"],
        unique=False,
        schema="ingest",
        postgresql_where=sa.text("sent_at IS NULL"),
    )


def _create_views(build: str) -> None:
    """The tables of one build."""
    op.create_table(
        "applied_dead_letters",
        sa.Column("topic_id", sa.Text(collation="C"), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "topic_id", "partition", "offset", name=op.f("applied_dead_letters_pkey")
        ),
        schema=build,
    )
    op.create_table(
        "customer_totals",
        sa.Column("customer_id", sa.Text(collation="C"), nullable=False),
        sa.Column("currency", sa.Text(collation="C"), nullable=False),
        sa.Column("order_count", sa.Integer(), nullable=False),
        sa.Column("cancelled_count", sa.Integer(), nullable=False),
        sa.Column("ordered", sa.Numeric(precision=38, scale=4), nullable=False),
        sa.Column("paid", sa.Numeric(precision=38, scale=4), nullable=False),
        sa.Column("refunded", sa.Numeric(precision=38, scale=4), nullable=False),
        sa.Column("outstanding", sa.Numeric(precision=38, scale=4), nullable=False),
        sa.PrimaryKeyConstraint("customer_id", "currency", name=op.f("customer_totals_pkey")),
        schema=build,
        postgresql_with={"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.05"},
    )
    op.create_index(
        op.f("customer_totals_currency_customer_id_idx"),
        "customer_totals",
        ["currency", "customer_id"],
        unique=False,
        schema=build,
    )
    op.create_table(
        "daily_sales",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("currency", sa.Text(collation="C"), nullable=False),
        sa.Column("order_count", sa.Integer(), nullable=False),
        sa.Column("cancelled_count", sa.Integer(), nullable=False),
        sa.Column("ordered", sa.Numeric(precision=38, scale=4), nullable=False),
        sa.Column("paid", sa.Numeric(precision=38, scale=4), nullable=False),
        sa.Column("refunded", sa.Numeric(precision=38, scale=4), nullable=False),
        sa.Column("outstanding", sa.Numeric(precision=38, scale=4), nullable=False),
        sa.PrimaryKeyConstraint("day", "currency", name=op.f("daily_sales_pkey")),
        schema=build,
        postgresql_with={"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.05"},
    )
    op.create_index(
        op.f("daily_sales_currency_day_idx"),
        "daily_sales",
        ["currency", "day"],
        unique=False,
        schema=build,
    )
    op.create_table(
        "orders",
        sa.Column("order_id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(collation="C"), nullable=True),
        sa.Column("customer_id", sa.Text(collation="C"), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("amount", sa.Numeric(precision=18, scale=4), nullable=True),
        sa.Column("discount", sa.Numeric(precision=18, scale=4), nullable=True),
        sa.Column("items", sa.JSON(), nullable=True),
        sa.Column("placed_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column(
            "paid",
            sa.Numeric(precision=38, scale=4),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column(
            "refunded",
            sa.Numeric(precision=38, scale=4),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column(
            "outstanding",
            sa.Numeric(precision=38, scale=4),
            sa.Computed(
                "CASE WHEN status = 'CANCELLED' THEN 0 ELSE amount - coalesce(discount, 0) END"
                " - paid + refunded",
                persisted=True,
            ),
            nullable=True,
        ),
        sa.Column("payment_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "mismatched_payment_count",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column("visible", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("source_topic", sa.Text(), nullable=True),
        sa.Column("source_partition", sa.Integer(), nullable=True),
        sa.Column("source_offset", sa.BigInteger(), nullable=True),
        sa.Column("source_schema_id", sa.Integer(), nullable=True),
        sa.Column("source_recorded_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("order_id", name=op.f("orders_pkey")),
        schema=build,
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(
        op.f("orders_customer_id_order_id_idx"),
        "orders",
        ["customer_id", "order_id"],
        unique=False,
        schema=build,
        postgresql_where=sa.text("visible"),
    )
    op.create_index(
        op.f("orders_placed_at_order_id_idx"),
        "orders",
        ["placed_at", "order_id"],
        unique=False,
        schema=build,
        postgresql_where=sa.text("visible"),
    )
    op.create_index(
        op.f("orders_status_order_id_idx"),
        "orders",
        ["status", "order_id"],
        unique=False,
        schema=build,
        postgresql_where=sa.text("visible"),
    )
    op.create_table(
        "payments",
        sa.Column("order_id", sa.Text(collation="C"), nullable=False),
        sa.Column("payment_id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(collation="C"), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.Column("refunded_amount", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("source_topic", sa.Text(), nullable=True),
        sa.Column("source_partition", sa.Integer(), nullable=True),
        sa.Column("source_offset", sa.BigInteger(), nullable=True),
        sa.Column("source_schema_id", sa.Integer(), nullable=True),
        sa.Column("source_recorded_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("order_id", "payment_id", name=op.f("payments_pkey")),
        schema=build,
    )
    op.create_index(
        op.f("payments_occurred_at_order_id_payment_id_idx"),
        "payments",
        ["occurred_at", "order_id", "payment_id"],
        unique=False,
        schema=build,
    )
    op.create_index(
        op.f("payments_status_order_id_payment_id_idx"),
        "payments",
        ["status", "order_id", "payment_id"],
        unique=False,
        schema=build,
    )
    op.create_table(
        "positions",
        sa.Column("topic", sa.Text(collation="C"), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("next_offset", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("end_offset", sa.BigInteger(), nullable=True),
        sa.Column("observed_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("cluster_id", sa.Text(), nullable=True),
        sa.Column("topic_id", sa.Text(), nullable=True),
        sa.Column("leader_epoch", sa.Integer(), nullable=True),
        sa.Column("owner_epoch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("last_event_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("complete_as_of", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("stopped_reason", sa.Text(), nullable=True),
        sa.Column("applied", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("superseded", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("duplicates", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tombstones", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("dead", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", name=op.f("positions_pkey")),
        schema=build,
        postgresql_with={"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.05"},
    )
    op.create_table(
        "tombstones",
        sa.Column("topic", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("topic", "key", "partition", name=op.f("tombstones_pkey")),
        schema=build,
    )
