"""Reads YAML as plain JSON values, with the line of each, by the rules of YAML 1.2.

PyYAML follows YAML 1.1, where `1e-3` is text and `no` is false; both are traps in a search space.
Nothing but scalars, lists and mappings is built, and size and depth are bounded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from runstone import InvalidConfig

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 32
# Beyond it a whole number has no float.
_MAX_DIGITS = 300

Path_ = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """A safe loader that resolves plain scalars as YAML 1.2's core schema does."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # PyYAML's own form


_PLAIN = {
    "null": (r"(?:~|null|Null|NULL|)$", "~nN"),
    "bool": (r"(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    "int": (r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    "float": (
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
}
for _kind, (_pattern, _first) in _PLAIN.items():
    _firsts = [*_first, ""] if _kind == "null" else [*_first]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), _firsts)


def read(path: Path) -> tuple[Any, dict[Path_, int]]:
    """Return the content of a YAML (or JSON) file and the line, counted from 1, at which each part begins.

    Raises:
        InvalidConfig: the file is missing, too large, or not YAML; the message starts with its name.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InvalidConfig(f"{path}: has {size:,} bytes; a sweep's config has at most {MAX_BYTES:,}")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InvalidConfig(f"{path}: there is no such file") from None
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InvalidConfig(f"{path}: cannot be read: {error.strerror}") from None
    return parse(text, path.name)


def parse(text: str, file_name: str) -> tuple[Any, dict[Path_, int]]:
    """Return the content of YAML text and the line of each part; `file_name` starts the messages.

    Raises:
        InvalidConfig: it is not YAML, or beyond the limits.
    """
    try:
        loader = _Loader(text)
    except yaml.YAMLError:
        raise InvalidConfig(f"{file_name}: is not valid YAML: it holds characters that are not text") from None
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1})" if mark else ""
        raise InvalidConfig(f"{file_name}: is not valid YAML: {error.problem or error.context}{where}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidConfig(f"{file_name}: is not valid YAML: {str(error).splitlines()[0]}") from None
    finally:
        loader.dispose()
    builder = _Builder(file_name)
    return (None if root is None else builder.build(root, ())), builder.lines


class _Builder:
    """Turns a node tree into plain values."""

    def __init__(self, file_name: str) -> None:
        self.lines: dict[Path_, int] = {}
        self._file_name = file_name
        self._count = 0

    def build(self, node: yaml.Node, path: Path_) -> Any:
        self._count += 1
        # An alias is expanded each time it is met, so this also stops a few lines that stand for billions.
        if self._count > MAX_NODES or len(path) > MAX_DEPTH:
            raise self._mistake(node, f"more than {MAX_NODES:,} values or {MAX_DEPTH} levels; a config is smaller")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, path)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        raise self._mistake(node, f"the tag {node.tag} is not allowed")

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._mistake(key_node, "a key must be text")
            key = key_node.value
            if key in mapping:
                raise self._mistake(key_node, f"the key {key!r} is here twice")
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            mapping[key] = self.build(value_node, (*path, key))
        return mapping

    def _scalar(self, node: yaml.ScalarNode) -> bool | int | float | str | None:
        text = str(node.value)
        try:
            match node.tag.rpartition(":")[2]:
                case "str":
                    return text
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    if len(text) > _MAX_DIGITS:
                        raise ValueError(text)
                    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
                case "float":
                    special = text.lower().replace(".", "")
                    return float(special if special.lstrip("+-") in ("inf", "nan") else text)
        except ValueError:
            raise self._mistake(node, f"{text[:40]!r} is not a number") from None
        raise self._mistake(node, f"the tag {node.tag} is not allowed")

    def _mistake(self, node: yaml.Node, message: str) -> InvalidConfig:
        return InvalidConfig(f"{self._file_name}: {message} (line {node.start_mark.line + 1})")
