"""A bundle that came from somewhere: nothing in it is believed before it was checked."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from runstone.bundle import manifest as manifests
from runstone.bundle.archive import ArchiveReader
from runstone.bundle.manifest import BundledFile, BundledRun, Manifest, check_path
from runstone.errors import FormatError, InvalidName
from runstone.runlog.reader import read_events, read_journal


class Bundle:
    """An open bundle. What it promises was compared with what is in it; the bytes are when they are taken out.

    Args:
        source: The file, or an open one.

    Raises:
        FormatError: it is no bundle, damaged, of a newer version, or could do harm.
        OSError: it cannot be read.
    """

    def __init__(self, source: Path | BinaryIO, *, where: str | None = None) -> None:
        self.where = where or str(source)
        self._file = source.open("rb") if isinstance(source, Path) else source
        try:
            self._archive = ArchiveReader(self._file, self.where)
            told = self._archive.read(manifests.NAME, most=manifests.MOST_BYTES)
            self.manifest = Manifest.from_json(told, self.where)
            promised = {name: file.size_bytes for name, file in self.manifest.members()}
            extra = sorted(self._archive.names - set(promised) - {manifests.NAME})
            if extra:
                raise FormatError(
                    f"{self.where} is refused: it holds {extra[0]!r:.200}, which its manifest does not name"
                )
            for name, size in promised.items():
                if self._archive.size(name) != size:
                    raise FormatError(f"{self.where} is damaged: {name} is not as large as its manifest says")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Bundle:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._file.close()

    @property
    def size_bytes(self) -> int:
        """Of all that it holds, unpacked."""
        return sum(file.size_bytes for _name, file in self.manifest.members())

    def extract_run(self, run: BundledRun, target: Path) -> None:
        """Write the files of a run into a new folder, checked.

        Args:
            run: One of the manifest.
            target: The folder; its name is the run's id.

        Raises:
            FormatError: they are not what was promised, or what they tell of is not legal. Nothing stays.
            OSError: the disk is full.
        """
        target.mkdir(parents=True)
        for file in run.files:
            mode = 0o600 if file.is_private else 0o644
            self._archive.extract(
                f"{run.folder}/{file.name}",
                target / file.name,
                content_hash=file.hash,
                size=file.size_bytes,
                mode=mode,
            )
        self._check_run(run, target)

    def extract_content(self, content: BundledFile, target: Path) -> None:
        """Write a content to a new file, checked.

        Raises:
            FormatError: it is not what its name promises.
            OSError: the disk is full.
        """
        self._archive.extract(
            manifests.content_name(content.hash), target, content_hash=content.hash, size=content.size_bytes
        )

    def verify(self) -> None:
        """Read all of it and compare it with what its manifest promises.

        Raises:
            FormatError: it is damaged.
        """
        for name, file in self.manifest.members():
            self._archive.verify(name, content_hash=file.hash, size=file.size_bytes)

    def _check_run(self, run: BundledRun, folder: Path) -> None:
        """Check that the journals are those of this run, and that no path in them leads out."""
        journal = read_journal(folder)
        if not journal.is_created or journal.project != run.project:
            raise FormatError(
                f"{self.where} is refused: the journals of {run.run_id} are not those of a run of {run.project!r:.80}"
            )
        for _writer, event in read_events(folder):
            if event["event"] == "created" and event.get("run_id", run.run_id) != run.run_id:
                raise FormatError(f"{self.where} is refused: the journals of {run.run_id} are those of another run")
            for entry in event.get("files") or () if event["event"] == "artifact" else ():
                try:
                    check_path(str(entry["path"]))
                except (InvalidName, TypeError, KeyError) as error:
                    raise FormatError(f"{self.where} is refused: an artifact of {run.run_id}: {error}") from None
