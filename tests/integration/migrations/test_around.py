"""What a migration does around its versions, on a database that is in use."""

import psycopg
import pytest
from alembic import command
from psycopg.errors import InsufficientPrivilege

from tests.fixtures.databases import Database, alembic_config, migrate
from tests.integration.migrations.builds import add_build
from tests.integration.migrations.catalog import query
from views import CATALOGUE

ORDERS = (
    "INSERT INTO {}.orders (order_id, version, status, customer_id, currency, amount, discount, "
    "placed_at, paid, visible) SELECT 'o' || n, 1, CASE n % 3 WHEN 0 THEN 'CANCELLED' ELSE 'PLACED'"
    " END, 'c' || n % 7, CASE n % 2 WHEN 0 THEN 'EUR' ELSE 'USD' END, n, NULLIF(n % 4, 0), "
    "timestamptz '2025-01-01 23:30+00' + n * interval '1 hour', n % 5, n % 10 <> 0 "
    "FROM generate_series(1, 500) n"
)
SUMS = (
    "SELECT {key}, currency, count(*)::int, count(*) FILTER (WHERE status = 'CANCELLED')::int, "
    "sum(CASE status WHEN 'CANCELLED' THEN 0 ELSE amount - coalesce(discount, 0) END), "
    "sum(paid), sum(refunded), sum(outstanding) FROM {build}.orders WHERE visible GROUP BY 1, 2 "
    "ORDER BY 1, 2"
)
POSITION = "INSERT INTO {}.positions (topic, partition, next_offset) VALUES ('orders', 0, 500)"


def forget(dsn: str, build: str, view: str) -> None:
    """Make a view one that the build does not know yet."""
    query(
        dsn,
        "DELETE FROM ingest.build_views USING ingest.builds b "
        "WHERE b.number = build_views.number AND b.name = %s AND view = %s",
        build,
        view,
    )


def known(dsn: str, build: str) -> set[str]:
    """The views that are complete in a build."""
    rows = query(
        dsn,
        "SELECT view FROM ingest.build_views JOIN ingest.builds USING (number) WHERE name = %s",
        build,
    )
    return {view for (view,) in rows}


@pytest.fixture
def populated(database: Database) -> str:
    """Two builds with the same 500 orders, 50 of them hidden, and no aggregate known."""
    dsn = database.dsn
    add_build(dsn, 2)
    migrate(dsn)
    for build in ("build_1", "build_2"):
        query(dsn, ORDERS.format(build))
        query(dsn, POSITION.format(build))
        for view in ("customer_totals", "daily_sales"):
            forget(dsn, build, view)
    return dsn


@pytest.mark.parametrize("build", ["build_1", "build_2"])
@pytest.mark.parametrize(
    ("view", "key"),
    [("customer_totals", "customer_id"), ("daily_sales", "(placed_at AT TIME ZONE 'UTC')::date")],
)
def test_a_new_aggregate_is_filled_in_every_build(
    populated: str, build: str, view: str, key: str
) -> None:
    migrate(populated)
    expected = query(populated, SUMS.format(key=key, build=build))
    assert query(populated, f"SELECT * FROM {build}.{view} ORDER BY 1, 2") == expected
    assert len(expected) > 10
    assert view in known(populated, build)


def test_a_worker_that_does_not_know_the_new_view_is_fenced(populated: str) -> None:
    migrate(populated)
    epochs = "SELECT owner_epoch FROM {}.positions"
    assert query(populated, epochs.format("build_1")) == [(1,)]
    migrate(populated)
    assert query(populated, epochs.format("build_1")) == [(1,)]


def test_a_build_that_a_rebuild_is_filling_is_left_to_it(database: Database) -> None:
    add_build(database.dsn, 2, state="building")
    query(database.dsn, ORDERS.format("build_2"))
    migrate(database.dsn)
    assert known(database.dsn, "build_2") == set()
    assert query(database.dsn, "SELECT * FROM build_2.customer_totals") == []


