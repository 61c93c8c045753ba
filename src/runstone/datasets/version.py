"""One version of a dataset: what was recorded of it, and what it consists of, read when it is asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from runstone.blobs import Blobs
from runstone.datasets.history import Recorded, Revocation
from runstone.datasets.kinds import table_kind
from runstone.datasets.manifest import Manifest, TreeFile, shown_path
from runstone.datasets.scan import hash_file
from runstone.errors import NotFound

if TYPE_CHECKING:
    from runstone.datasets.checkout import CheckedOut
    from runstone.datasets.tables import TableFile


class DatasetVersion:
    """One immutable version of a dataset.

    Args:
        recorded: What its dataset's events say of it.
        blobs: The store that holds its manifest, and its content where it was stored.
        path: Where its data lies right now, where that is known.
    """

    def __init__(self, recorded: Recorded, blobs: Blobs, *, path: Path | None = None) -> None:
        self.recorded = recorded
        self._blobs = blobs
        self._path = path
        self._manifest: Manifest | None = None
        self._tables: list[dict[str, Any]] | None = None

    def __repr__(self) -> str:
        """Say which it is."""
        return f"<DatasetVersion {self} {self.hash[:12]}…>"

    def __str__(self) -> str:
        """Write it as a reference, such as `cifar@3`."""
        return str(self.recorded)

    def __eq__(self, other: object) -> bool:
        """Tell whether both are the same version of the same dataset."""
        return isinstance(other, DatasetVersion) and (self.name, self.version, self.hash) == (
            other.name,
            other.version,
            other.hash,
        )

    def __hash__(self) -> int:
        """Return a hash that fits `==`."""
        return hash((self.name, self.version, self.hash))

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.recorded.dataset

    @property
    def version(self) -> int:
        """Its number, counted from 1."""
        return self.recorded.version

    @property
    def hash(self) -> str:
        """BLAKE3 of its manifest: the same data has the same hash, in every workspace."""
        return self.recorded.manifest

    @property
    def is_stored(self) -> bool:
        """Whether its content lies in the store; else its hashes prove it, and the data lies where it lay."""
        return self.recorded.is_stored

    @property
    def size_bytes(self) -> int:
        """Sum over its files."""
        return self.recorded.size_bytes

    @property
    def revoked(self) -> Revocation | None:
        """Why it must not be used any more, if so."""
        return self.recorded.revoked

    @property
    def source(self) -> Mapping[str, Any]:
        """Where it came from: `path`, `url` and `pins`, `query`, `type`; whichever are known."""
        return self.recorded.source

    @property
    def source_text(self) -> str | None:
        """Where it came from, in a few words and without secrets."""
        found = self.source.get("path") or self.source.get("url") or self.source.get("query")
        return str(found) if found is not None else None

    @property
    def read_from(self) -> str | None:
        """Where its data was read just now, else where it came from; without secrets."""
        return shown_path(str(self._path)) if self._path is not None else self.source_text

    @property
    def manifest(self) -> Manifest:
        """What it consists of.

        Raises:
            NotFound: the store does not hold its manifest.
            FormatError: that is damaged.
        """
        if self._manifest is None:
            self._manifest = Manifest.unpack(self._blobs.read(self.hash))
        return self._manifest

    @property
    def files(self) -> tuple[TreeFile, ...]:
        """Its files, links and empty folders, sorted by path."""
        return self.manifest.files

    @property
    def tables(self) -> list[dict[str, Any]]:
        """What is known of its tables: `paths`, `schema`, and where they were read `rows` and `columns`."""
        if self._tables is None:
            about = self.recorded.about
            self._tables = json.loads(self._blobs.read(about))["tables"] if about is not None else []
        return self._tables

    @property
    def schema(self) -> dict[str, str]:
        """Column and type, of its first table; empty where it has none."""
        first = next((table for table in self.tables if table["schema"]), None)
        return {field["name"]: field["type"] for field in first["schema"]} if first is not None else {}

    @property
    def profile(self) -> dict[str, dict[str, Any]]:
        """What the values of each column are, of its first table; empty where none was read."""
        return next((table["columns"] for table in self.tables if "columns" in table), {})

    @property
    def path(self) -> Path:
        """A file or folder with the data: where it was used, else a read-only copy of links made from the store.

        Raises:
            NotFound: its content is neither in the store nor where it lay.
        """
        if self._path is None:
            self._path = self._materialised() if self.is_stored else self._source_path()
        return self._path

    def checkout(
        self, target: str | Path, *, link: bool = False, force: bool = False, exact: bool = False
    ) -> CheckedOut:
        """Write it to a file or folder, byte for byte; see `runstone.datasets.check_out`."""
        from runstone.datasets.checkout import check_out  # it needs this module

        return check_out(self, self._blobs, Path(target), link=link, force=force, exact=exact)

    def table_files(self) -> list[TableFile]:
        """Return its tables, to be read from the store or from where they lie."""
        from runstone.datasets.tables import TableFile  # Arrow, only for tables

        return [TableFile(file.path, self.opener(file)) for file in self.manifest.contents if table_kind(file.path)]

    def opener(self, file: TreeFile) -> Callable[[], BinaryIO]:
        """Return what opens one of its files, from the store or from where it lies.

        Raises:
            NotFound: when it is called, where the content is nowhere, or is another one by now.
        """
        content = str(file.hash)

        def opened() -> BinaryIO:
            if content in self._blobs:
                return self._blobs.open(content)
            place = self.place_of(file)
            if hash_file(place)[0] != content:
                raise FileNotFoundError(f"{place} was changed since it was {self}")
            return place.open("rb")

        return opened

    def place_of(self, file: TreeFile) -> Path:
        """Return where a file of it lies outside the store.

        Raises:
            NotFound: nobody knows.
        """
        base = self._path if self._path is not None else self._source_path()
        return base / os.fsdecode(file.path.encode("utf-8", "surrogateescape")) if base.is_dir() else base

    def _source_path(self) -> Path:
        told = self.source.get("path")
        if told is None:
            raise NotFound(
                f"the data of {self} is not in the store, and it came from no path; only its hashes are here"
            )
        path = Path(os.fsdecode(str(told).encode("utf-8", "surrogateescape")))
        if not path.exists():
            raise NotFound(f"the data of {self} is not in the store, and is no longer at {path}")
        return path

    def _materialised(self) -> Path:
        from runstone.datasets.checkout import check_out  # it needs this module

        folder = self._blobs.root.parent / "cache" / "datasets" / self.hash
        (folder / "data").mkdir(parents=True, exist_ok=True)
        # Each time: what somebody wrote into the copy is put right, at the price of stat calls where nobody did. Root
        # may write into a read-only link, and so into the store: it gets copies where bytes cannot be shared.
        check_out(self, self._blobs, folder / "data", link=os.geteuid() != 0, force=True)
        with suppress(OSError):  # collecting garbage leaves it for a while; one that is only read is not collected
            (folder / "used").touch()
        if self.manifest.form == "tree":
            return folder / "data"
        names = [file.path for file in self.manifest.contents]
        return folder / "data" if len(names) != 1 else folder / "data" / names[0]
