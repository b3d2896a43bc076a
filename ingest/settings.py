"""The worker's settings: read once at start, from the environment and `.env`, all errors at once.

`VIEWKEEPER_KAFKA_<OPTION>` passes any option to the Kafka client: `VIEWKEEPER_KAFKA_SASL_USERNAME`
becomes `sasl.username`. Options that the exactly-once commit rests on can't be overridden.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingest import failpoints

_KAFKA_PREFIX = "VIEWKEEPER_KAFKA_"
_OWN_KAFKA_NAMES = {"VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS"}
FIXED_KAFKA_OPTIONS = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "partition.assignment.strategy": "cooperative-sticky",
}
"""What the exactly-once commit rests on (docs/architecture.md)."""
_OWN_KAFKA_OPTIONS = {"max.partition.fetch.bytes": "131072", "queued.max.messages.kbytes": "16384"}
"""Little of each partition at a time, so that a batch from a backlog holds an order's events and
its payments, and not one topic after the other; and a bound on what is fetched ahead. Can be
overridden, for brokers that are far away."""
_PROMPT_KAFKA_OPTIONS = {"metadata.recovery.rebootstrap.trigger.ms": "10000"}
"""Brokers that name no live one for a moment, as a frozen one does when it wakes, leave librdkafka
with nobody to ask until it begins anew with the bootstrap servers: after 5 minutes, unless told."""


def _postgresql(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql://")
    try:
        conninfo_to_dict(url.get_secret_value())
    except ProgrammingError:  # its words can hold a piece of the password
        raise ValueError(
            "is not an address: postgresql://user:password@host:port/name, with special "
            "characters of the password percent-encoded"
        ) from None
    return url


PostgresUrl = Annotated[SecretStr, AfterValidator(_postgresql)]


def kafka_options(environment: Mapping[str, str]) -> dict[str, str]:
    """The client options that `VIEWKEEPER_KAFKA_<OPTION>` variables set, by their Kafka names."""
    return {
        name.removeprefix(_KAFKA_PREFIX).lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith(_KAFKA_PREFIX) and name not in _OWN_KAFKA_NAMES
    }


class IngestSettings(BaseSettings):
    """Everything the worker can be told. Names are those of the environment, without the prefix."""

    model_config = SettingsConfigDict(env_prefix="VIEWKEEPER_", env_file=".env", extra="ignore")

    database_url: PostgresUrl = Field(
        description="The owner's login: postgresql://user:password@host:port/name"
    )
    kafka_bootstrap_servers: str = Field(min_length=1, description="host:port, comma separated")
    kafka_options: dict[str, str] = Field(default_factory=lambda: kafka_options(os.environ))
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

    @model_validator(mode="before")
    @classmethod
    def _leave_fixed_options(cls, values: Any) -> Any:
        wrong = sorted(set(kafka_options(os.environ)) & set(FIXED_KAFKA_OPTIONS))
        if wrong:
            raise ValueError(
                f"Kafka options {', '.join(wrong)} are fixed: the exactly-once commit rests on them"
            )
        return values

    def consumer_options(self) -> dict[str, str]:
        """The options of the Kafka consumer: what was passed through, then what is fixed."""
        options = {
            "bootstrap.servers": self.kafka_bootstrap_servers,
            "group.id": self.group_id,
            **_OWN_KAFKA_OPTIONS,
            **_PROMPT_KAFKA_OPTIONS,
            **self.kafka_options,
            **FIXED_KAFKA_OPTIONS,
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
            **_PROMPT_KAFKA_OPTIONS,
            **passed,
        }
