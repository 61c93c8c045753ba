"""How a version of a dataset is named: `cifar@3`, `cifar@latest`, `cifar@train-set`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runstone import catalog
from runstone.errors import InvalidName
from runstone.names import check_name

LATEST = "latest"
_NUMBER = re.compile(r"v?([1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """Which version of which dataset is meant: a number, an alias, or `latest`."""

    name: str
    selector: str = LATEST

    @classmethod
    def parse(cls, text: str) -> DatasetRef:
        """Read `name` or `name@selector`; `dataset:` in front is passed over.

        Raises:
            InvalidName: no dataset or no version is named.
        """
        name, has_selector, selector = text.removeprefix("dataset:").rpartition("@") if "@" in text else (text, "", "")
        name = name.removeprefix("dataset:")
        check_name(name, "dataset")
        if has_selector and not selector:
            raise InvalidName(f"{text!r:.120} names no version after @; give a number, an alias or 'latest'")
        return cls(name, selector or LATEST)

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        return f"{self.name}@{self.selector}"


def check_dataset_name(name: object) -> str:
    """Return the name of a dataset that can be told from a reference.

    Raises:
        InvalidName: it cannot be kept.
    """
    checked = check_name(name, "dataset")
    if "@" in checked or checked.startswith("dataset:"):
        raise InvalidName(f"the name of a dataset cannot hold '@' or begin with 'dataset:': {checked!r:.80}")
    return checked


def check_alias(alias: object) -> str:
    """Return an alias that cannot be taken for a version.

    Raises:
        InvalidName: it could be, or is no plain word.
    """
    return catalog.check_alias(
        alias, lambda word: "a version" if word.lower() == LATEST or number_in(word) is not None else None
    )


def number_in(selector: str) -> int | None:
    """Return the number that a selector such as `3` or `v3` is, if it is one."""
    found = _NUMBER.fullmatch(selector)
    return int(found[1]) if found else None
