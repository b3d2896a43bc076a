"""Decisions: what operators accept about a partition, and dead letters whose bytes were removed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what may be null, so that workers of the version before go on."""
    op.add_column(
        "dead_letters", sa.Column("purged_at", sa.TIMESTAMP(timezone=True)), schema="ingest"
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("build", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("from_offset", sa.BigInteger(), nullable=False),
        sa.Column("to_offset", sa.BigInteger(), nullable=False),
        sa.Column(
            "decided_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("decisions_pkey")),
        schema="ingest",
    )
    for build in op.builds():
        op.add_column("positions", sa.Column("loss_accepted_until", sa.BigInteger()), schema=build)


def downgrade() -> None:
    """Take it back; what was decided is forgotten."""
    for build in op.builds():
        op.drop_column("positions", "loss_accepted_until", schema=build)
    op.drop_table("decisions", schema="ingest")
    op.drop_column("dead_letters", "purged_at", schema="ingest")
