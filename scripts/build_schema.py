"""Make forkproxy/config/schema.bin: Envoy's API, v3 and v2, as one compressed blob of descriptors.

    python scripts/build_schema.py                     from the installed xds-protos, else fetched with pip
    python scripts/build_schema.py --wheel FILE.whl    from a wheel at hand

setup.py runs this when it builds a wheel or an editable install (xds-protos is a build requirement there). The
generated ``*_pb2.py`` files are *read*, not imported: each holds its serialized FileDescriptorProto as one literal, and
importing them would need grpcio, register 700 files in protobuf's default pool and take top-level names.

The blob, zlib-compressed: four bytes big-endian length of a JSON index, the index, then the FileDescriptorProtos one
after another. Index: ``files`` = {file name: [offset, length]}, ``types`` = {message or enum full name: file name},
``v3_of`` = {v2 message: the v3 message that it became}, ``source`` = what it was made from. A reader parses only the
files that it needs.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

REQUIREMENT = "xds-protos==1.85.*"
TARGET = Path(__file__).resolve().parent.parent / "forkproxy" / "config" / "schema.bin"

# What a configuration can name, directly or in an Any; everything these import comes along.
ROOTS = (
    "envoy/",
    "contrib/",
    "udpa/type/",
    "xds/type/",
    "xds/core/",
    "xds/data/",
    "udpa/annotations/",
    "xds/annotations/",
)
# protobuf's own files, which xds-protos imports from protobuf.
WELL_KNOWN = (any_pb2, descriptor_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)


def installed_sources() -> Iterator[str]:
    """The text of every generated module of the installed xds-protos; nothing when it is not installed."""
    try:
        distribution = importlib.metadata.distribution("xds-protos")
    except importlib.metadata.PackageNotFoundError:
        return
    for file in distribution.files or ():
        if file.name.endswith("_pb2.py"):
            yield file.read_text(encoding="utf-8")


def wheel_sources(wheel: Path) -> Iterator[str]:
    """The text of every generated module in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith("_pb2.py"):
                yield archive.read(name).decode()


def fetch(directory: str) -> Path:
    """Let pip download the wheel alone, without the grpcio that its metadata asks for."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
            directory,
            REQUIREMENT,
        ],
        check=True,
    )
    return next(Path(directory).glob("xds_protos-*.whl"))


def serialized_descriptor(source: str) -> bytes | None:
    """The literal given to AddSerializedFile in a generated module."""
    for node in ast.parse(source).body:
        value = node.value if isinstance(node, ast.Assign) else None
        if (
            isinstance(value, ast.Call)
            and isinstance(value.func, ast.Attribute)
            and value.func.attr == "AddSerializedFile"
            and isinstance(value.args[0], ast.Constant)
        ):
            literal = value.args[0].value
            return literal if isinstance(literal, bytes) else None
    return None


def type_names(prefix: str, messages: list[descriptor_pb2.DescriptorProto]) -> Iterator[str]:
    """Full names of ``messages`` and all they contain."""
    for message in messages:
        name = f"{prefix}{message.name}"
        yield name
        yield from (f"{name}.{enum.name}" for enum in message.enum_type)
        yield from type_names(f"{name}.", list(message.nested_type))


def previous_names(
    prefix: str, messages: list[descriptor_pb2.DescriptorProto], versioning: Any
) -> Iterator[tuple[str, str]]:
    """(previous message, message) for every message with udpa.annotations.versioning."""
    for message in messages:
        name = f"{prefix}{message.name}"
        previous = message.options.Extensions[versioning].previous_message_type
        if previous:
            yield previous, name
        yield from previous_names(f"{name}.", list(message.nested_type), versioning)


def annotated(raws: dict[str, bytes]) -> tuple[Any, Any]:
    """A FileDescriptorProto class that knows the versioning annotation, and the annotation: both of a private pool."""
    pool = descriptor_pool.DescriptorPool()
    for name in ("google/protobuf/descriptor.proto", "udpa/annotations/versioning.proto"):
        pool.AddSerializedFile(raws[name])
    file_class = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FileDescriptorProto"))
    return file_class, pool.FindExtensionByName("udpa.annotations.versioning")


def blob(sources: Iterator[str]) -> bytes:
    """The content of schema.bin. Raises ValueError when a file that is imported is missing."""
    files: dict[str, tuple[descriptor_pb2.FileDescriptorProto, bytes]] = {}
    for module in WELL_KNOWN:
        proto = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(proto)
        files[proto.name] = (proto, proto.SerializeToString())
    for source in sources:
        raw = serialized_descriptor(source)
        if raw is not None:
            proto = descriptor_pb2.FileDescriptorProto.FromString(raw)
            files.setdefault(proto.name, (proto, raw))
    wanted: list[str] = []
    queue = [name for name in sorted(files) if name.startswith(ROOTS) or name.startswith("google/protobuf/")]
    seen = set(queue)
    while queue:
        name = queue.pop()
        if name not in files:
            raise ValueError(f"{name} is imported but not there")
        wanted.append(name)
        for dependency in files[name][0].dependency:
            if dependency not in seen:
                seen.add(dependency)
                queue.append(dependency)
    if len(wanted) < 500:
        raise ValueError(f"only {len(wanted)} files found: is {REQUIREMENT} installed?")
    offsets: dict[str, list[int]] = {}
    types: dict[str, str] = {}
    v3_of: dict[str, str] = {}
    file_class, versioning = annotated({name: raw for name, (_, raw) in files.items()})
    data = bytearray()
    for name in sorted(wanted):
        proto, raw = files[name]
        offsets[name] = [len(data), len(raw)]
        data += raw
        prefix = f"{proto.package}." if proto.package else ""
        types.update((full, name) for full in type_names(prefix, list(proto.message_type)))
        types.update((f"{prefix}{enum.name}", name) for enum in proto.enum_type)
        pairs = previous_names(prefix, list(file_class.FromString(raw).message_type), versioning)
        v3_of.update(pair for pair in pairs if ".v3" in pair[1])
    index = json.dumps(
        {"source": REQUIREMENT, "files": offsets, "types": types, "v3_of": v3_of}, separators=(",", ":")
    ).encode()
    return zlib.compress(len(index).to_bytes(4, "big") + index + bytes(data), 9)


def ensure() -> None:
    """Build when xds-protos is installed (as in the build's own environment) or when there is no blob yet."""
    if any(True for _ in installed_sources()) or not TARGET.exists():
        build()


def build(wheel: Path | None = None) -> Path:
    """Write schema.bin and return its path."""
    if wheel is not None:
        content = blob(wheel_sources(wheel))
    else:
        sources = list(installed_sources())
        if sources:
            content = blob(iter(sources))
        else:
            with tempfile.TemporaryDirectory() as directory:
                content = blob(wheel_sources(fetch(directory)))
    TARGET.write_bytes(content)
    return TARGET


def main() -> None:
    """Build from the command line."""
    parser = argparse.ArgumentParser(description="Make forkproxy/config/schema.bin from xds-protos.")
    parser.add_argument("--wheel", type=Path, help="read this wheel, do not look for an installed xds-protos")
    parser.add_argument("--if-missing", action="store_true", help="do nothing when schema.bin is there")
    arguments = parser.parse_args()
    if arguments.if_missing and TARGET.exists():
        return
    path = build(arguments.wheel)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
