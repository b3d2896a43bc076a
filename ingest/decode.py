"""The only user of the Avro reader: records in, events (or what is wrong with them) out.

Values are framed as the Confluent wire format says: magic byte 0, schema id in 4 bytes big-endian,
Avro body. Where there are many of one schema, their plain bodies are read at once
(`ingest.columns`); what that declines is walked strictly and read alone, and only this tells what
is wrong with an event.

Source of the framing:
https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/
"""

import io
import json
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import fastavro

from ingest.columns import Columns, columns_of
from ingest.errors import DeadRecordError, Fault, Reason, RefusedError, TransientError
from ingest.form import MAX_KEY_BYTES, EventForm, form_of
from ingest.records import Dead, Event, Item, Made, Record, Removal
from ingest.walk import Walk, compile_walk, end_of_body
from schemas.avro import (
    fingerprint,
    is_recursive,
    leaves_unread,
    logical_conflicts,
    without_logical_types,
    zero_width_items,
)
from schemas.registry import RegisteredSchema, RegistryUnavailableError, UnknownSchemaError
from views.model import StreamView, Tombstone

HEADER_BYTES = 5
LEAST_IN_BULK = 12
"""Bodies below which reading them at once costs more than one by one."""
MOST_BYTES_IN_BULK = 4_000
"""Longest value that is read with others: reading many at once takes ten times their bytes."""

ATTEMPTS = 3
PAUSE_S = 0.1
UNKNOWN_GRACE_S = 2.0
UNKNOWN_KEPT_S = 60.0
FRESH_S = 10.0
"""How long a schema that was fetched anew counts as fresh: bad events may come in every batch."""
_GRACE_STEP_S = 0.2


class SchemaSource(Protocol):
    """Where writer schemas come from: the registry's client."""

    def schema_by_id(self, schema_id: int) -> RegisteredSchema:
        """The schema of an id. UnknownSchemaError, RegistryUnavailableError."""
        ...


