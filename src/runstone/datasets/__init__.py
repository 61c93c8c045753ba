"""Versions of data: what a file, folder, table, array or URL held, proved by hashes, stored where that is asked for."""

from runstone.datasets.adding import add, update
from runstone.datasets.checkout import CheckedOut, check_out
from runstone.datasets.history import DatasetNotFound, Revocation
from runstone.datasets.manifest import Manifest, TreeFile
from runstone.datasets.refs import DatasetRef
from runstone.datasets.registry import Dataset, Datasets
from runstone.datasets.version import DatasetVersion

__all__ = [
    "CheckedOut",
    "Dataset",
    "DatasetNotFound",
    "DatasetRef",
    "DatasetVersion",
    "Datasets",
    "Manifest",
    "Revocation",
    "TreeFile",
    "add",
    "check_out",
    "update",
]
