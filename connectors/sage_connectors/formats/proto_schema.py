"""Protobuf schemas at run time: the text of ``.proto`` files into classes of messages.

``protoc`` compiles the text, in a process of its own: a schema comes from a registry, and a bad one
ends that process at most. It takes half a second, once per schema and worker.
"""

import functools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sage_connectors.formats.schema_registry import Schema
from sage_flink.common.errors import ConfigError, StoreUnavailable

COMPILE_TIMEOUT_S = 60
_FILE = "sage_message.proto"


def message_named(schema: Schema, name: str) -> Any:
    """The class of the type ``name`` (empty: the file's first type).

    Raises:
        ConfigError: the schema cannot be compiled, or has no such type.
    """
    pool, file = _pool(schema)
    if not name:
        return message_at(schema, (0,))
    try:
        return _class(pool.FindMessageTypeByName(name))
    except KeyError as error:
        known = ", ".join(f"{file.package}.{each.name}".strip(".") for each in _types(file))
        raise ConfigError(f"protobuf: message must be one of {known}, got {name!r}") from error


def message_at(schema: Schema, path: tuple[int, ...]) -> Any:
    """The class of the type at ``path``: the index in the file, then in the type around it.

    Raises:
        ConfigError: the schema cannot be compiled, or has no such type.
    """
    pool, file = _pool(schema)
    types, name = _types(file), file.package
    for index in path:
        if not 0 <= index < len(types):
            raise ConfigError(f"protobuf: the schema has no message at {list(path)}")
        name = f"{name}.{types[index].name}".removeprefix(".")
        types = _types(types[index])
    return _class(pool.FindMessageTypeByName(name))


def path_of(schema: Schema, kind: Any) -> tuple[int, ...]:
    """The indexes of a class of messages, as :func:`message_at` takes them."""
    _, file = _pool(schema)
    below = kind.DESCRIPTOR.full_name.removeprefix(f"{file.package}.")
    types, path = _types(file), []
    for name in below.split("."):
        index = next(n for n, each in enumerate(types) if each.name == name)
        path.append(index)
        types = _types(types[index])
    return tuple(path)


def _types(around: Any) -> list[Any]:
    """The types declared in a file or a type, in order.

    Without those that a map field implies: Confluent's serializers count what the text declares.
    """
    types = getattr(around, "message_type", None)
    types = around.nested_type if types is None else types
    return [each for each in types if not each.options.map_entry]


def _class(descriptor: Any) -> Any:
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(descriptor)


@functools.lru_cache(1_000)
def _pool(schema: Schema) -> tuple[Any, Any]:
    """The descriptors of the schema and its imports, and its own file."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    files = descriptor_pb2.FileDescriptorSet.FromString(_compile(schema))
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool, next(file for file in files.file if file.name == _FILE)


def _compile(schema: Schema) -> bytes:
    with tempfile.TemporaryDirectory(prefix="sage-proto-") as folder:
        root = Path(folder)
        for name, text in (*((r.name, r.text) for r in schema.references), (_FILE, schema.text)):
            path = (root / name).resolve()
            if not path.is_relative_to(root.resolve()):
                raise ConfigError(f"protobuf: the import {name!r:.200} is outside of its folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        out = root / "descriptors"
        done = _protoc(root, f"--descriptor_set_out={out}")
        if "No module named" in done.stderr:
            raise ConfigError("protoc is missing: pip install 'sage-flink[kafka]'")
        if done.returncode != 0:
            raise ConfigError(f"protobuf: not a schema: {done.stderr.strip()[:500]}")
        return out.read_bytes()


def _protoc(root: Path, option: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "grpc_tools.protoc", "--include_imports", f"-I{root}", option]
    try:
        return subprocess.run(
            [*line, _FILE],
            capture_output=True,
            text=True,
            cwd=root,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:  # of a machine that is too busy
        raise StoreUnavailable(f"protoc took more than {COMPILE_TIMEOUT_S} s") from error
