"""The number that a new version should have, and the reasons for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from runstone.errors import FormatError
from runstone.models.evidence import propose
from runstone.models.manifest import Manifest
from runstone.models.semver import SemVer
from runstone.models.signature import Signature
from runstone.values import FileEntry

FILE = FileEntry("model.skops", "a" * 64, 10)
OLD = Manifest(
    flavour="sklearn",
    files=(FILE,),
    signature=Signature.infer(pd.DataFrame({"age": [1], "income": [1.0]}), np.zeros(1)),
    labels=("good", "bad"),
    architecture="f" * 64,
    run={"id": "r1", "project": "p", "name": "n"},
    recipe={
        "code": {"commit": "1" * 40, "is_dirty": False},
        "params": {"model": {"depth": 3}, "seed": 1},
        "data": [{"name": "loans", "version": "3", "hash": "b" * 64}],
    },
    metrics={"auc": 0.9, "loss": float("nan")},
)


def recipe(**changes: Any) -> dict[str, Any]:
    return {**OLD.recipe, **changes}


@pytest.mark.parametrize(
    ("changes", "number", "reason"),
    [
        ({}, "1.2.4", "the same recipe, trained again"),
        ({"files": (FileEntry("model.skops", "c" * 64, 11),)}, "1.2.4", "the same recipe, trained again"),
        ({"recipe": recipe(params={"model": {"depth": 3}, "seed": 2})}, "1.2.4", "another seed: seed"),
        (
            {"recipe": recipe(code={"commit": "2" * 40, "is_dirty": False})},
            "1.2.4",
            "the code is another commit: 2222222222 instead of 1111111111",
        ),
        ({"recipe": recipe(params={"model": {"depth": 4}, "seed": 1})}, "1.3.0", "other params: model.depth 3 → 4"),
        (
            {"recipe": recipe(data=[{"name": "loans", "version": "4", "hash": "d" * 64}])},
            "1.3.0",
            "it was trained on other data: loans",
        ),
        ({"architecture": "e" * 64}, "1.3.0", "its structure changed"),
        ({"signature": Signature.infer(pd.DataFrame({"age": [1]}), np.zeros(1))}, "1.3.0", "input 'income' is gone"),
        (
            {"signature": Signature.infer(pd.DataFrame({"age": [1], "income": [1.0], "city": ["x"]}), np.zeros(1))},
            "2.0.0",
            "input 'city' is new",
        ),
        ({"labels": ("good", "bad", "unknown")}, "2.0.0", "the labels changed: with unknown"),
        ({"labels": ("good",)}, "2.0.0", "the labels changed: without bad"),
        ({"labels": ("bad", "good")}, "2.0.0", "the labels are in another order"),
        ({"flavour": "onnx"}, "2.0.0", "it is loaded as onnx instead of sklearn"),
        ({"signature": None}, "2.0.0", "the signature is gone"),
    ],
)
def test_the_number_follows_from_what_changed(changes: dict[str, Any], number: str, reason: str) -> None:
    found = propose(dataclasses.replace(OLD, **changes), OLD, SemVer(1, 2, 3))
    assert str(found.version) == number
    assert found.reasons[0].what == reason
    assert found.level == found.reasons[0].level


def test_the_weightiest_reason_comes_first_and_decides() -> None:
    new = dataclasses.replace(OLD, labels=("good",), recipe=recipe(params={"model": {"depth": 4}, "seed": 2}))
    found = propose(new, OLD, SemVer(1, 2, 3))
    assert [reason.level for reason in found.reasons] == ["major", "minor", "patch"]
    assert found.to_json()["reasons"][0] == {"level": "major", "what": "the labels changed: without bad"}


def test_the_first_version_is_1_0_0() -> None:
    assert str(propose(OLD, None, None).version) == "1.0.0"


def test_a_manifest_is_read_as_it_is_written_and_the_same_content_gives_the_same_bytes() -> None:
    found = Manifest.from_bytes(OLD.to_bytes())
    assert found.to_bytes() == OLD.to_bytes()
    assert np.isnan(found.metrics["loss"])
    assert dataclasses.replace(found, metrics={}) == dataclasses.replace(OLD, metrics={})
    again = dataclasses.replace(OLD, recipe=dict(reversed(list(OLD.recipe.items()))))
    assert again.to_bytes() == OLD.to_bytes()


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"kind": "dataset"}', b'{"kind":"model","format":2}', b"\xff"])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="manifest"):
        Manifest.from_bytes(data)
