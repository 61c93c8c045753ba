"""What a version of a model consists of and came from: one JSON document, kept by its content's hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runstone.errors import FormatError
from runstone.models.signature import Signature
from runstone.values import FileEntry

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that never changes of a version.

    Attributes:
        flavour: How its files are loaded: `sklearn`, `torch`, `keras`, `onnx`, `files`.
        files: What it consists of, by content.
        loading: What loading it needs to know beside the files, such as the class and the versions of libraries.
        signature: What it takes and gives, if known.
        example: Its input example among the files' hashes, if there is one.
        labels: The classes that it tells apart, in order, if it is a classifier.
        architecture: A hash of its structure without its weights, if known.
        run: `id`, `project`, `name` of the run that made it, if one did.
        recipe: What it was made with: `code` (`commit`, `is_dirty`), `params`, `data` (inputs by name, version and
            hash), `packages`.
        metrics: The run's metrics when the version was registered: last values by name.
        metadata: What the one who logged it said of it.
    """

    flavour: str
    files: tuple[FileEntry, ...]
    loading: Mapping[str, Any] = field(default_factory=dict)
    signature: Signature | None = None
    example: FileEntry | None = None
    labels: tuple[Any, ...] | None = None
    architecture: str | None = None
    run: Mapping[str, Any] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Sum over the files."""
        return sum(entry.size_bytes for entry in self.files)

    def to_bytes(self) -> bytes:
        """Return it as JSON; the same content gives the same bytes."""
        content = {
            "format": FORMAT,
            "kind": "model",
            "flavour": self.flavour,
            "files": [_file(entry) for entry in self.files],
            "loading": dict(self.loading),
            "signature": self.signature.to_json() if self.signature else None,
            "example": _file(self.example) if self.example else None,
            "labels": list(self.labels) if self.labels is not None else None,
            "architecture": self.architecture,
            "run": dict(self.run) if self.run else None,
            "recipe": dict(self.recipe),
            "metrics": {name: _number(value) for name, value in self.metrics.items()},
            "metadata": dict(self.metadata),
        }
        return json.dumps(content, ensure_ascii=False, sort_keys=True, allow_nan=False, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Return what `to_bytes` gave.

        Raises:
            FormatError: a newer version wrote it, or it is something else.
        """
        try:
            raw = json.loads(data)
            if raw["kind"] != "model":
                raise FormatError(f"this is the manifest of a {raw['kind']}, not of a model")
            if raw["format"] > FORMAT:
                raise FormatError(
                    f"the manifest has format {raw['format']}; this version reads {FORMAT}: update runstone"
                )
            return cls(
                flavour=raw["flavour"],
                files=tuple(_entry(entry) for entry in raw["files"]),
                loading=raw["loading"],
                signature=Signature.from_json(raw["signature"]) if raw["signature"] else None,
                example=_entry(raw["example"]) if raw["example"] else None,
                labels=tuple(raw["labels"]) if raw["labels"] is not None else None,
                architecture=raw["architecture"],
                run=raw["run"],
                recipe=raw["recipe"],
                metrics={name: float(value) for name, value in raw["metrics"].items()},
                metadata=raw["metadata"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"this is not the manifest of a model: {error!r}") from None


def _file(entry: FileEntry) -> dict[str, Any]:
    return {"path": entry.path, "hash": entry.hash, "size": entry.size_bytes}


def _entry(raw: Mapping[str, Any]) -> FileEntry:
    return FileEntry(path=raw["path"], hash=raw["hash"], size_bytes=raw["size"])


def _number(value: float) -> float | str:
    """Return a float as JSON can hold it; `float` reads the text again."""
    return value if value - value == 0 else str(value)
