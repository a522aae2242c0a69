"""One bootstrap merged over another, as ``--config-yaml`` does with protobuf's MergeFrom.

Messages merge field by field, repeated fields grow, maps take the overlay's entries, anything else is replaced; a oneof
keeps only the overlay's choice. The trees may spell fields in either case; both are of the same API version.
"""

from __future__ import annotations

from forkproxy.config.schema import FieldSchema, MessageSchema, schema
from forkproxy.config.tree import Entry, Node
from forkproxy.config.upgrade import BOOTSTRAP_V2, detect_version
from forkproxy.config.validate import BOOTSTRAP_V3


def merge(root: Node, overlay: Node) -> None:
    """Merge ``overlay`` into ``root``, in place."""
    versions = {detect_version(root), detect_version(overlay)}
    name = BOOTSTRAP_V2 if "v2" in versions else BOOTSTRAP_V3
    _message(root, overlay, schema().message(name))


def _message(node: Node, overlay: Node, message: MessageSchema) -> None:
    for entry in overlay.entries:
        if entry.value.is_null:
            continue
        field = message.lookup.get(entry.key)
        if field is None:
            node.set(entry.key, entry.value, entry.key_mark)
            continue
        _drop_rivals(node, field, message)
        there = _find(node, field, message)
        if there is None:
            node.entries.append(entry)
        else:
            _field(there, entry.value, field)


def _find(node: Node, field: FieldSchema, message: MessageSchema) -> Entry | None:
    for entry in node.entries:
        if message.lookup.get(entry.key) is field:
            return entry
    return None


def _drop_rivals(node: Node, field: FieldSchema, message: MessageSchema) -> None:
    if field.oneof is not None:
        node.entries = [
            entry
            for entry in node.entries
            if (other := message.lookup.get(entry.key)) is None or other is field or other.oneof is not field.oneof
        ]


def _field(there: Entry, value: Node, field: FieldSchema) -> None:
    if there.value.is_null:
        there.value = value
    elif field.repeated:
        items = [*_as_list(there.value), *_as_list(value)]
        there.value = Node.seq(there.value.mark, items)
    elif field.shape in ("map", "struct") and there.value.kind == "map" and value.kind == "map":
        for entry in value.entries:
            there.value.set(entry.key, entry.value, entry.key_mark)
    elif field.shape == "message" and there.value.kind == "map" and value.kind == "map":
        _message(there.value, value, field.message)
    else:
        there.value = value


def _as_list(node: Node) -> list[Node]:
    return list(node.items) if node.kind == "seq" else [node]
