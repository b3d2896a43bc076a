"""The client of the schema registry: the Confluent REST API, and nothing else of the registry.

It speaks HTTP itself (httpx) instead of through the official client, because its callers decide
what an outage means: that client tries again by itself with pauses of up to 20 s, has no timeout
unless told, caches by text and by id without saying so, and folds an answer that is not the
protocol into the same error as a refusal. Its conventions are kept: several comma-separated URLs
tried in turn, credentials in the URL or given, the usual certificate variables, the proxy
variables (never for loopback).

One call is one attempt. Threads may share a client.
"""

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import httpx
import orjson

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""More than any schema: an answer beyond it is not the protocol."""

_NO_SUBJECT, _NO_VERSION, _NO_SCHEMA, _NO_LEVEL = 40401, 40402, 40403, 40408
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class RegistryError(Exception):
    """The registry did not do what was asked. The message says what, where and why."""


class BadRegistryAddressError(ValueError):
    """The registry's URL is none, or credentials are given twice. Names no credentials."""


class RegistryUnavailableError(RegistryError):
    """No usable answer: no connection, a timeout, 5xx, 429, or not the protocol.

    Says nothing about the schema that was asked for. Try again later; when it stays, look at the
    registry, its URL (the path belongs to it: `/apis/ccompat/v7` for Apicurio) and credentials.
    """


class UnknownSchemaError(RegistryError):
    """The registry answered, in its own words, that it has no schema with that id."""


class UnknownSubjectError(RegistryError):
    """The registry has no such subject, or no such version of it."""


class IncompatibleSchemaError(RegistryError):
    """The registry refused a version: it may not follow the versions before it (409)."""


class InvalidSchemaError(RegistryError):
    """The registry cannot read the schema at all (422)."""


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A schema as the registry answers it for an id. `kind` is AVRO, JSON or PROTOBUF."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectVersion:
    """One version of a subject."""

    subject: str
    version: int
    schema_id: int
    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Registration:
    """Where a schema stands under its subject."""

    version: int
    schema_id: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a candidate may follow the newest version of its subject, and the registry's words.

    Some registries give no words here; what they say when they refuse a registration is in
    IncompatibleSchemaError.
    """

    compatible: bool
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Place:
    """One of the URLs: without credentials, so that it may be printed."""

    url: str
    auth: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: Any
    place: str

    @property
    def code(self) -> int | None:
        """The registry's own error code, where the answer is one of its errors."""
        code = self.body.get("error_code") if isinstance(self.body, dict) else None
        return code if isinstance(code, int) else None

    @property
    def message(self) -> str:
        """The registry's own sentence, or what came instead of one."""
        said = self.body.get("message") if isinstance(self.body, dict) else None
        return said if isinstance(said, str) and said else f"HTTP {self.status} without a message"