class FingerprintKeeper(Protocol):
    """Where the fingerprint of each schema id is pinned for ever."""

    def pin(self, schema_id: int, fingerprint: str) -> str:
        """Keep the fingerprint of an id unless one is kept; answer the one that is kept."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """How bodies of one writer schema are read into events of one stream."""

    schema_id: int
    form: EventForm
    walk: Walk
    alone: Callable[[bytes], Any]
    bulk: Columns | None
    unlisted: Callable[[Any], bool]


class Decoder:
    """Decodes the records of all streams. Not for several threads at once.

    `stop` interrupts its pauses. `on_unlisted(topic)` is told of every enum symbol that was not in
    our contract and became the default.
    """

    def __init__(
        self,
        views: Iterable[StreamView],
        contracts: Mapping[str, Mapping[str, Any]],
        *,
        registry: SchemaSource,
        fingerprints: FingerprintKeeper,
        stop: threading.Event,
        on_unlisted: Callable[[str], None] = lambda _topic: None,
    ) -> None:
        self._forms = {
            view.stream.topic: form_of(view, contracts[view.stream.contract]) for view in views
        }
        self._registry = registry
        self._fingerprints = fingerprints
        self._stop = stop
        self._on_unlisted = on_unlisted
        self._schemas: dict[int, Any] = {}
        self._readers: dict[tuple[str, int], _Reader | Fault] = {}
        self._unknown_until: dict[int, float] = {}
        self._fresh_until: dict[int, float] = {}

    @property
    def forms(self) -> Mapping[str, EventForm]:
        """Per topic, how its events become rows."""
        return self._forms

    def decode(self, records: Sequence[Record]) -> list[Item]:
        """Decode records, in their order: the first of three attempts.

        TransientError: the registry can't tell what an id means. RefusedError: an id means another
        schema than before.
        """
        items: list[Item | None] = [None] * len(records)
        headers: dict[tuple[str, bytes], list[int]] = defaultdict(list)
        for at, record in enumerate(records):
            if record.value and record.key is not None:
                headers[record.topic, record.value[:HEADER_BYTES]].append(at)
            else:
                items[at] = self._without_body(record)
        framed = {}
        for (topic, header), places in headers.items():
            fault = _framing_fault(header)
            if fault is None:
                framed[topic, int.from_bytes(header[1:])] = places
            else:
                for at in places:
                    items[at] = Dead(records[at], _key_fault(records[at].key) or fault, None, 1)
        self._learn({schema_id for _topic, schema_id in framed})
        self._read_all(records, framed, items, attempt=1)
        return [item for item in items if item is not None]

    def decode_again(self, items: list[Item], *, afresh: bool) -> bool:
        """Another attempt at the dead of a batch that another schema might cure, in place.

        With `afresh` their schemas are fetched anew, each at most every FRESH_S, which makes the
        second attempt another one; the third is made after PAUSE_S. True while something is left to
        cure. Errors as `decode`.
        """
        suspects: dict[tuple[str, int], list[int]] = {}
        for at, item in enumerate(items):
            if isinstance(item, Dead) and _is_suspect(item):
                suspects.setdefault((item.record.topic, _schema_id(item.record)), []).append(at)
        if not suspects:
            return False
        if afresh:
            self._learn({schema_id for _topic, schema_id in suspects}, afresh=True)
        records = [item.record for item in items]
        found: list[Item | None] = list(items)
        attempt = 2 if afresh else ATTEMPTS
        self._read_all(records, suspects, found, attempt=attempt)
        items[:] = [item for item in found if item is not None]
        return any(isinstance(items[at], Dead) for places in suspects.values() for at in places)

    def _without_body(self, record: Record) -> Item:
        """What a record without a key or without a value comes to."""
        fault = _key_fault(record.key)
        if fault is None and record.value is None:
            assert record.key is not None
            if self._forms[record.topic].view.stream.tombstone is Tombstone.HIDES:
                return Removal(record, record.key.decode())
            fault = Fault(
                Reason.NULL_VALUE, f"a null value on {record.topic}, whose key names no row"
            )
        return Dead(record, fault or _EMPTY, None, 1)

    def _learn(self, schema_ids: set[int], *, afresh: bool = False) -> None:
        """Get the writer schemas of these ids; the ids of a batch share one grace."""
        now = time.monotonic()
        if afresh:
            self._learn_late(schema_ids)
            asked = {i for i in schema_ids if self._fresh_until.get(i, 0) <= now}
        else:
            asked = schema_ids - self._schemas.keys()
        wanted = {i for i in asked if self._unknown_until.get(i, 0) <= now}
        if afresh:
            self._fresh_until.update(dict.fromkeys(wanted & self._schemas.keys(), now + FRESH_S))
        give_up_at = now + UNKNOWN_GRACE_S
        while wanted:
            wanted = {schema_id for schema_id in wanted if not self._fetch(schema_id)}
            if not wanted:
                return
            if time.monotonic() >= give_up_at or self._stop.wait(_GRACE_STEP_S):
                kept_until = time.monotonic() + UNKNOWN_KEPT_S
                self._unknown_until.update(dict.fromkeys(wanted, kept_until))
                return

    def _learn_late(self, schema_ids: set[int]) -> None:
        """Ask once more, without a grace, for ids that were unknown a while ago: somebody may have
        registered them since, and has resumed the partition that was stopped for them."""
        for schema_id in schema_ids & self._unknown_until.keys():
            if self._fetch(schema_id):
                del self._unknown_until[schema_id]

    def _fetch(self, schema_id: int) -> bool:
        try:
            found = self._registry.schema_by_id(schema_id)
        except UnknownSchemaError:
            # An id that was known stays known: the schema of an id never changes.
            return schema_id in self._schemas
        except RegistryUnavailableError as error:
            if schema_id in self._schemas:
                return True
            raise TransientError(f"schema {schema_id} can't be fetched: {error}") from error
        self._keep(schema_id, found)
        return True

    def _keep(self, schema_id: int, found: RegisteredSchema) -> None:
        if found.kind != "AVRO":
            self._schemas[schema_id] = Fault(
                Reason.INCOMPATIBLE_SCHEMA, f"schema {schema_id} is {found.kind}, not Avro"
            )
            return
        try:
            mark = fingerprint(found.text)
        except ValueError as error:
            raise TransientError(f"schema {schema_id}: the registry gave no JSON") from error
        pinned = self._fingerprints.pin(schema_id, mark)
        if pinned != mark:
            raise RefusedError(
                f"schema id {schema_id} means another schema than before (fingerprint {mark[:12]},"
                f" was {pinned[:12]}). Ids are for ever: check VIEWKEEPER_SCHEMA_REGISTRY_URL, or"
                " restore the registry from its backup; events can't be told apart otherwise."
            )
        schema = json.loads(found.text)
        if self._schemas.get(schema_id) != schema:
            self._schemas[schema_id] = schema
            for topic in self._forms:
                self._readers.pop((topic, schema_id), None)

    def _reader(self, topic: str, schema_id: int) -> _Reader | Fault:
        known = self._readers.get((topic, schema_id))
        if known is not None:
            return known
        schema = self._schemas.get(schema_id)
        if schema is None:
            return Fault(Reason.UNKNOWN_SCHEMA, f"the registry has no schema {schema_id}")
        made = (
            schema
            if isinstance(schema, Fault)
            else _make_reader(schema_id, schema, self._forms[topic])
        )
        self._readers[topic, schema_id] = made
        return made

    def _read_all(
        self,
        records: Sequence[Record],
        framed: Mapping[tuple[str, int], list[int]],
        items: list[Item | None],
        *,
        attempt: int,
    ) -> None:
        for (topic, schema_id), places in framed.items():
            reader = self._reader(topic, schema_id)
            if isinstance(reader, Fault):
                for at in places:
                    items[at] = _dead_of_schema(records[at], reader, schema_id, attempt)
                continue
            alone: Sequence[int] = places
            if reader.bulk is not None and len(places) >= LEAST_IN_BULK:
                alone = _read_in_bulk(reader.bulk, schema_id, records, places, items)
            for at in alone:
                items[at] = self._read_alone(reader, records[at], attempt)

    def _read_alone(self, reader: _Reader, record: Record, attempt: int) -> Item:
        """One event, or what is wrong with it."""
        fault = _key_fault(record.key)
        if fault is not None:
            return Dead(record, fault, None, attempt)
        assert record.key is not None
        try:
            values = _value_alone(reader, record)
            if reader.unlisted(values):
                self._on_unlisted(record.topic)
            form = reader.form
            row = form.row(values)
        except DeadRecordError as error:
            return Dead(record, error.fault, reader.schema_id, attempt)
        fault = form.fault(row, record.key.decode())
        if fault is not None:
            return Dead(record, fault, reader.schema_id, attempt)
        version_at = form.version_at
        return Event(record, row[:version_at], row[version_at], reader.schema_id, Made([row]), 0)


_CURABLE = {
    Reason.TRUNCATED,
    Reason.TRAILING_BYTES,
    Reason.MALFORMED,
    Reason.OVER_LIMIT,
    Reason.UNKNOWN_SCHEMA,
    Reason.INCOMPATIBLE_SCHEMA,
}
"""Faults that another schema would cure. The others are in the event itself."""


def _dead_of_schema(record: Record, fault: Fault, schema_id: int, attempt: int) -> Dead:
    key_fault = _key_fault(record.key)
    if key_fault is not None:
        return Dead(record, key_fault, None, 1)
    return Dead(record, fault, schema_id, attempt)


def _is_suspect(item: Dead) -> bool:
    """Whether another try may make an event of it."""
    value = item.record.value
    has_id = value is not None and len(value) >= HEADER_BYTES
    return has_id and item.fault.reason in _CURABLE and not item.on_record


def _schema_id(record: Record) -> int:
    assert record.value is not None
    return int(struct.unpack_from(">I", record.value, 1)[0])


def _key_fault(key: bytes | None) -> Fault | None:
    if key is None:
        return Fault(Reason.NULL_KEY, "the record has no key")
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return Fault(Reason.KEY_NOT_UTF8, f"key {key[:40]!r} is not UTF-8")
    if len(key) > MAX_KEY_BYTES:
        return Fault(Reason.KEY_TOO_LONG, f"the key is longer than {MAX_KEY_BYTES} bytes")
    if "\0" in text:
        return Fault(Reason.NUL_IN_TEXT, "the key holds a NUL character")
    return None


_EMPTY = Fault(Reason.EMPTY, "the value is empty: no magic byte, no schema id", 0)


def _framing_fault(value: bytes) -> Fault | None:
    if value[0] != 0:
        return Fault(Reason.BAD_MAGIC, f"magic byte is {value[0]}, must be 0", 0)
    if len(value) < HEADER_BYTES:
        return Fault(Reason.TRUNCATED, "the value ends in the middle of its schema id", len(value))
    return None


def _make_reader(schema_id: int, writer: Any, form: EventForm) -> _Reader | Fault:
    """The reader of a writer schema, or why its events can't become events of this stream."""
    try:
        conflicts = logical_conflicts(writer, dict(form.schema))
        if conflicts:
            return Fault(Reason.INCOMPATIBLE_SCHEMA, f"schema {schema_id}: {'; '.join(conflicts)}")
        plain = without_logical_types(writer)
        ours = without_logical_types(dict(form.schema))
        lenient, defaults = _with_unlisted_symbol(ours)
        resolve = None if plain == ours else lenient
        # A few bytes of these take all memory, or all of the stack, before anything is told.
        hostile = is_recursive(plain) or zero_width_items(plain)
        walks_all = hostile or leaves_unread(plain, ours)
        return _Reader(
            schema_id=schema_id,
            form=form,
            walk=compile_walk(plain, check_sizes=walks_all),
            alone=_alone_reader(plain, resolve),
            bulk=None if hostile else columns_of(plain, ours, form, reader_of=_alone_reader),
            unlisted=_never if resolve is None else _unlisted_finder(defaults),
        )
    except Exception as error:  # noqa: BLE001 - whatever a foreign schema breaks, it is the schema
        return Fault(
            Reason.INCOMPATIBLE_SCHEMA, f"schema {schema_id} can't be read as ours: {error!r}"
        )


