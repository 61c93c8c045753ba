"""Runs as one portable file: all that they recorded, with the content that they refer to, checked by hash when read."""

from __future__ import annotations

from runstone.bundle.importing import ImportedBundle, ImportedRun, import_bundle
from runstone.bundle.reading import Bundle
from runstone.bundle.writing import Bundled, write_bundle

__all__ = ["Bundle", "Bundled", "ImportedBundle", "ImportedRun", "import_bundle", "write_bundle"]
