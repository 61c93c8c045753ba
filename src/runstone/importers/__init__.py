"""Runs that other tools recorded become runs here: again and again without doubles, with counts in and out.

`items` says what a reader gives, one file or package a tool reads its store, `writing` makes runs of it, `registering`
models, `importing` does one whole import. Event files of TensorBoard have an importer of their own. See docs/import.md.
"""

from __future__ import annotations

from runstone.importers.importing import TOOLS, Import, detect, import_store
from runstone.importers.registering import ImportedModel
from runstone.importers.writing import Counts, ImportedRun

__all__ = ["TOOLS", "Counts", "Import", "ImportedModel", "ImportedRun", "detect", "import_store"]
