"""What a run uses and makes is recorded, whatever it is, and never stops it."""

from __future__ import annotations

import http.server
import threading
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import runstone
from runstone.datasets import DatasetNotFound, Datasets, update
from runstone.errors import InvalidValue, NotFound
from runstone.workspace import ensure_workspace


@pytest.fixture
def datasets(tmp_path: Path) -> Datasets:
    return ensure_workspace(tmp_path / ".runstone").datasets


def test_a_run_records_what_it_used_and_made(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("x,y\n1,2\n3,4\n")
    with runstone.start_run(environment=False) as run:
        used = run.use_dataset(tmp_path / "train.csv", role="train")
        made = run.log_dataset(np.arange(4.0), name="predictions")
    assert used is not None
    assert made is not None
    assert not used.is_stored
    assert used.path == tmp_path / "train.csv"
    assert used.schema == {"x": "int64", "y": "int64"}
    assert used.profile["y"]["mean"] == 3.0
    assert made.is_stored
    assert made.recorded.run_id == run.id
    info = run.read()
    (link,) = info.inputs
    assert (link.kind, link.name, link.version, link.hash) == ("dataset", "train.csv", "1", used.hash)
    assert (link.role, link.source) == ("train", str(tmp_path / "train.csv"))
    assert [(link.name, link.version) for link in info.outputs] == [("predictions", "1")]


def test_a_version_is_used_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.txt").write_text("a")
    datasets = ensure_workspace(tmp_path / ".runstone").datasets
    datasets.add(tmp_path / "d", name="letters")
    datasets.get("letters").set_alias("gold", 1)
    with runstone.start_run(environment=False) as run:
        by_alias = run.use_dataset("letters@gold")
        by_number = run.use_dataset("letters", version=1)
        with pytest.raises(DatasetNotFound, match="has no version or alias '2'"):
            run.use_dataset("letters@2")
    assert by_alias is not None
    assert by_alias == by_number
    assert (by_alias.path / "a.txt").read_text() == "a"


def test_data_that_cannot_be_hashed_only_warns(tmp_path: Path) -> None:
    with runstone.start_run(environment=False, on_error="warn") as run:
        with pytest.warns(runstone.TrackingWarning, match="no file or folder"):
            assert run.use_dataset(tmp_path / "nothing") is None
        with pytest.warns(runstone.TrackingWarning, match="Python objects"):
            assert run.use_dataset(np.array([object()]), name="o") is None
    assert run.read().status == runstone.Status.FINISHED


def test_a_revoked_version_is_used_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    datasets = ensure_workspace(tmp_path / ".runstone").datasets
    datasets.add(tmp_path / "a.txt")
    datasets.get("a.txt").revoke(1, reason="wrong labels")
    with runstone.start_run(environment=False) as run, pytest.warns(runstone.TrackingWarning, match="wrong labels"):
        run.use_dataset(tmp_path / "a.txt")


def test_a_run_that_records_nothing_uses_data_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNSTONE_DISABLED", "1")
    with runstone.start_run() as run:
        assert run.use_dataset(tmp_path) is None
        assert run.log_dataset(tmp_path, name="x") is None
    assert not (tmp_path / ".runstone").exists()


def test_arrays_are_told_by_their_numbers_not_by_their_memory(datasets: Datasets) -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    first = datasets.add(array, name="a")
    assert datasets.add(np.asfortranarray(array), name="a") == first
    assert datasets.add(np.repeat(array, 2, axis=0)[::2], name="a") == first
    assert datasets.add(array.astype(np.float64), name="a").version == 2
    assert np.array_equal(np.load(first.path), array)
    both = datasets.add({"x": array, "y": array[:, 0]}, name="both")
    assert [file.path for file in both.files] == ["x.npy", "y.npy"]
    assert np.load(datasets.add(np.array(3.5), name="scalar").path) == 3.5


def test_objects_without_fixed_bytes_are_refused(datasets: Datasets) -> None:
    with pytest.raises(InvalidValue, match="give a path, a URL, a table"):
        datasets.add(object(), name="o")
    with pytest.raises(InvalidValue, match="Python objects"):
        datasets.add(np.array([{}]), name="o")


@pytest.mark.heavy
def test_datasets_of_torch_are_hashed_as_far_as_they_show_their_data(datasets: Datasets, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data
    tensors = data.TensorDataset(torch.arange(10.0), torch.zeros(10))
    first = datasets.add(tensors, name="t")
    assert first.is_stored
    assert datasets.add(data.TensorDataset(torch.arange(10.0), torch.zeros(10)), name="t") == first
    assert datasets.add(data.TensorDataset(torch.arange(10.0), torch.ones(10)), name="t").version == 2
    subset = datasets.add(data.DataLoader(data.Subset(tensors, [1, 2])), name="s")
    assert any("indices" in file.path for file in subset.files)
    assert datasets.add(torch.arange(3), name="one").files[0].path == "data.npy"

    class Opaque(data.Dataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> int:
            return index

    opaque = datasets.add(Opaque(), name="o")
    assert not opaque.is_stored
    assert "only its type and length count" in opaque.manifest.not_hashed[0]


def test_polars_is_the_same_as_arrow(datasets: Datasets) -> None:
    polars = pytest.importorskip("polars")
    data = polars.DataFrame({"x": [1, 2, 3], "s": ["a", None, "c"]})
    first = datasets.add(data, name="p")
    assert datasets.add(data.to_arrow(), name="p").schema.keys() == first.schema.keys()
    assert first.profile["s"]["nulls"] == 1


def test_hugging_face_says_what_is_not_hashed(datasets: Datasets) -> None:
    hugging_face = pytest.importorskip("datasets")
    data = hugging_face.Dataset.from_dict({"x": [1, 2, 3]})
    version = datasets.add(data, name="hf")
    assert version.manifest.facts["data"]["num_rows"] == 3
    assert "fingerprint" in version.manifest.not_hashed[0]
    assert datasets.add(data, name="hf") == version


def test_anything_with_an_arrow_stream_is_a_table(datasets: Datasets) -> None:
    class Relation:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return pa.table({"x": [1, 2]}).__arrow_c_stream__(requested_schema)

    assert datasets.add(Relation(), name="r").schema == {"x": "int64"}


# --- URLs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_url_is_pinned_fetched_and_updated(datasets: Datasets, site: tuple[str, Path]) -> None:
    pytest.importorskip("aiohttp")
    url, folder = site
    (folder / "t.csv").write_text("x\n1\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        pinned = datasets.add(f"{url}/t.csv", name="pinned", store=False)
        assert not pinned.is_stored
        assert pinned.files[0].hash is None
        assert datasets.add(f"{url}/t.csv", name="pinned", store=False) == pinned
        fetched = datasets.add(f"{url}/t.csv")
        assert (fetched.name, fetched.schema) == ("t.csv", {"x": "int64"})
        assert update(datasets, "t.csv") == fetched
        time.sleep(1.1)  # HTTP tells times in seconds
        (folder / "t.csv").write_text("x\n2\n")
        assert update(datasets, "t.csv").version == 2
        assert update(datasets, "pinned").version == 2
        with pytest.raises(NotFound, match="nothing at"):
            datasets.add(f"{url}/nothing.csv")


def test_a_folder_at_a_url_is_fetched_whole(datasets: Datasets, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.pipe({"/bucket/d/a.txt": b"a", "/bucket/d/s/b.txt": b"b"})
    try:
        version = datasets.add("memory://bucket/d")
        version.checkout(tmp_path / "out")
        assert (tmp_path / "out" / "s" / "b.txt").read_bytes() == b"b"
        assert set(version.source["pins"]) == {"a.txt", "s/b.txt"}
        assert list((datasets.workspace / "cache" / "incoming").iterdir()) == []
    finally:
        store.rm("/bucket", recursive=True)
