"""The API's settings: read once at start, from the environment and `.env`, all errors at once.

A rule about several settings is checked at the last of them, so that it is told beside whatever
else is wrong: a rule about the whole is only asked where each part is right.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    AfterValidator,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.auth import MIN_SECRET_BYTES, TokenRules
from api.budgets import Budgets
from api.limits import Limits
from api.login import Strength
from api.persisted import Persisted, manifest
from api.places import Places

_BURST_S = 10


def _postgresql(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql://")
    if not _is_address(url.get_secret_value()):
        raise ValueError(
            "is not an address: postgresql://user:password@host:port/name, with special "
            "characters of the password percent-encoded"
        )
    return url


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _is_address(url: str) -> bool:
    """Whether each part is what it should be: else libpq's words may hold a piece of the password,
    which an unencoded `@`, `/` or `%` breaks off. The worker checks its own alike."""
    try:
        parts = conninfo_to_dict(url)
    except ProgrammingError:
        return False
    ports = str(parts.get("port", "")).split(",")
    return all(not port or port.isdecimal() for port in ports) and not any(
        "@" in str(parts.get(name, "")) for name in ("host", "dbname")
    )


_WRONG = object()
"""Stands for a setting that was given and can't be used: it is told by itself."""

Database = Annotated[SecretStr, AfterValidator(_postgresql)]


