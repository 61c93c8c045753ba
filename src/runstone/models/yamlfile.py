"""YAML files of the registry, read strictly: nothing is executed, and a key that occurs twice is a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runstone.errors import InvalidConfig
from runstone.yamltree import composed


def read_yaml(path: Path) -> Any:
    """Return what a file holds.

    Raises:
        InvalidConfig: it is no YAML, or says something twice; or PyYAML is not installed.
        OSError: it cannot be read.
    """
    return parse_yaml(path.read_bytes(), path.name)


def parse_yaml(data: bytes, name: str) -> Any:
    """Return what bytes hold; as `read_yaml`."""
    try:
        import yaml  # an extra, only where such a file is used
    except ImportError:
        raise InvalidConfig(f"{name}: it takes PyYAML to read it: pip install 'runstone[models]'") from None

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[Any] = set()
            for key_node, _value in node.value:
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, (str, int, float, bool)) and key in seen:
                    line = key_node.start_mark.line + 1
                    raise InvalidConfig(f"{name}: line {line}: {key!r:.80} stands there twice")
                if isinstance(key, (str, int, float, bool)):
                    seen.add(key)
            return super().construct_mapping(node, deep)

    try:
        return composed(Strict, data.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, InvalidConfig):
            raise
        problem = " ".join(str(error).split()).replace('in "<unicode string>", ', "in ")
        raise InvalidConfig(f"{name}: {problem}") from None