class Registry:
    """One schema registry. Close it, or use it as a context manager.

    `timeout_s` bounds the connection and each wait for bytes, and the whole answer with twice as
    much. BadRegistryAddressError: a URL is not http(s), or credentials are given twice.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        timeout_s: float = 5.0,
        ca_location: str | None = None,
        certificate_location: str | None = None,
        key_location: str | None = None,
    ) -> None:
        self._places = _places(url, user, password)
        self._timeout_s = timeout_s
        # To read the certificates of the machine takes 50 ms, at each start of a command.
        speaks_tls = any(place.url.startswith("https:") for place in self._places)
        self._http = httpx.Client(
            verify=_tls(ca_location, certificate_location, key_location) if speaks_tls else False,
            timeout=timeout_s,
            mounts={f"all://{host}": None for host in _LOOPBACK},
            headers={"Accept": f"{CONTENT_TYPE}, application/json"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. May be called again."""
        self._http.close()

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the registry is, without credentials."""
        return tuple(place.url for place in self._places)

    def schema_by_id(self, schema_id: int) -> RegisteredSchema:
        """The schema that values framed with this id were written with.

        UnknownSchemaError: the registry says that it has none. RegistryUnavailableError: anything
        that is not a clear answer, so a good event is never given up because of it.
        """
        answer = self._ask("GET", f"/schemas/ids/{schema_id}")
        if answer.status == 404 and answer.code == _NO_SCHEMA:
            raise UnknownSchemaError(f"schema id {schema_id} is unknown at {answer.place}")
        body = _object(answer)
        return RegisteredSchema(_text(body, "schema", answer), _kind(body))

    def subjects(self) -> tuple[str, ...]:
        """All subjects, in order. Apicurio cuts this at `apicurio.ccompat.max-subjects`."""
        answer = self._ask("GET", "/subjects")
        return tuple(sorted(str(name) for name in _array(answer)))

    def versions(self, subject: str) -> tuple[int, ...]:
        """The versions of a subject, oldest first. UnknownSubjectError: it has none."""
        answer = self._ask("GET", f"/subjects/{_name(subject)}/versions")
        _raise_unless_known(answer, subject)
        return tuple(sorted(int(version) for version in _array(answer)))

    def latest(self, subject: str) -> SubjectVersion:
        """The newest version of a subject. UnknownSubjectError: it has none."""
        answer = self._ask("GET", f"/subjects/{_name(subject)}/versions/latest")
        _raise_unless_known(answer, subject)
        return _version(answer)

    def find(self, subject: str, text: str, *, kind: str = "AVRO") -> SubjectVersion | None:
        """The version under which this very schema is registered, or None."""
        answer = self._ask("POST", f"/subjects/{_name(subject)}", _payload(text, kind))
        if answer.status == 404 and answer.code in (_NO_SUBJECT, _NO_VERSION, _NO_SCHEMA):
            return None
        _raise_if_refused(answer, subject)
        return _version(answer)

    def register(self, subject: str, text: str, *, kind: str = "AVRO") -> Registration:
        """Register a schema as the newest version, or find it where it is already one.

        IncompatibleSchemaError and InvalidSchemaError carry the registry's sentence.
        """
        answer = self._ask("POST", f"/subjects/{_name(subject)}/versions", _payload(text, kind))
        _raise_if_refused(answer, subject)
        _integer(_object(answer), "id", answer)
        found = self.find(subject, text, kind=kind)
        if found is None:
            raise RegistryUnavailableError(
                f"{answer.place} accepted the schema of {subject!r} and does not find it: "
                "its nodes disagree, or the subject was deleted meanwhile"
            )
        return Registration(found.version, found.schema_id)

    def check(self, subject: str, text: str, *, kind: str = "AVRO") -> Verdict:
        """Whether a candidate may follow the newest version. A subject without one accepts all.

        InvalidSchemaError: the registry cannot read the candidate.
        """
        path = f"/compatibility/subjects/{_name(subject)}/versions/latest?verbose=true"
        answer = self._ask("POST", path, _payload(text, kind))
        if answer.status == 404 and answer.code in (_NO_SUBJECT, _NO_VERSION):
            return Verdict(compatible=True)
        _raise_if_refused(answer, subject)
        body = _object(answer)
        if not isinstance(body.get("is_compatible"), bool):
            raise _foreign(answer)
        return Verdict(body["is_compatible"], tuple(str(m) for m in body.get("messages") or ()))

    def set_compatibility(self, subject: str, level: str) -> str:
        """Set a subject's own level and return the one that is read back.

        No registry's default is relied on (Apicurio's is NONE); a level that did not stick is a
        RegistryError.
        """
        path = f"/config/{_name(subject)}"
        answer = self._ask("PUT", path, {"compatibility": level})
        _raise_if_refused(answer, subject)
        _object(answer)
        kept = self.compatibility(subject)
        if kept != level:
            raise RegistryError(
                f"subject {subject!r} at {answer.place} was set to {level} and reads {kept}: "
                "the registry does not keep levels per subject, or somebody else sets it"
            )
        return kept

    def compatibility(self, subject: str) -> str:
        """The level that applies to a subject: its own, else the registry's default."""
        answer = self._ask("GET", f"/config/{_name(subject)}?defaultToGlobal=true")
        _raise_unless_known(answer, subject)
        return _text(_object(answer), "compatibilityLevel", answer)

    def _ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> _Answer:
        """Ask the first place that answers. RegistryUnavailableError: none did."""
        failures: list[str] = []
        for place in self._places:
            try:
                return self._ask_at(place, method, path, body)
            except RegistryUnavailableError as error:
                failures.append(str(error))
        raise RegistryUnavailableError("; ".join(failures))

    def _ask_at(
        self, place: _Place, method: str, path: str, body: Mapping[str, str] | None
    ) -> _Answer:
        content = None if body is None else orjson.dumps(body)
        headers = {} if body is None else {"Content-Type": CONTENT_TYPE}
        try:
            with self._http.stream(
                method, place.url + path, content=content, headers=headers, auth=place.auth
            ) as response:
                raw = self._read(response, place)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = str(error) or type(error).__name__
            raise RegistryUnavailableError(
                f"schema registry {place.url} does not answer: {reason}"
            ) from error
        return _answer(response, raw, place.url)

    def _read(self, response: httpx.Response, place: _Place) -> bytes:
        """The answer's bytes, bounded in size and, against a trickle, in time."""
        end = time.monotonic() + self._timeout_s
        raw = bytearray()
        for chunk in response.iter_bytes():
            raw += chunk
            if len(raw) > MAX_ANSWER_BYTES:
                raise RegistryUnavailableError(
                    f"schema registry {place.url} answers more than {MAX_ANSWER_BYTES} bytes"
                )
            if time.monotonic() > end:
                raise RegistryUnavailableError(
                    f"schema registry {place.url} took longer than {self._timeout_s:g} s to answer"
                )
        return bytes(raw)


