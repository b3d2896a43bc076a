"""The worker's settings: read once at start, from the environment and `.env`, all errors at once.

`VIEWKEEPER_KAFKA_<OPTION>` passes any option to the Kafka client: `VIEWKEEPER_KAFKA_SASL_USERNAME`
becomes `sasl.username`. Options that the exactly-once commit rests on can't be overridden.
"""

from pathlib import Path
from typing import Annotated

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingest import failpoints
from ingest.options import FIXED_OPTIONS, OWN_OPTIONS, PROMPT_OPTIONS, KafkaOptions


def _postgresql(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql://")
    if not _is_address(url.get_secret_value()):
        raise ValueError(
            "is not an address: postgresql://user:password@host:port/name, with special "
            "characters of the password percent-encoded"
        )
    return url


def _is_address(url: str) -> bool:
    """Whether each part is what it should be: else libpq's words may hold a piece of the password,
    which an unencoded `@`, `/` or `%` breaks off."""
    try:
        parts = conninfo_to_dict(url)
    except ProgrammingError:
        return False
    ports = str(parts.get("port", "")).split(",")
    return all(not port or port.isdecimal() for port in ports) and not any(
        "@" in str(parts.get(name, "")) for name in ("host", "dbname")
    )


PostgresUrl = Annotated[SecretStr, AfterValidator(_postgresql)]


class IngestSettings(BaseSettings):
    """Everything the worker can be told. Names are those of the environment, without the prefix."""

    model_config = SettingsConfigDict(env_prefix="VIEWKEEPER_", env_file=".env", extra="ignore")

    database_url: PostgresUrl = Field(
        description="The owner's login: postgresql://user:password@host:port/name"
    )
    kafka_bootstrap_servers: str = Field(min_length=1, description="host:port, comma separated")
    kafka_options: KafkaOptions
    schema_registry_url: str = Field(pattern="^https?://", description="Base of the registry's API")
    schema_registry_user: str | None = None
    schema_registry_password: SecretStr | None = None
    group_id: str = Field("viewkeeper", min_length=1, description="Kafka consumer group")
    group_instance_id: str | None = Field(None, description="Static membership of this worker")
    ops_host: str = "127.0.0.1"
    ops_port: int = Field(9464, ge=0, le=65535, description="Health and metrics; 0: any free port")
    batch_rows: int = Field(20_000, ge=1, le=200_000, description="Most records in a transaction")
    batch_bytes: int = Field(16_000_000, ge=1_000, description="Most bytes in a transaction")
    batch_ms: int = Field(200, ge=0, description="How long a batch may wait to fill in a backlog")
    create_dead_letter_topics: bool = Field(
        default=True, description="Create <topic>.dlq where it is missing"
    )
    allow_unsafe_database: bool = Field(
        default=False, description="Accept a database that can lose commits that it acknowledged"
    )
    failpoints_file: Path | None = Field(None, description="Where faults on purpose are noted")
    failpoints: str = Field(
        "", description="Faults on purpose, for tests of recovery: point:action:passing,..."
    )

    @field_validator("failpoints")
    @classmethod
    def _known_failpoints(cls, asked: str, info: ValidationInfo) -> str:
        if failpoints.parse(asked) and info.data.get("failpoints_file") is None:
            raise ValueError("needs VIEWKEEPER_FAILPOINTS_FILE, to note what happened")
        return asked

    def consumer_options(self) -> dict[str, str]:
        """The options of the Kafka consumer: what was passed through, then what is fixed."""
        options = {
            "bootstrap.servers": self.kafka_bootstrap_servers,
            "group.id": self.group_id,
            **OWN_OPTIONS,
            **PROMPT_OPTIONS,
            **self.kafka_options,
            **FIXED_OPTIONS,
        }
        if self.group_instance_id:
            options["group.instance.id"] = self.group_instance_id
        return options

    def admin_options(self) -> dict[str, str]:
        """The options of the Kafka admin client: bootstrap and what was passed through."""
        consumer_only = ("fetch.", "max.poll.", "session.timeout", "heartbeat.", "queued.")
        passed = {k: v for k, v in self.kafka_options.items() if not k.startswith(consumer_only)}
        return {
            "bootstrap.servers": self.kafka_bootstrap_servers,
            **PROMPT_OPTIONS,
            **passed,
        }