_UNLISTED = "VIEWKEEPER_UNLISTED_SYMBOL"


def _with_unlisted_symbol(schema: Any) -> tuple[Any, dict[str, str]]:
    """Our schema, with a symbol of its own as the default of each top-level enum field.

    So a writer's symbol that we don't know can be told from one that it wrote as UNKNOWN.
    """
    defaults: dict[str, str] = {}
    fields = []
    for field in schema["fields"]:
        kind = field["type"]
        if isinstance(kind, dict) and kind["type"] == "enum" and "default" in kind:
            defaults[field["name"]] = kind["default"]
            kind = {**kind, "symbols": [*kind["symbols"], _UNLISTED], "default": _UNLISTED}
        fields.append({**field, "type": kind})
    return {**schema, "fields": fields}, defaults


def _never(_values: Any) -> bool:
    return False


def _unlisted_finder(defaults: Mapping[str, str]) -> Callable[[Any], bool]:
    def found(values: Any) -> bool:
        any_found = False
        for name, default in defaults.items():
            if values[name] == _UNLISTED:
                values[name] = default
                any_found = True
        return any_found

    return found


def _parsed(schema: Any) -> Any:
    return fastavro.parse_schema(schema, named_schemas={}, _force=True)


def _alone_reader(writer: Any, reader: Any) -> Callable[[bytes], Any]:
    ours, theirs = _parsed(writer), None if reader is None else _parsed(reader)

    def read(body: bytes) -> Any:
        source = io.BytesIO(body)
        value = fastavro.schemaless_reader(source, ours, theirs)
        if source.tell() != len(body):
            raise ValueError(f"{len(body) - source.tell()} bytes follow the event")
        return value

    return read