def _places(urls: str, user: str | None, password: str | None) -> tuple[_Place, ...]:
    given = (user, password or "") if user is not None else None
    places = tuple(_place(url.strip(), given) for url in urls.split(",") if url.strip())
    if not places:
        raise BadRegistryAddressError("the schema registry's URL is empty")
    return places


def _place(url: str, given: tuple[str, str] | None) -> _Place:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadRegistryAddressError(
            "the schema registry's URL must be http://host[:port][/path] or https://"
        )
    if parts.username is None:
        return _Place(url.rstrip("/"), given)
    if given is not None:
        raise BadRegistryAddressError(
            "credentials for the schema registry are given twice: in its URL as well"
        )
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    auth = (unquote(parts.username), unquote(parts.password or ""))
    return _Place(urlunsplit(bare).rstrip("/"), auth)


def _tls(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """The usual context; `ca` is a file or a folder, `certificate` may contain the key."""
    if ca is None:
        context = httpx.create_ssl_context()
    elif Path(ca).is_dir():
        context = ssl.create_default_context(capath=ca)
    else:
        context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def _answer(response: httpx.Response, raw: bytes, place: str) -> _Answer:
    """The answer, once it is clear that the registry itself gave one."""
    status = response.status_code
    if status in (401, 403):
        raise RegistryUnavailableError(
            f"schema registry {place} refuses the credentials (HTTP {status})"
        )
    if status == 429 or status >= 500:
        raise RegistryUnavailableError(f"schema registry {place} answers HTTP {status}")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RegistryUnavailableError(
            f"{place} answers HTTP {status} without JSON: is that the registry's URL?"
        ) from error
    return _Answer(status, body, place)


def _foreign(answer: _Answer) -> RegistryUnavailableError:
    return RegistryUnavailableError(
        f"{answer.place} answers HTTP {answer.status} with something that is not the Confluent "
        "API: is that the registry's URL?"
    )


def _raise_unless_known(answer: _Answer, subject: str) -> None:
    if answer.status == 404 and answer.code in (_NO_SUBJECT, _NO_VERSION, _NO_LEVEL):
        raise UnknownSubjectError(f"subject {subject!r} is unknown at {answer.place}")


def _raise_if_refused(answer: _Answer, subject: str) -> None:
    where = f"subject {subject!r} at {answer.place}"
    if answer.status == 409:
        raise IncompatibleSchemaError(f"{where}: {answer.message}")
    if answer.status == 422:
        raise InvalidSchemaError(f"{where}: {answer.message}")


def _object(answer: _Answer) -> dict[str, Any]:
    if answer.status != 200 or not isinstance(answer.body, dict):
        raise _foreign(answer)
    return answer.body


def _array(answer: _Answer) -> list[Any]:
    if answer.status != 200 or not isinstance(answer.body, list):
        raise _foreign(answer)
    return answer.body


def _text(body: dict[str, Any], name: str, answer: _Answer) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise _foreign(answer)
    return value


def _integer(body: dict[str, Any], name: str, answer: _Answer) -> int:
    value = body.get(name)
    if not isinstance(value, int):
        raise _foreign(answer)
    return value


def _kind(body: dict[str, Any]) -> str:
    """AVRO is what the API leaves out."""
    return str(body.get("schemaType") or "AVRO")


def _version(answer: _Answer) -> SubjectVersion:
    body = _object(answer)
    return SubjectVersion(
        subject=_text(body, "subject", answer),
        version=_integer(body, "version", answer),
        schema_id=_integer(body, "id", answer),
        text=_text(body, "schema", answer),
        kind=_kind(body),
    )


def _payload(text: str, kind: str) -> dict[str, str]:
    """AVRO is left out: registries of the first days know no other kind, nor the field."""
    return {"schema": text} if kind == "AVRO" else {"schema": text, "schemaType": kind}


def _name(subject: str) -> str:
    return quote(subject, safe="")
