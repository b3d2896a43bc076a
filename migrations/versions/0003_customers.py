"""Customers: a role that reads the rows of one customer. Its policies follow the catalogue."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the role, and let readers take it on: not have its rights beside their own."""
    op.execute(
        """
        DO $$ BEGIN
            CREATE ROLE viewkeeper_customer NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            RAISE NOTICE 'role viewkeeper_customer is there already';
        END $$
        """
    )
    op.execute(
        """
        DO $$ BEGIN
            IF NOT pg_has_role('viewkeeper_reader', 'viewkeeper_customer', 'MEMBER') THEN
                IF current_setting('server_version_num')::int >= 160000 THEN
                    GRANT viewkeeper_customer TO viewkeeper_reader WITH INHERIT FALSE, SET TRUE;
                ELSE
                    GRANT viewkeeper_customer TO viewkeeper_reader;
                END IF;
            END IF;
        END $$
        """
    )
    op.execute("GRANT USAGE ON SCHEMA ingest, views TO viewkeeper_customer")
    op.execute("GRANT SELECT ON ingest.builds, ingest.build_views TO viewkeeper_customer")


def downgrade() -> None:
    """Take the role's rights back, and the role unless another database uses it."""
    for build in op.builds():
        for table in ("customer_totals", "daily_sales", "orders", "payments", "positions"):
            op.execute(f"REVOKE SELECT ON {build}.{table} FROM viewkeeper_customer")
        op.execute(f"REVOKE USAGE ON SCHEMA {build} FROM viewkeeper_customer")
    op.execute("REVOKE SELECT ON ingest.builds, ingest.build_views FROM viewkeeper_customer")
    op.execute("REVOKE USAGE ON SCHEMA ingest, views FROM viewkeeper_customer")
    op.execute(
        """
        DO $$ BEGIN
            DROP ROLE viewkeeper_customer;
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
            RAISE NOTICE USING MESSAGE = 'role viewkeeper_customer stays: ' || SQLERRM;
        END $$
        """
    )
