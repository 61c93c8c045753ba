"""Damaged stores: what is left of them is read, and nothing crashes or hangs."""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runstone import RunstoneError
from runstone.importers import detect, import_store
from runstone.importers.aim import runs_of
from runstone.importers.csvfile import read as read_csv
from runstone.importers.items import Reading
from runstone.importers.places import inner_path
from runstone.importers.wandb.wire import HEADER, Damage, WireError, message, records
from runstone.workspace import Workspace, ensure_workspace

from .conftest import GOLDEN

STORES = {
    "wandb": "wandb",
    "mlflow_db": "mlflow",
    "mlflow_folder": "mlflow",
    "trackio": "trackio",
    "dvclive": "dvclive",
    "clearml": "clearml",
    "neptune": "neptune",
}
BELOW = {"trackio": "trackio", "neptune": "exports", "mlflow_folder": "mlruns"}


@contextmanager
def unpacked(name: str) -> Iterator[tuple[Path, Workspace]]:
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(GOLDEN / f"{name}.tar.xz") as archive:
            archive.extractall(Path(folder, "store"), filter="data")
        yield Path(folder, "store", BELOW.get(name, "")), ensure_workspace(Path(folder, ".runstone"))


@pytest.mark.parametrize("name", list(STORES))
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_store_with_flipped_and_missing_bytes_is_read_as_far_as_it_goes(name: str, data: st.DataObject) -> None:
    with unpacked(name) as (store, workspace):
        files = sorted(path for path in store.rglob("*") if path.is_file() and path.stat().st_size)
        for _flip in range(data.draw(st.integers(1, 3))):
            path = data.draw(st.sampled_from(files))
            content = bytearray(path.read_bytes())
            if not content:
                continue
            place = data.draw(st.integers(0, len(content) - 1))
            if data.draw(st.booleans()):
                content[place] ^= 1 << data.draw(st.integers(0, 7))
            else:
                del content[place:]
            path.write_bytes(content)
        try:
            detect(store)
            result = import_store(workspace, STORES[name], store)
        except (RunstoneError, OSError):
            return
        for one in result.runs:
            assert one.held.points == one.added.points
            assert one.held.media == one.added.media


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_are_a_log_or_damage(data: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(HEADER + data)
        file.seek(0)
        damage = Damage()
        for record in records(file, damage):
            try:
                message(record)
            except WireError:
                continue


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_none(data: bytes) -> None:
    try:
        fields = message(data)
    except WireError:
        return
    assert all(number > 0 for number in fields)


@pytest.mark.parametrize("cut", [7, 8, 100, 20_000, 40_000, 70_000])
def test_a_log_of_wandb_that_was_cut_gives_the_records_before(cut: int) -> None:
    with unpacked("wandb") as (store, _workspace):
        (path,) = store.glob("wandb/*killed*/*.wandb")
        whole, damage = list(read_log(path, Damage())), Damage()
        path.write_bytes(path.read_bytes()[:cut])
        left = list(read_log(path, damage))
        assert left == whole[: len(left)]
        assert damage.pieces == 0
        assert len(left) > 50 or cut < 20_000


def read_log(path: Path, damage: Damage) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from records(file, damage)


def test_a_damaged_block_of_a_log_costs_only_its_own_records() -> None:
    with unpacked("wandb") as (store, _workspace):
        (path,) = store.glob("wandb/*killed*/*.wandb")
        content = bytearray(path.read_bytes())
        whole, damage = list(read_log(path, Damage())), Damage()
        content[40_000] ^= 1  # in the second of several blocks
        path.write_bytes(content)
        left = list(read_log(path, damage))
        assert damage.pieces == 1
        assert len(whole) // 2 < len(left) < len(whole)
        assert set(left) <= set(whole)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_file_is_a_csv_file_or_is_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "points.csv")
        path.write_bytes(data)
        try:
            for found in read_csv(Reading(path, Path(folder))):
                list(found.items())
        except RunstoneError:
            pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
EVENT = st.fixed_dictionaries(
    {"kind": st.sampled_from(["run", "points", "line", "image", "text", "histogram", "figure", "audio", "done", "x"])},
    optional=dict.fromkeys(
        ("hash", "name", "context", "params", "system", "tags", "step", "value", "time", "data", "edges"), JSON
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENT, max_size=12))
def test_anything_that_the_process_with_aim_says_is_taken_or_counted(events: list[dict[str, object]]) -> None:
    told = [json.loads(json.dumps(event)) for event in events]
    for found in runs_of(told, "a repository", lambda _run: {}):
        list(found.items())


@given(st.text(max_size=40))
def test_a_path_inside_never_leads_out(text: str) -> None:
    found = inner_path(text)
    if found is not None:
        assert (Path("/store") / found).is_relative_to("/store")
        assert ".." not in Path(found).parts