_new = tuple.__new__  # what `Event(...)` comes to, without a call between


def _read_in_bulk(
    bulk: Columns,
    schema_id: int,
    records: Sequence[Record],
    places: Sequence[int],
    items: list[Item | None],
) -> list[int]:
    """Put the events of these places where they belong; the places that are left to read alone."""
    small: list[int] = []
    alone: list[int] = []
    for at in places:
        (small if len(records[at].value or b"") <= MOST_BYTES_IN_BULK else alone).append(at)
    values = [records[at].value or b"" for at in small]
    keys = [records[at].key or b"" for at in small]
    read = bulk.read(values, keys, header_bytes=HEADER_BYTES)
    rows = read.rows
    for place, key, version in zip(read.good, read.keys, read.versions, strict=True):
        at = small[place]
        items[at] = _new(Event, (records[at], key, version, schema_id, rows, place))
    alone += [small[place] for place in read.declined]
    return alone


def _value_alone(reader: _Reader, record: Record) -> Any:
    body = (record.value or b"")[HEADER_BYTES:]
    end_of_body(reader.walk, body, header_bytes=HEADER_BYTES)
    try:
        return reader.alone(body)
    except Exception as error:
        raise DeadRecordError(
            Fault(
                Reason.INCOMPATIBLE_SCHEMA,
                f"schema {reader.schema_id} can't be read as ours: {error}",
            )
        ) from error
