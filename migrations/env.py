"""Alembic's entry: one run is one transaction, on every build.

Stands apart because alembic executes this file by itself, for every command. See README.md here.
"""

from logging.config import fileConfig
from typing import Any

from alembic import context
from alembic.util import CommandError
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from migrations.around import drop_people_views, drop_policies, follow_catalogue
from migrations.builds import FIRST_BUILD, builds_of, live_build, models, write_for_all_builds
from migrations.turn import hold_writers, in_sentences, wait_for_turn

VERSIONS = "public.alembic_version"
CONNECT_TIMEOUT_S = 10


class Settings(BaseSettings):
    """Which database to migrate, as its owner."""

    model_config = SettingsConfigDict(env_prefix="VIEWKEEPER_", env_file=".env", extra="ignore")

    database_url: SecretStr


def address() -> dict[str, Any]:
    """What to connect to: by `config.attributes` of a caller in Python, else by the settings.

    Read by the driver and not by SQLAlchemy, which knows no address of several hosts.
    """
    given = context.config.attributes.get("database_url")
    try:
        url = given or Settings.model_validate({}).database_url.get_secret_value()
    except ValidationError:
        raise CommandError(
            "VIEWKEEPER_DATABASE_URL is not set: the owner's address, postgresql://…"
        ) from None
    if "://" not in url:
        raise CommandError("VIEWKEEPER_DATABASE_URL is not an address: postgresql://…")
    if not url.startswith(("postgresql://", "postgres://")):
        raise CommandError("VIEWKEEPER_DATABASE_URL must begin with postgresql://")
    try:
        return conninfo_to_dict(url)
    except ProgrammingError:  # its words can hold a piece of the password
        raise CommandError("VIEWKEEPER_DATABASE_URL is not an address: postgresql://…") from None


def seconds(name: str, default: float) -> float:
    """A waiting time from `-x name=seconds`, or from `config.attributes` of a caller in Python."""
    preset = context.config.attributes.get(name, default)
    given = context.get_x_argument(as_dictionary=True).get(name, preset)
    try:
        return float(given)
    except ValueError:
        raise CommandError(f"-x {name}={given}: a number of seconds is expected") from None


def main() -> None:
    """Migrate, or only look (`current`, `check`, `revision --autogenerate`)."""
    if context.config.cmd_opts is not None and context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    if context.is_offline_mode():
        raise CommandError("no SQL without a database: only it knows which builds exist")
    arguments = {"application_name": "viewkeeper migrate", "connect_timeout": CONNECT_TIMEOUT_S}
    engine = create_engine(
        "postgresql+psycopg://", poolclass=NullPool, connect_args=address() | arguments
    )
    with connected(engine) as connection, connection.begin():
        if moves():
            migrate(connection)
        else:
            configure(connection)
            context.run_migrations()


def connected(engine: Engine) -> Connection:
    """A connection; CommandError: the database is not reached, or does not let us in."""
    try:
        return engine.connect()
    except OperationalError as error:
        raise CommandError(f"the database of VIEWKEEPER_DATABASE_URL: {error.orig}") from error


def moves() -> bool:
    """Whether the command goes to another version."""
    try:
        context.get_revision_argument()
    except KeyError:
        return False
    return True


def migrate(connection: Connection) -> None:
    """Run the versions and what goes around them, with every writer of the builds kept out."""
    lock_timeout_s = seconds("lock_timeout_s", 5)
    wait_for_turn(connection, wait_s=seconds("wait_s", 60))
    with in_sentences(lock_timeout_s=lock_timeout_s):
        hold_writers(connection, builds_of(connection), lock_timeout_s=lock_timeout_s)
        configure(connection)
        grants = []
        if versions_to_run():
            grants = drop_people_views(connection)
            drop_policies(connection)
        context.run_migrations()
        follow_catalogue(connection, grants)
        forget_history_of_nothing(connection)


def versions_to_run() -> bool:
    """Whether the database is at another version than the one asked for."""
    asked = context.get_revision_argument()
    wanted = {asked} if isinstance(asked, str) else set(asked or ())
    return set(context.get_context().get_current_heads()) != wanted


def configure(connection: Connection) -> None:
    """What alembic compares, and how it writes versions."""
    build = live_build(connection) or FIRST_BUILD
    context.configure(
        connection=connection,
        target_metadata=models(build),
        version_table_schema="public",
        include_schemas=True,
        include_name=lambda name, kind, _: kind != "schema" or name in ("ingest", build),
        compare_type=True,
        compare_server_default=True,
        process_revision_directives=write_for_all_builds,
    )


def forget_history_of_nothing(connection: Connection) -> None:
    """After a downgrade to nothing, alembic's own table goes too."""
    if not connection.scalar(text(f"SELECT count(*) FROM {VERSIONS}")):
        connection.execute(text(f"DROP TABLE {VERSIONS}"))


main()
