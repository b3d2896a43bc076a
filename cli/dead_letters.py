"""`viewkeeper dead-letters`: what could not be applied, and what it was meant to be."""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cli import decide
from cli.settings import DeadLetterSettings
from cli.status import connect
from cli.terminal import answer, answer_json, answer_table, say, table
from ingest import operate
from ingest.errors import Reason
from ingest.operate import DeadLetter, DeadLetterFilter, DeadLetterLine
from schemas import contracts
from schemas.glance import Glance, framed_schema_id, glance
from schemas.registry import RegistryError
from views import CATALOGUE

app = typer.Typer(no_args_is_help=True, help="Records that could not be applied.")
app.command()(decide.redrive)
app.command()(decide.discard)
app.command()(decide.purge)

HEX_BYTES = 512
_ROW = 16
_AT_BYTE = re.compile(r"at byte (\d+)")

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command("list")
def list_(
    topic: Annotated[str | None, typer.Option(help="Only of this topic.")] = None,
    partition: Annotated[int | None, typer.Option(help="Only of this partition.")] = None,
    reason: Annotated[Reason | None, typer.Option(help="Only with this reason.")] = None,
    state: Annotated[str, typer.Option(help="open, redriven, discarded or all.")] = "open",
    from_offset: decide.FromOffset = None,
    to_offset: decide.ToOffset = None,
    since: decide.Since = None,
    after: Annotated[int | None, typer.Option(help="Only those with a higher id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most to list.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first, and how many there are by reason."""
    which = DeadLetterFilter(
        topic=topic,
        partition=partition,
        reason=reason.value if reason else None,
        state=None if state == "all" else state,
        from_offset=from_offset,
        to_offset=to_offset,
        since=decide.time_of(since),
        after_id=after,
    )
    with connect() as connection:
        found = operate.dead_letters(connection, which, limit=limit)
        counts = operate.count_dead_letters(connection, which)
    if as_json:
        answer_json({"counts": counts, "dead_letters": [asdict(letter) for letter in found]})
        return
    _show_list(found, counts)


@app.command()
def show(
    letter_id: Annotated[int, typer.Argument(metavar="ID", help="As `list` names it.")],
    as_json: AsJson = False,
) -> None:
    """One dead letter whole: key, headers, reason, bytes, and its fields as far as they go."""
    settings = DeadLetterSettings.model_validate({})
    with connect(settings.dsn) as connection:
        letter = operate.dead_letter(connection, letter_id)
    schema, origin = _writer_schema(letter, settings)
    seen = glance(letter.value, schema) if schema and letter.value else None
    if as_json:
        answer_json(_for_programs(letter, seen))
        return
    _show(letter, seen, origin)


def _show_list(found: Sequence[DeadLetterLine], counts: dict[str, int]) -> None:
    shown = table("id", "where", "reason", "detail", "state", "first seen", right=("id",))
    for letter in found:
        shown.add_row(
            str(letter.id),
            f"{letter.topic}:{letter.partition}:{letter.offset}",
            letter.reason,
            letter.detail,
            letter.state,
            f"{letter.first_seen_at:%Y-%m-%d %H:%M:%S}",
        )
    if found:
        answer_table(shown)
    total = sum(counts.values())
    by_reason = ", ".join(f"{reason} {number:,}" for reason, number in counts.items())
    answer(f"{total:,} dead letters" + (f": {by_reason}" if counts else ""))
    if found and len(found) < total:
        say(f"more: --after {found[-1].id}")


def _writer_schema(
    letter: DeadLetter, settings: DeadLetterSettings
) -> tuple[dict[str, Any] | None, str]:
    """The schema that the value was written with, and where it is from.

    Without the registry's word our own contract is the best guess; None: there is nothing to read.
    """
    schema_id = framed_schema_id(letter.value)
    if schema_id is None:
        return None, ""
    try:
        registry = settings.registry()
        if registry is not None:
            with registry:
                found = registry.schema_by_id(schema_id)
            if found.kind == "AVRO":
                return json.loads(found.text), f"schema id {schema_id}"
    except RegistryError as error:
        say(str(error))
    if letter.topic not in CATALOGUE.topics:
        return None, ""
    contract = contracts.load(CATALOGUE.stream(letter.topic).contract)
    return contract.schema, f"our {contract.name}, for want of schema id {schema_id}"


def _for_programs(letter: DeadLetter, seen: Glance | None) -> dict[str, Any]:
    """Bytes as base64; `fields` as far as they could be read."""
    whole = asdict(letter)
    for name in ("key", "value"):
        raw = whole[name]
        whole[name] = None if raw is None else base64.b64encode(raw).decode()
    whole["fields"] = {n: _plain(v) for n, v in seen.fields} if seen else None
    whole["stopped_at_byte"] = seen.stopped_at_byte if seen else None
    return whole


def _show(letter: DeadLetter, seen: Glance | None, origin: str) -> None:
    for name, value in _facts(letter):
        answer(f"{name:<12} {value}")
    for header, encoded in letter.headers or []:
        raw = None if encoded is None else base64.b64decode(encoded)
        answer(f"{'header':<12} {header}: {_text(raw)}")
    if seen is not None:
        answer(f"\nfields, by {origin}:")
        for name, content in seen.fields:
            answer(f"  {name:<18} {_plain(content)}")
        if seen.reason is not None:
            answer(f"  then, at byte {seen.stopped_at_byte}: {seen.reason}")
    if letter.value:
        answer(f"\nvalue, {len(letter.value):,} bytes:")
        for line in hex_lines(letter.value, marked_byte=_failing_byte(letter, seen)):
            answer(line)


def _facts(letter: DeadLetter) -> Iterator[tuple[str, object]]:
    yield "dead letter", letter.id
    yield "where", f"{letter.topic}:{letter.partition}:{letter.offset}"
    yield "topic id", letter.topic_id
    yield "reason", letter.reason
    yield "detail", letter.detail
    yield "state", letter.state
    yield "attempts", letter.attempts
    yield "recorded", letter.recorded_at
    yield "first seen", letter.first_seen_at
    yield "last seen", letter.last_seen_at
    if letter.decided_at is not None:
        yield "decided", f"{letter.decided_at} by {letter.decided_by}"
    yield "schema id", "-" if letter.schema_id is None else letter.schema_id
    yield "key", _text(letter.key)
    if letter.purged_at is not None:
        yield "value", f"removed at {letter.purged_at}"
    elif letter.value is None:
        yield "value", "null"
    elif not letter.value:
        yield "value", "empty"


def _failing_byte(letter: DeadLetter, seen: Glance | None) -> int | None:
    """The byte that the decoder named, else the one where our own reading stopped."""
    named = _AT_BYTE.search(letter.detail)
    if named is not None:
        return int(named[1])
    return seen.stopped_at_byte if seen else None


def hex_lines(value: bytes, *, marked_byte: int | None) -> Iterator[str]:
    """A hex dump with a caret below the marked byte, starting near it where the value is long."""
    start = 0
    if marked_byte is not None and marked_byte > HEX_BYTES // 2:
        start = (marked_byte - HEX_BYTES // 2) // _ROW * _ROW
    if start:
        yield f"  ... {start:,} bytes before"
    stop = min(start + HEX_BYTES, len(value))
    for at in range(start, stop, _ROW):
        row = value[at : min(at + _ROW, stop)]
        cells = (f"{byte:02x} " for byte in row)
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"  {at:06x}  {''.join(cells):<{_ROW * 3}} {letters}"
        if marked_byte is not None and at <= marked_byte < at + len(row):
            yield f"{' ' * (10 + (marked_byte - at) * 3)}^^ byte {marked_byte}"
    if stop < len(value):
        yield f"  ... {len(value) - stop:,} bytes after"
    elif marked_byte == len(value):
        yield f"  {stop:06x}  ^^ the end: byte {marked_byte} is missing"


def _text(raw: bytes | None) -> str:
    """Bytes as text where they are text."""
    if raw is None:
        return "null"
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"0x{raw.hex()}"
    return text if text.isprintable() else repr(text)


def _plain(content: object) -> object:
    """A field for JSON and for people: bytes as hex."""
    if isinstance(content, bytes):
        return f"0x{content.hex()}"
    if isinstance(content, dict):
        return {name: _plain(inner) for name, inner in content.items()}
    if isinstance(content, list):
        return [_plain(inner) for inner in content]
    return content