class ApiSettings(BaseSettings):
    """Everything the API can be told. Names are those of the environment, without the prefix."""

    model_config = SettingsConfigDict(
        env_prefix="VIEWKEEPER_", env_file=".env", extra="ignore", hide_input_in_errors=True
    )

    mode: Literal["production", "dev", "demo"] = Field(
        "production", description="What defaults are for: dev and demo are more open"
    )
    database_url: Database | None = Field(
        None, description="The owner's login; read with only in dev and demo, with a warning"
    )
    api_database_url: Database | None = Field(
        None,
        validate_default=True,
        description="A login that can only read: postgresql://user:password@host:port/name",
    )
    notify_database_url: Database | None = Field(
        None, description="Where to LISTEN: past a transaction pooler, or a standby's primary"
    )
    api_pooler: Literal["transaction"] | None = Field(
        None, description="What pools API_DATABASE_URL's connections: `transaction`, if anything"
    )
    api_host: str = "127.0.0.1"
    api_port: int = Field(8000, ge=0, le=65535)
    api_connections: int = Field(10, ge=1, le=1000, description="Connections to the database")
    api_acquire_timeout_s: float = Field(
        1.0, gt=0, le=60, description="How long an operation waits for a connection"
    )
    api_statement_timeout_s: float = Field(
        5.0, gt=0, le=600, description="How long one statement may take"
    )
    api_drain_s: float = Field(
        1.0, ge=0, le=60, description="From not ready to good-bye, for whoever balances load"
    )
    api_page_default: int = Field(20, ge=1, description="Rows of a page when nobody says")
    api_page_most: int = Field(
        100, ge=1, validate_default=True, description="Rows of a page at most"
    )
    api_count_cap: int = Field(10_000, ge=0, description="Where totalCount stops counting")
    api_max_document_bytes: int = Field(10_000, ge=1, description="Size of a GraphQL document")
    api_max_tokens: int = Field(2_000, ge=1, le=20_000, description="Tokens of a document")
    api_max_body_bytes: int = Field(100_000, ge=1, description="Size of a request's body")
    api_max_depth: int = Field(10, ge=1, le=50, description="Fields inside fields")
    api_max_aliases: int = Field(30, ge=0, description="Aliases, fragments put in place")
    api_max_root_fields: int = Field(20, ge=1, description="Fields at the root")
    api_max_directives: int = Field(50, ge=0, description="Directives, fragments put in place")
    api_max_cost: int = Field(50_000, ge=1, description="Rows times fields of an operation")
    api_max_result_bytes: int = Field(10_000_000, ge=1, description="Size of an answer")
    api_compress_bytes: int = Field(
        2_000, ge=0, description="Answers of that size are compressed for who accepts it; 0: none"
    )
    api_max_streams: int = Field(
        5_000, ge=1, description="WebSockets and event streams of a process"
    )
    api_max_streams_per_address: int = Field(
        2_000, ge=1, description="WebSockets and event streams of one address, of a process"
    )
    api_rate_cost_per_s: int = Field(
        0, ge=0, description="Cost that a caller may ask for each second, of a process; 0: any"
    )
    api_rate_burst: int | None = Field(
        None, ge=1, description="Cost that a caller may ask for at once; default: 10 seconds' worth"
    )
    api_trusted_proxies: list[IPvAnyNetwork] = Field(
        [], description='Peers whose X-Forwarded-* headers are believed, as JSON: ["10.0.0.0/8"]'
    )
    api_jwt_secret: SecretStr | None = Field(
        None, description="Callers need a token signed with it, HS256; at least 32 bytes"
    )
    api_jwks_url: str | None = Field(
        None,
        validate_default=True,
        description="Callers need a token signed with a key from there, RS256",
    )
    api_jwt_audience: str | None = Field(
        None, validate_default=True, description="`aud` of good tokens"
    )
    api_jwt_issuer: str | None = Field(
        None, validate_default=True, description="`iss` of good tokens"
    )
    api_jwt_leeway_s: int = Field(10, ge=0, le=300, description="How wrong clocks may go")
    api_jwt_role_claim: str = Field("role", description="The claim: operator or customer")
    api_jwt_customer_claim: str = Field("customer_id", description="The claim: which customer")
    api_origins: list[str] = Field(
        [], description='Origins of browsers that may ask, as JSON: ["https://shop.example"]'
    )
    api_get_needs_preflight: bool = Field(
        default=True,
        description="Whether a GET must carry a header that no plain link or form can send",
    )
    api_trusted_documents: Path | None = Field(
        None, description="Manifest of documents that clients may name: JSON of ids and documents"
    )
    api_only_trusted_documents: bool = Field(
        default=False,
        validate_default=True,
        description="Whether documents that the manifest lacks are refused",
    )
    api_log_requests: bool = Field(
        default=True,
        description="Whether every request is logged; without, only those that were not answered",
    )
    api_slow_operation_ms: int = Field(
        500, ge=0, description="From when on an operation is logged as slow; 0: none is"
    )
    api_traces: bool = Field(
        default=False,
        description="Whether spans are sent, as OpenTelemetry's OTEL_… variables say",
    )
    api_introspection: bool | None = Field(None, description="Default: only in dev and demo")
    api_ide: bool | None = Field(None, description="GraphiQL at /graphql; default: only in demo")

    @field_validator("api_database_url")
    @classmethod
    def _has_a_database(cls, url: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        given = info.data
        if url is None and (
            given.get("mode") == "production" or given.get("database_url", _WRONG) is None
        ):
            raise ValueError("VIEWKEEPER_API_DATABASE_URL is missing: a login that can only read")
        return url

    @field_validator("api_pooler")
    @classmethod
    def _knows_where_to_listen(cls, pooler: str | None, info: ValidationInfo) -> str | None:
        if pooler is not None and info.data.get("notify_database_url", _WRONG) is None:
            raise ValueError(
                "VIEWKEEPER_NOTIFY_DATABASE_URL is missing: nobody can LISTEN through a pooler"
            )
        return pooler

    @field_validator("api_page_most")
    @classmethod
    def _holds_a_page(cls, most: int, info: ValidationInfo) -> int:
        if info.data.get("api_page_default", 0) > most:
            raise ValueError("VIEWKEEPER_API_PAGE_DEFAULT is above VIEWKEEPER_API_PAGE_MOST")
        return most

    @field_validator("api_jwt_secret")
    @classmethod
    def _is_long_enough(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret and len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"VIEWKEEPER_API_JWT_SECRET: at least {MIN_SECRET_BYTES} bytes")
        return secret

    @field_validator("api_jwks_url")
    @classmethod
    def _only_one_way_to_sign(cls, url: str | None, info: ValidationInfo) -> str | None:
        secret = info.data.get("api_jwt_secret", _WRONG)
        if url is not None and secret is not None:
            raise ValueError("VIEWKEEPER_API_JWT_SECRET and _API_JWKS_URL: give one of them")
        signed = url is not None or secret is not None
        if signed and info.data.get("api_database_url", _WRONG) is None:
            raise ValueError(
                "VIEWKEEPER_API_DATABASE_URL is missing: the owner's login sees every row"
            )
        return url

    @field_validator("api_jwt_audience", "api_jwt_issuer")
    @classmethod
    def _is_known_where_tokens_are(cls, name: str | None, info: ValidationInfo) -> str | None:
        ways = ("api_jwt_secret", "api_jwks_url")
        if not name and any(info.data.get(way, _WRONG) is not None for way in ways):
            raise ValueError(
                f"VIEWKEEPER_{str(info.field_name).upper()} is missing: it tells good tokens"
            )
        return name

    @field_validator("api_trusted_documents")
    @classmethod
    def _can_be_read(cls, path: Path | None) -> Path | None:
        if path is not None:
            manifest(path)
        return path

    @field_validator("api_only_trusted_documents")
    @classmethod
    def _knows_which_are_trusted(cls, only: bool, info: ValidationInfo) -> bool:  # noqa: FBT001
        if only and info.data.get("api_trusted_documents", _WRONG) is None:
            raise ValueError(
                "VIEWKEEPER_API_TRUSTED_DOCUMENTS is missing: the manifest of what may be run"
            )
        return only

    @field_validator("api_traces")
    @classmethod
    def _can_trace(cls, traces: bool) -> bool:  # noqa: FBT001
        if traces and not _is_installed("opentelemetry.exporter.otlp.proto.http"):
            raise ValueError(
                "VIEWKEEPER_API_TRACES needs OpenTelemetry: pip install 'viewkeeper[otel]'"
            )
        return traces

    @property
    def trusted_documents(self) -> dict[str, str] | None:
        """The documents of the manifest by id; None: there is no manifest."""
        path = self.api_trusted_documents
        return None if path is None else manifest(path)

    @property
    def persisted(self) -> Persisted:
        """The documents that clients may name instead of sending."""
        return Persisted(
            self.trusted_documents,
            only_trusted=self.api_only_trusted_documents,
            most_bytes=self.api_max_document_bytes,
        )

    @property
    def token_rules(self) -> TokenRules | None:
        """Which tokens let callers in; None: everybody is let in, and sees everything."""
        if self.api_jwt_secret is None and self.api_jwks_url is None:
            return None
        return TokenRules(
            audience=self.api_jwt_audience or "",
            issuer=self.api_jwt_issuer or "",
            secret=self.api_jwt_secret.get_secret_value() if self.api_jwt_secret else None,
            jwks_url=self.api_jwks_url,
            leeway_s=self.api_jwt_leeway_s,
            role_claim=self.api_jwt_role_claim,
            customer_claim=self.api_jwt_customer_claim,
        )

    @property
    def strong_login(self) -> Strength:
        """What becomes of a login that row-level security does not bind."""
        if self.token_rules is None:
            return "allowed"
        return "refused" if self.mode == "production" else "told"

    @property
    def reads_as_owner(self) -> bool:
        """Whether there is no login of the API's own, so that the owner's is used."""
        return self.api_database_url is None

    @property
    def dsn(self) -> str:
        """Where the API reads."""
        url = self.api_database_url or self.database_url
        return url.get_secret_value() if url else ""

    @property
    def notify_dsn(self) -> str:
        """Where the API listens."""
        url = self.notify_database_url
        return url.get_secret_value() if url else self.dsn

    @property
    def limits(self) -> Limits:
        """What an operation may ask for."""
        return Limits(
            document_bytes=self.api_max_document_bytes,
            tokens=self.api_max_tokens,
            body_bytes=self.api_max_body_bytes,
            depth=self.api_max_depth,
            aliases=self.api_max_aliases,
            root_fields=self.api_max_root_fields,
            directives=self.api_max_directives,
            cost=self.api_max_cost,
            result_bytes=self.api_max_result_bytes,
        )

    @property
    def places(self) -> Places:
        """How many sockets and streams may be open."""
        return Places(most=self.api_max_streams, most_per_address=self.api_max_streams_per_address)

    @property
    def budgets(self) -> Budgets:
        """How much a caller may ask for in a time."""
        burst = self.api_rate_burst or self.api_rate_cost_per_s * _BURST_S
        return Budgets(cost_per_s=self.api_rate_cost_per_s, burst=burst)

    @property
    def introspection(self) -> bool:
        """Whether clients may ask for the schema by query."""
        return (
            self.mode != "production"
            if self.api_introspection is None
            else bool(self.api_introspection)
        )

    @property
    def ide(self) -> bool:
        """Whether a browser finds an IDE at /graphql."""
        return self.mode == "demo" if self.api_ide is None else self.api_ide
