"""Avro schemas as plain JSON: what a reader must know of them that Avro's own rules leave out.

Pure. Schema resolution ignores logical types, so a changed decimal scale or timestamp unit reads
as other numbers without an error (https://avro.apache.org/docs/1.12.0/specification/, "Logical
Types"); the decoder refuses it with `logical_conflicts`, `viewkeeper schemas check`
with `changed_meanings`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

Schema = str | list[Any] | dict[str, Any]
"""A schema as JSON gives it: a name, a union, or an object."""

_LOGICAL = ("logicalType", "precision", "scale")


def fingerprint(text: str) -> str:
    """SHA-256 of a schema's JSON text, white space and key order aside. Docs count as content."""
    canonical = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def without_logical_types(schema: Schema) -> Schema:
    """The same schema in underlying types: decimals stay bytes, timestamps stay integers."""
    if isinstance(schema, list):
        return [without_logical_types(branch) for branch in schema]
    if isinstance(schema, str):
        return schema
    return {
        name: without_logical_types(value)
        if name in ("type", "items", "values")
        else [{**f, "type": without_logical_types(f["type"])} for f in value]
        if name == "fields"
        else value
        for name, value in schema.items()
        if name not in _LOGICAL
    }


def logical_conflicts(writer: Schema, reader: Schema, path: str = "") -> list[str]:
    """Where the writer's values mean other things than the reader takes them for, in sentences.

    Compares the logical type, precision and scale of every value that both schemas have.
    """
    return _compared(writer, reader, path or "value", _meaning)


def changed_meanings(before: Schema, after: Schema) -> list[str]:
    """Where a candidate changes what a registry lets pass and a contract must not, in sentences.

    That is what `logical_conflicts` finds, and a decimal's precision, and the default of an enum.
    """
    return _compared(before, after, "value", _contracted)


def _compared(writer: Schema, reader: Schema, path: str, meaning: "Meaning") -> list[str]:
    pair = _Pair(_names(writer), _names(reader), meaning)
    return list(_conflicts(writer, reader, path, pair, frozenset()))


Meaning = Callable[[Schema], tuple[object, ...]]
"""What a value of a type stands for, beyond its bytes."""


class _Pair(NamedTuple):
    """The named types of writer and reader, and what is compared."""

    written: Mapping[str, Schema]
    read: Mapping[str, Schema]
    meaning: Meaning


_PROMOTED = {
    ("int", "long"),
    ("int", "float"),
    ("int", "double"),
    ("long", "float"),
    ("long", "double"),
    ("float", "double"),
    ("string", "bytes"),
    ("bytes", "string"),
}
"""(written, read): what Avro reads as another type by itself."""


def _names(schema: Schema) -> dict[str, Schema]:
    found: dict[str, Schema] = {}

    def visit(node: Schema, namespace: str) -> None:
        if isinstance(node, list):
            for branch in node:
                visit(branch, namespace)
        elif isinstance(node, dict):
            if "name" in node:
                namespace = node.get("namespace", namespace)
                found[node["name"]] = found[f"{namespace}.{node['name']}"] = node
            for f in node.get("fields", ()):
                visit(f["type"], namespace)
            for inner in ("items", "values"):
                if inner in node:
                    visit(node[inner], namespace)
            if isinstance(node.get("type"), dict | list):
                visit(node["type"], namespace)

    visit(schema, "")
    return found


def _conflicts(
    writer: Schema,
    reader: Schema,
    path: str,
    pair: _Pair,
    inside: frozenset[int],
) -> Iterator[str]:
    writer, reader = _resolved(writer, pair.written), _resolved(reader, pair.read)
    if isinstance(writer, list) or isinstance(reader, list):
        yield from _union_conflicts(writer, reader, path, pair, inside)
        return
    mine, theirs = pair.meaning(reader), pair.meaning(writer)
    bases = _base(writer), _base(reader)
    if (bases[0] == bases[1] or bases in _PROMOTED) and mine != theirs:
        yield f"{path}: written as {_named(theirs)}, read as {_named(mine)}"
    if isinstance(writer, dict) and isinstance(reader, dict):
        if "fields" in reader:
            if id(reader) in inside:
                return  # a record within itself was compared further out
            inside |= {id(reader)}
        for name, written, read in _pairs(writer, reader):
            yield from _conflicts(written, read, f"{path}.{name}", pair, inside)


def _pairs(writer: dict[str, Any], reader: dict[str, Any]) -> Iterator[tuple[str, Schema, Schema]]:
    """(name, written, read) of everything inside that both schemas have."""
    fields = {f["name"]: f["type"] for f in writer.get("fields", ())}
    for f in reader.get("fields", ()):
        if f["name"] in fields:
            yield f["name"], fields[f["name"]], f["type"]
    for inner in ("items", "values"):
        if inner in writer and inner in reader:
            yield inner, writer[inner], reader[inner]


def _union_conflicts(
    writer: Schema,
    reader: Schema,
    path: str,
    pair: _Pair,
    inside: frozenset[int],
) -> Iterator[str]:
    for branch in writer if isinstance(writer, list) else [writer]:
        candidate = _counterpart(branch, reader, pair.written, pair.read)
        if candidate is not None:
            yield from _conflicts(branch, candidate, path, pair, inside)


