"""Writing a version: `alembic revision --autogenerate` in a checkout that has new tables."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.databases import REPOSITORY, Database, migrate
from tests.integration.migrations.builds import add_build
from tests.integration.migrations.catalog import describe, query

NEW_VIEWS = '''
"""Two more views: an aggregate over orders, and one of a stream of its own."""

from sqlalchemy import BigInteger, Column, Computed, Index, Integer, Table, Text, select, text

from views import orders
from views.model import BUILD, HOT, Aggregate, Key, MoneySum, Stream, StreamView, source_columns

TOTALS = Table(
    "status_totals",
    BUILD,
    Column("status", Key, primary_key=True),
    Column("currency", Key, primary_key=True),
    Column("order_count", Integer, nullable=False),
    Column("paid", MoneySum, nullable=False),
    Index(None, "currency", "status"),
    postgresql_with=HOT,
)


def _contributions(order):
    count = (order.c.version - order.c.version + 1).cast(Integer).label("order_count")
    return select(order.c.status, order.c.currency, count, order.c.paid).where(order.c.visible)


STATUS_TOTALS = Aggregate(
    table=TOTALS, source=orders.VIEW, members="order_count", contributions=_contributions
)

orders.TABLE.append_column(Column("channel", Key, nullable=False, server_default="shop"))
Index(None, orders.TABLE.c.channel, orders.TABLE.c.order_id, postgresql_where=text("visible"))

STREAM = Stream(topic="parcels", contract="parcels.avsc", key_field="parcel_id")
PARCELS = StreamView(
    table=Table(
        "parcels",
        BUILD,
        Column("parcel_id", Key, primary_key=True),
        Column("version", BigInteger, nullable=False, server_default=text("0")),
        Column("grams", BigInteger),
        Column("kilos", BigInteger, Computed("grams / 1000", persisted=True)),
        Column("note", Text, server_default="none"),
        *source_columns(),
        Index(None, "kilos", "parcel_id", postgresql_where=text("grams > 0")),
        postgresql_with={"fillfactor": "80"},
    ),
    stream=STREAM,
)
'''


class Checkout:
    """A copy of what alembic needs of the checkout, to be edited."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        self._dsn = dsn
        for name in ("views", "migrations"):
            shutil.copytree(REPOSITORY / name, folder / name)
        for name in ("alembic.ini", "pyproject.toml"):
            shutil.copy(REPOSITORY / name, folder / name)

    def add_views(self) -> None:
        """Declare the new views and put them into the catalogue."""
        (self.folder / "views" / "more.py").write_text(NEW_VIEWS.lstrip())
        for name in ("parcels", "status_totals"):
            line = f"from views.more import {name.upper()} as VIEW\n"
            (self.folder / "views" / f"{name}.py").write_text(line)
        catalogue = self.folder / "views" / "__init__.py"
        lines = catalogue.read_text()
        lines = lines.replace("CONTENTS = (", 'CONTENTS = (\n    "parcels",\n    "status_totals",')
        catalogue.write_text(lines)

    def alembic(self, *arguments: str) -> str:
        """Alembic's command line in the copy, and what it printed."""
        return self._run("alembic", *arguments)

    def version(self, name: str) -> Path:
        """The file of a version that was written here, whatever number it got."""
        (found,) = (self.folder / "migrations/versions").glob(f"*_{name}.py")
        return found

    def ruff(self, *arguments: str) -> None:
        """Ruff on the versions, as `make check` runs it."""
        self._run("ruff", *arguments, "migrations/versions")

    def _run(self, program: str, *arguments: str) -> str:
        run = subprocess.run(
            [sys.executable, "-m", program, *arguments],
            cwd=self.folder,
            env={**os.environ, "VIEWKEEPER_DATABASE_URL": self._dsn},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout + run.stderr


@pytest.fixture
def checkout(tmp_path: Path, database: Database) -> Checkout:
    """A checkout whose database holds two builds, the second one live, with orders in both."""
    for build in (1, 2):
        if build == 2:
            add_build(database.dsn, 2)
        query(
            database.dsn,
            f"INSERT INTO build_{build}.orders (order_id, version, status, currency, visible) "
            "SELECT 'o' || n, 1, 'PLACED', 'EUR', n > 3 FROM generate_series(1, 10) n",
        )
        query(
            database.dsn,
            f"INSERT INTO build_{build}.positions (topic, partition, next_offset) "
            "VALUES ('orders', 0, 10)",
        )
    query(
        database.dsn,
        "INSERT INTO ingest.build_views (number, view) SELECT 2, view FROM ingest.build_views",
    )
    query(database.dsn, "UPDATE ingest.builds SET state = 'previous'")
    query(database.dsn, "UPDATE ingest.builds SET state = 'live' WHERE number = 2")
    migrate(database.dsn)
    copy = Checkout(tmp_path, database.dsn)
    copy.add_views()
    return copy


def test_a_written_version_is_clean_and_applies_to_every_build_and_back(
    checkout: Checkout, database: Database
) -> None:
    before = [describe(database.dsn, build) for build in ("build_1", "build_2", "views")]
    checkout.alembic("revision", "--autogenerate", "-m", "add parcels and status totals")
    written = checkout.version("add_parcels_and_status_totals").read_text()
    assert "for build in op.builds():" in written
    assert "build_" not in written.replace("build_views", "")
    assert "schema=build," in written
    checkout.ruff("check")
    checkout.ruff("format", "--check")
    checkout.alembic("upgrade", "head")
    assert "No new upgrade operations detected" in checkout.alembic("check")
    first, second = (describe(database.dsn, build) for build in ("build_1", "build_2"))
    assert first == second
    assert first == _declared(checkout, database)
    for build in ("build_1", "build_2"):
        rows = query(
            database.dsn, f"SELECT status, currency, order_count FROM {build}.status_totals"
        )
        assert rows == [("PLACED", "EUR", 7)]
    assert query(database.dsn, "SELECT DISTINCT channel FROM views.orders") == [("shop",)]
    checkout.alembic("downgrade", "-1")
    assert [describe(database.dsn, build) for build in ("build_1", "build_2", "views")] == before
    assert query(database.dsn, "SELECT count(*) FROM ingest.build_views") == [(8,)]


def test_an_empty_version_can_be_written_by_hand(checkout: Checkout) -> None:
    checkout.alembic("revision", "-m", "Something by hand")
    text = checkout.version("something_by_hand").read_text()
    assert text.startswith('"""Something by hand."""')


def _declared(checkout: Checkout, database: Database) -> list[str]:
    """A build made from the declarations of the copy."""
    program = (
        "from views.ddl import *; from views import CATALOGUE\n"
        "b = 'build_3'\n"
        "names = [view.name for view in CATALOGUE.views]\n"
        "steps = [*create_schema(b), *create_tables(b), *create_indexes(b)]\n"
        "print(';\\n'.join([*steps, *grant_reading(b, names)]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=checkout.folder, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    query(database.dsn, run.stdout)
    return describe(database.dsn, "build_3")
