"""The settings of the commands that need less than the worker does.

Stands apart from `ingest/settings.py`: asking for dead letters must not demand a registry. Names
and meanings are the worker's; each class is one server, and a command takes those it talks to.
"""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingest.options import KafkaOptions
from ingest.settings import PostgresUrl
from schemas.registry import Registry


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="VIEWKEEPER_", env_file=".env", extra="ignore")


class DatabaseSettings(_Settings):
    """The owner's login."""

    database_url: PostgresUrl

    @property
    def dsn(self) -> str:
        """The address with its password: for connecting, never for printing."""
        return self.database_url.get_secret_value()


class KafkaSettings(_Settings):
    """The brokers, and any option of the client by VIEWKEEPER_KAFKA_<OPTION>."""

    kafka_bootstrap_servers: str = Field(min_length=1)
    kafka_options: KafkaOptions

    def client_options(self) -> dict[str, str]:
        """Options of a producer or an admin client: what only consumers know is left out."""
        consumers = ("fetch.", "max.poll.", "session.timeout", "heartbeat.", "queued.", "max.part")
        passed = {n: v for n, v in self.kafka_options.items() if not n.startswith(consumers)}
        return {"bootstrap.servers": self.kafka_bootstrap_servers, **passed}


class RegistrySettings(_Settings):
    """The schema registry."""

    schema_registry_url: str = Field(pattern="^https?://")
    schema_registry_user: str | None = None
    schema_registry_password: SecretStr | None = None

    def registry(self) -> Registry:
        """A client; close it."""
        password = self.schema_registry_password
        return _client(self.schema_registry_url, self.schema_registry_user, password)


class DeadLetterSettings(DatabaseSettings):
    """What `dead-letters` asks; the registry only tells more where it is known."""

    schema_registry_url: str | None = Field(None, pattern="^https?://")
    schema_registry_user: str | None = None
    schema_registry_password: SecretStr | None = None

    def registry(self) -> Registry | None:
        """A client, or None where no registry is set; close it."""
        if self.schema_registry_url is None:
            return None
        password = self.schema_registry_password
        return _client(self.schema_registry_url, self.schema_registry_user, password)


class StatusSettings(DatabaseSettings, KafkaSettings):
    """What `status` asks."""


class ProduceSettings(KafkaSettings, RegistrySettings):
    """What `produce` talks to."""


def _client(url: str, user: str | None, password: SecretStr | None) -> Registry:
    secret = password.get_secret_value() if password else None
    return Registry(url, user=user, password=secret)