def _counterpart(
    written: Schema, reader: Schema, writers: Mapping[str, Schema], readers: Mapping[str, Schema]
) -> Schema | None:
    """What a value of `written` is read as: its own type where the reader has it, or a wider."""
    base = _base(_resolved(written, writers))
    candidates = [_resolved(r, readers) for r in (reader if isinstance(reader, list) else [reader])]
    same = [r for r in candidates if _base(r) == base]
    wider = [r for r in candidates if (base, _base(r)) in _PROMOTED]
    return next(iter(same + wider), None)


def _resolved(schema: Schema, names: Mapping[str, Schema]) -> Schema:
    if isinstance(schema, str):
        return names.get(schema, schema)
    if isinstance(schema, dict) and isinstance(schema.get("type"), dict | list):
        return _resolved(schema["type"], names)
    return schema


def _base(schema: Schema) -> str:
    if isinstance(schema, list):
        return "union"
    return schema if isinstance(schema, str) else str(schema["type"])


def _meaning(schema: Schema) -> tuple[object, ...]:
    if not isinstance(schema, dict) or "logicalType" not in schema:
        return ()
    if schema["logicalType"] == "decimal":
        return ("decimal", schema.get("scale", 0))
    # A decimal of more digits is told by its value; a uuid is the same text either way.
    return () if schema["logicalType"] == "uuid" else (schema["logicalType"],)


def _contracted(schema: Schema) -> tuple[object, ...]:
    """The meaning, with what is only fixed by a contract."""
    if isinstance(schema, dict) and schema["type"] == "enum":
        return (f"enum with default {schema.get('default')}",)
    if isinstance(schema, dict) and schema.get("logicalType") == "decimal":
        return ("decimal", schema.get("precision"), schema.get("scale", 0))
    return _meaning(schema)


def _named(meaning: tuple[object, ...]) -> str:
    if not meaning:
        return "a plain value"
    name, *rest = meaning
    return f"{name}({','.join(map(str, rest))})" if rest else str(name)


def zero_width_items(schema: Schema) -> bool:
    """Whether a list or map in the schema can hold items that take no byte.

    Of those a few bytes can announce millions, so their counts must be bounded before reading.
    """
    names = _names(schema)

    def width_zero(node: Schema, seen: frozenset[str]) -> bool:
        node = _resolved(node, names)
        if isinstance(node, list):
            return False  # the branch index takes a byte
        if isinstance(node, str):
            return node == "null"
        if node["type"] == "fixed":
            return bool(node["size"] == 0)
        if node["type"] == "record":
            if node["name"] in seen:
                return True
            inside = seen | {node["name"]}
            return all(width_zero(f["type"], inside) for f in node["fields"])
        return bool(node["type"] == "null")

    def visit(node: Schema, seen: frozenset[str]) -> bool:
        node = _resolved(node, names)
        if isinstance(node, str):
            return False
        if isinstance(node, list):
            return any(visit(branch, seen) for branch in node)
        if node["type"] == "array" and width_zero(node["items"], frozenset()):
            return True
        if "name" in node:
            if node["name"] in seen:
                return False
            seen = seen | {node["name"]}
        inner = [node[k] for k in ("items", "values") if k in node]
        return any(visit(n, seen) for n in inner + [f["type"] for f in node.get("fields", ())])

    return visit(schema, frozenset())


def is_recursive(schema: Schema) -> bool:
    """Whether a value can hold values of its own type, to any depth."""
    names = _names(schema)

    def visit(node: Schema, inside: frozenset[int]) -> bool:
        node = _resolved(node, names)
        if isinstance(node, list):
            return any(visit(branch, inside) for branch in node)
        if isinstance(node, str):
            return False
        if "fields" in node:
            if id(node) in inside:
                return True
            inside |= {id(node)}
        inner = [node[k] for k in ("items", "values") if k in node]
        return any(visit(n, inside) for n in inner + [f["type"] for f in node.get("fields", ())])

    return visit(schema, frozenset())


def leaves_unread(writer: Schema, reader: Schema) -> bool:
    """Whether a value can be wrong in a place that reading it as `reader` does not look at.

    That is what a reader passes over (fields that only the writer has), booleans, and ints read
    as something wider: their bytes may be none that a writer writes, and no error comes of it.
    For schemas that are not recursive.
    """
    names = (_names(writer), _names(reader))

    def unread(written: Schema, reader: Schema) -> bool:
        written = _resolved(written, names[0])
        if isinstance(written, list):
            return any(unread(branch, reader) for branch in written)
        read = _counterpart(written, reader, *names)
        if read is None:
            return False  # it can't be read at all, which is told
        base = _base(written)
        if base == "boolean" or (base == "int" and _base(read) != "int"):
            return True
        if not isinstance(written, dict) or not isinstance(read, dict):
            return False
        passed = {f["name"] for f in written.get("fields", ())}
        passed -= {f["name"] for f in read.get("fields", ())}
        return bool(passed) or any(unread(w, r) for _name, w, r in _pairs(written, read))

    return unread(writer, reader)
