"""Avro schemas as plain JSON: what a reader must know of them that Avro's own rules leave out.

Pure. Schema resolution ignores logical types, so a changed decimal scale or timestamp unit reads
as other numbers without an error (https://avro.apache.org/docs/1.12.0/specification/, "Logical
Types"); the decoder and `viewkeeper schemas check` refuse it with `logical_conflicts`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

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
    return list(_conflicts(writer, reader, path or "value", (_names(writer), _names(reader))))


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
    writer: Schema, reader: Schema, path: str, names: tuple[Mapping[str, Schema], ...]
) -> Iterator[str]:
    writer, reader = _resolved(writer, names[0]), _resolved(reader, names[1])
    if isinstance(writer, list) or isinstance(reader, list):
        yield from _union_conflicts(writer, reader, path, names)
        return
    mine, theirs = _meaning(reader), _meaning(writer)
    if _base(writer) == _base(reader) and mine != theirs:
        yield f"{path}: written as {_named(theirs)}, read as {_named(mine)}"
    if isinstance(writer, dict) and isinstance(reader, dict):
        fields = {f["name"]: f["type"] for f in writer.get("fields", ())}
        for f in reader.get("fields", ()):
            if f["name"] in fields:
                yield from _conflicts(fields[f["name"]], f["type"], f"{path}.{f['name']}", names)
        for inner in ("items", "values"):
            if inner in writer and inner in reader:
                yield from _conflicts(writer[inner], reader[inner], f"{path}.{inner}", names)


def _union_conflicts(
    writer: Schema, reader: Schema, path: str, names: tuple[Mapping[str, Schema], ...]
) -> Iterator[str]:
    ours = [_resolved(b, names[1]) for b in (reader if isinstance(reader, list) else [reader])]
    for branch in writer if isinstance(writer, list) else [writer]:
        branch = _resolved(branch, names[0])
        for candidate in ours:
            if _base(candidate) == _base(branch):
                yield from _conflicts(branch, candidate, path, names)
                break


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
    # A decimal of more digits is told by its value. A uuid is text either way: both sides read the same characters.
    return () if schema["logicalType"] == "uuid" else (schema["logicalType"],)


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
