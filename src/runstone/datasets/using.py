"""What a run takes as its data: a version by its name, or data of any kind, which becomes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runstone.datasets.adding import add
from runstone.datasets.refs import DatasetRef
from runstone.datasets.registry import Datasets
from runstone.datasets.urls import is_url
from runstone.datasets.version import DatasetVersion
from runstone.errors import InvalidName, InvalidValue


def is_reference(data: object, version: object = None) -> bool:
    """Return whether data is meant by the name of a version, such as `cifar@3`, not given itself."""
    if version is not None or isinstance(data, DatasetVersion):
        return True
    return isinstance(data, str) and "@" in data and not is_url(data) and not Path(data).expanduser().exists()


def find_used(datasets: Datasets, data: Any, version: str | int | None = None) -> DatasetVersion:
    """Return the version that a reference means.

    Raises:
        InvalidName, InvalidValue: it does not parse.
        DatasetNotFound: there is none.
    """
    if isinstance(data, DatasetVersion):
        return data
    if version is not None and not isinstance(data, str):
        raise InvalidValue("version= goes with the name of a dataset: use_dataset('cifar', version=3)")
    return datasets.find(DatasetRef(data, str(version)) if version is not None else data)


def add_used(
    datasets: Datasets, data: Any, *, name: str | None, role: str | None, store: bool, profile: bool | None
) -> DatasetVersion:
    """Add the data that a run uses; what has no name of its own is named by its role.

    Raises:
        InvalidName, InvalidValue, NotFound, OSError: as `add` does.
    """
    try:
        return add(datasets, data, name=name, store=store, profile=profile)
    except InvalidName:
        if name is not None or role is None:
            raise
    return add(datasets, data, name=role, store=store, profile=profile)