def test_a_new_view_of_events_that_were_read_is_left_to_a_rebuild(
    populated: str, caplog: pytest.LogCaptureFixture
) -> None:
    forget(populated, "build_1", "orders")
    query(populated, "DROP VIEW views.orders, views.customer_totals, views.daily_sales")
    migrate(populated)
    assert known(populated, "build_1") == {"payments"}, "sums of it would be wrong as well"
    assert known(populated, "build_2") == {view.name for view in CATALOGUE.views}
    assert query(populated, "SELECT owner_epoch FROM build_1.positions") == [(0,)], "no old worker"
    people = query(populated, "SELECT viewname FROM pg_views WHERE schemaname = 'views'")
    assert people == [("payments",)], "nobody sees what is not filled"
    assert "orders is not filled in build_1" in caplog.text


def test_the_events_of_a_view_whose_table_was_dropped_count_as_not_read(populated: str) -> None:
    of_payments = (
        "INSERT INTO build_1.positions (topic, partition, next_offset, topic_id)"
        " VALUES ('payments', 0, 7, 'p')",
        "INSERT INTO build_1.tombstones VALUES ('payments', 'k', 0, 5, now())",
        "INSERT INTO build_1.applied_dead_letters VALUES ('p', 0, 3), ('o', 0, 3)",
        "DROP TABLE build_1.payments CASCADE",
    )
    for statement in of_payments:
        query(populated, statement)
    migrate(populated)
    assert query(populated, "SELECT topic, next_offset FROM build_1.positions") == [("orders", 500)]
    assert query(populated, "SELECT count(*) FROM build_1.tombstones") == [(0,)]
    assert query(populated, "SELECT topic_id FROM build_1.applied_dead_letters") == [("o",)]
    assert "payments" not in known(populated, "build_1")


def test_a_new_view_of_events_nobody_has_read_is_known_at_once(database: Database) -> None:
    forget(database.dsn, "build_1", "payments")
    query(database.dsn, POSITION.format("build_1"))
    migrate(database.dsn)
    assert known(database.dsn, "build_1") == {view.name for view in CATALOGUE.views}


def test_views_for_people_show_the_live_build_without_hidden_rows(populated: str) -> None:
    query(populated, "DELETE FROM build_2.orders")
    rows = query(populated, "SELECT order_id FROM views.orders")
    visible = query(populated, "SELECT order_id FROM build_1.orders WHERE visible")
    assert sorted(rows) == sorted(visible)
    assert len(rows) == 450
    columns = query(
        populated,
        "SELECT attname FROM pg_attribute WHERE attrelid = 'views.orders'::regclass AND attnum > 0",
    )
    assert ("visible",) not in columns


def test_views_for_people_can_be_updated_through_by_the_owner(populated: str) -> None:
    updatable = query(
        populated,
        "SELECT table_name FROM information_schema.views "
        "WHERE table_schema = 'views' AND is_updatable = 'YES' ORDER BY 1",
    )
    assert [name for (name,) in updatable] == sorted(view.name for view in CATALOGUE.views)


def test_views_for_people_ask_for_the_rights_of_whoever_reads(
    populated: str, database: Database
) -> None:
    query(populated, "REVOKE SELECT ON build_1.orders FROM viewkeeper_reader")
    with psycopg.connect(database.api_dsn) as reader, pytest.raises(InsufficientPrivilege):
        reader.execute("SELECT count(*) FROM views.orders")


def test_rights_that_somebody_gave_on_a_view_outlive_a_migration(database: Database) -> None:
    dsn = database.dsn
    query(dsn, "GRANT UPDATE ON views.orders TO viewkeeper_reader WITH GRANT OPTION")
    query(dsn, "GRANT SELECT ON views.payments TO PUBLIC")
    rights = "SELECT relname, relacl::text FROM pg_class WHERE relnamespace = 'views'::regnamespace"
    before = sorted(query(dsn, rights))
    command.stamp(alembic_config(dsn), "base")
    command.stamp(alembic_config(dsn), "head")
    assert sorted(query(dsn, rights)) == before
