"""Models of the real frameworks: saved, registered, loaded, asked; and nothing executed that nobody trusted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"  # Keras reads it once, when it is imported

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import runstone
from runstone.errors import FormatError, InvalidValue, NotFound
from runstone.models import ModelVersion, SignatureMismatch, UntrustedModel, read_example, read_manifest
from runstone.workspace import Workspace

pytestmark = pytest.mark.heavy

TABLE = pd.DataFrame({"age": [20, 30, 40, 50] * 5, "city": ["Bern", "Köln", "Rom", "Bern"] * 5})
LABELS = np.array(["good", "bad", "bad", "good"] * 5)
_ran: list[str] = []


class Net(torch.nn.Module):
    """A module whose class can be imported and whose arguments are known."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.body = torch.nn.Linear(3, width)
        self.head = torch.nn.Linear(width, 2)
        self.tied = torch.nn.Linear(3, width, bias=False)
        self.tied.weight = self.body.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(torch.relu(self.body(x) + self.tied(x)))
        return found


class Needy(Net):
    """A module that says nothing of the arguments that it needs."""

    def __init__(self, width: int, extra: object) -> None:
        super().__init__(width)


def note(what: str) -> None:
    """Be seen: an unpickled `Shout` calls it."""
    _ran.append(what)


def doubled(x: Any) -> Any:
    """Do what no library does."""
    return x * 2


class Shout:
    """Something that is heard when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (note, ("unpickled",))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return runstone.ensure_workspace(tmp_path / ".runstone")


@pytest.fixture
def run(workspace: Workspace) -> Iterator[runstone.Run]:
    with runstone.start_run(project="p", workspace=workspace, environment=False, params={"depth": 3}) as run:
        yield run


def logged(version: ModelVersion | None) -> ModelVersion:
    assert version is not None
    return version


def pipeline() -> Any:
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["city"])])
    return make_pipeline(columns, LogisticRegression()).fit(TABLE, LABELS)


def test_a_scikit_learn_pipeline_comes_back_with_its_signature_labels_and_recipe(
    run: runstone.Run, workspace: Workspace
) -> None:
    model = pipeline()
    run.log({"auc": 0.5, "nothing": float("nan")}, step=0)
    run.log({"auc": 0.9}, step=1)
    version = logged(run.log_model(model, name="credit-risk", example=TABLE, metadata={"owner": "risk"}))
    assert str(version) == "credit-risk@1.0.0"
    loaded = runstone.load_model("credit-risk", workspace=workspace)
    assert (loaded.predict(TABLE[["city", "age"]]) == model.predict(TABLE)).all()
    manifest = loaded.manifest
    assert (manifest.flavour, manifest.labels) == ("sklearn", ("bad", "good"))
    assert (manifest.metrics, manifest.metadata) == ({"auc": 0.9}, {"owner": "risk"})
    assert manifest.recipe["params"] == {"depth": 3}
    assert manifest.run == {"id": run.id, "project": "p", "name": run.name}
    assert manifest.signature is not None
    assert [str(field) for field in manifest.signature.inputs.fields] == ["age: int64", "city: text"]
    assert read_example(manifest, workspace.blobs).equals(TABLE.head())
    with pytest.raises(SignatureMismatch, match="column 'city' is missing"):
        loaded.predict(TABLE[["age"]])
    (link,) = run.read().outputs
    assert (link.kind, link.name, link.version, link.hash) == ("model", "credit-risk", "1.0.0", version.manifest)


def test_what_skops_does_not_know_is_loaded_only_with_trust(run: runstone.Run, workspace: Workspace) -> None:
    model = make_pipeline(FunctionTransformer(doubled), LogisticRegression()).fit(np.eye(4), [0, 1, 0, 1])
    logged(run.log_model(model, name="m"))
    with pytest.raises(UntrustedModel) as caught:
        runstone.load_model("m", workspace=workspace)
    message = str(caught.value)
    assert f"comes from run {run.id}" in message
    assert "trusted=True" in message
    assert workspace.models.find("m").manifest[:16] in message
    assert workspace.models.find("m").author in message
    loaded = runstone.load_model("m", workspace=workspace, trusted=True)
    assert (loaded.predict(np.eye(4)) == model.predict(np.eye(4))).all()


def test_a_torch_module_comes_back_as_its_class_with_tied_weights(run: runstone.Run, workspace: Workspace) -> None:
    model = Net(width=6)
    x = torch.randn(5, 3)
    logged(run.log_model(model, name="net", example=x, init={"width": 6}))
    assert model.training  # asking it for its signature left it as it was
    loaded = runstone.load_model("net", workspace=workspace)
    assert type(loaded.native) is Net
    assert loaded.native.tied.weight is loaded.native.body.weight
    assert torch.equal(loaded.predict(x), model.eval()(x))
    assert loaded.manifest.signature is not None
    assert loaded.manifest.signature.to_json()["outputs"]["fields"][0]["shape"] == [-1, 2]
    with pytest.raises(SignatureMismatch, match="shape"):
        loaded.predict(torch.randn(5, 4))
    assert torch.equal(torch.as_tensor(read_example(loaded.manifest, workspace.blobs)), x)


def test_a_module_whose_class_cannot_be_made_says_how_it_can_be_loaded(run: runstone.Run, workspace: Workspace) -> None:
    model = Needy(4, object())
    logged(run.log_model(model, name="needy"))
    with pytest.raises(NotFound, match=r"does not say with which arguments Needy is made.*into=model"):
        runstone.load_model("needy", workspace=workspace)
    loaded = runstone.load_model("needy", workspace=workspace, into=Needy(4, None))
    assert torch.equal(loaded.native.head.weight, model.head.weight)
    with pytest.raises((InvalidValue, RuntimeError)):
        runstone.load_model("needy", workspace=workspace, into=Needy(5, None))


def test_a_class_of_a_script_is_loaded_into_a_model_that_is_given(tmp_path: Path, workspace: Workspace) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import torch, runstone\n"
        "class Own(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(2, 1)\n"
        f"with runstone.start_run(workspace={str(workspace.path)!r}, environment=False, on_error='raise') as run:\n"
        "    run.log_model(Own(), name='own')\n"
    )
    subprocess.run([sys.executable, str(script)], check=True)
    with pytest.raises(NotFound, match="was saved from Own of a script"):
        runstone.load_model("own", workspace=workspace)


@pytest.mark.parametrize("name", ["os:system", "builtins:eval", "tests.nowhere:X", "torch.nn:functional"])
def test_a_manifest_cannot_name_anything_but_a_module_to_be_made(
    run: runstone.Run, workspace: Workspace, name: str
) -> None:
    version = logged(run.log_model(Net(), name="net"))
    raw = workspace.blobs.read(version.manifest).replace(f"{__name__}:Net".encode(), name.encode())
    entry = workspace.blobs.put_bytes(raw, "manifest.json")
    workspace.models.create("forged").register(entry.hash, version="1.0.0")
    with pytest.raises((NotFound, InvalidValue), match=r"cannot be imported|no torch module"):
        runstone.load_model("forged", workspace=workspace)


def test_a_torch_program_runs_without_its_class_and_takes_trust(run: runstone.Run, workspace: Workspace) -> None:
    model, x = Net().eval(), torch.randn(2, 3)
    program = torch.export.export(model, (x,))
    version = logged(run.log_model(program, name="program", example=x))
    assert read_manifest(version, workspace.blobs).flavour == "torch.export"
    with pytest.raises(UntrustedModel, match="program"):
        runstone.load_model("program", workspace=workspace)
    loaded = runstone.load_model("program", workspace=workspace, trusted=True)
    assert torch.allclose(loaded.predict(x), model(x))


def test_a_pickle_is_never_opened_without_trust(run: runstone.Run, workspace: Workspace) -> None:
    with pytest.raises(InvalidValue, match='flavour="pickle"'):
        run.log_model(Shout(), name="m")
    logged(run.log_model(Shout(), name="m", flavour="pickle"))
    _ran.clear()
    with pytest.raises(UntrustedModel, match="is a pickle, which may execute anything"):
        runstone.load_model("m", workspace=workspace)
    assert _ran == []
    runstone.load_model("m", workspace=workspace, trusted=True)
    assert _ran == ["unpickled"]


# Keras's own conversion of torch tensors, with NumPy 2
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_a_keras_model_comes_back_and_its_lambda_takes_trust(run: runstone.Run, workspace: Workspace) -> None:
    keras = pytest.importorskip("keras")
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    logged(run.log_model(model, name="plain", example=x))
    loaded = runstone.load_model("plain", workspace=workspace)
    assert np.allclose(loaded.predict(x), model.predict(x, verbose=0))
    odd = keras.Sequential([keras.layers.Input((3,)), keras.layers.Lambda(lambda t: t * 2)])
    logged(run.log_model(odd, name="odd"))
    with pytest.raises(UntrustedModel, match="Lambda"):
        runstone.load_model("odd", workspace=workspace)
    assert np.allclose(runstone.load_model("odd", workspace=workspace, trusted=True).predict(x), x * 2)


def test_an_onnx_graph_is_run_as_it_was_logged_or_from_its_file(
    run: runstone.Run, workspace: Workspace, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    x = np.ones((3, 2))
    logged(run.log_model(model, name="double", example=x))
    assert (runstone.load_model("double", workspace=workspace).predict(x) == 2).all()
    onnx.save(model, tmp_path / "m.onnx")
    version = logged(run.log_model(tmp_path / "m.onnx", name="double"))
    assert read_manifest(version, workspace.blobs).flavour == "onnx"
    assert (runstone.load_model("double", workspace=workspace).predict({"x": x}) == 2).all()


def test_plain_files_come_back_as_they_were(run: runstone.Run, workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"abc")
    (folder / "deep" / "config.json").write_text("{}")
    logged(run.log_model(folder, name="folder"))
    loaded = runstone.load_model("folder", workspace=workspace)
    assert (loaded.native / "weights.bin").read_bytes() == b"abc"
    assert (loaded.native / "deep" / "config.json").read_text() == "{}"
    with pytest.raises(InvalidValue, match="predict nothing"):
        loaded.predict(1)
    place = loaded.native
    del loaded
    assert not place.exists()
    logged(run.log_model(folder / "weights.bin", name="file"))
    one = runstone.load_model("file", workspace=workspace)
    assert one.native.read_bytes() == b"abc"
    with pytest.raises(NotFound, match="no file or folder"):
        run.log_model(tmp_path / "nothing", name="file")


def test_a_damaged_file_is_found_when_a_model_is_loaded(run: runstone.Run, workspace: Workspace) -> None:
    version = logged(run.log_model(pipeline(), name="m"))
    manifest = read_manifest(version, workspace.blobs)
    path = workspace.blobs.object_path(manifest.files[0].hash)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError):
        runstone.load_model("m", workspace=workspace)


def test_a_path_in_a_manifest_never_leads_out(run: runstone.Run, workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    version = logged(run.log_model(tmp_path / "f", name="m"))
    raw = workspace.blobs.read(version.manifest).replace(b'"path": "f"', b'"path": "../../evil"')
    entry = workspace.blobs.put_bytes(raw, "manifest.json")
    workspace.models.get("m").register(entry.hash, version="9.0.0")
    with pytest.raises(FormatError, match="outside of its folder"):
        runstone.load_model("m@9.0.0", workspace=workspace)


def test_the_number_follows_the_evidence_and_a_lower_one_takes_a_reason(
    run: runstone.Run, workspace: Workspace
) -> None:
    model = pipeline()
    assert str(logged(run.log_model(model, name="m", example=TABLE)).version) == "1.0.0"
    again = logged(run.log_model(model, name="m", example=TABLE))
    assert str(again.version) == "1.0.1"
    assert again.proposal["reasons"] == [{"level": "patch", "what": "the same recipe, trained again"}]
    other = make_pipeline(StandardScaler(), LogisticRegression()).fit(TABLE[["age"]], LABELS)
    with pytest.raises(InvalidValue, match=r"1\.0\.2 is lower than 1\.1\.0"):
        run.log_model(other, name="m", example=TABLE[["age"]], version="patch")
    lower = logged(run.log_model(other, name="m", example=TABLE[["age"]], version="patch", reason="nobody uses it yet"))
    assert (str(lower.version), lower.override_reason) == ("1.0.2", "nobody uses it yet")
    assert str(logged(run.log_model(model, name="m", example=TABLE, version="major")).version) == "2.0.0"
    candidate = logged(run.log_model(other, name="m", example=TABLE[["age"]], pre="rc.1"))
    assert str(candidate.version) == "2.1.0-rc.1"
    assert str(workspace.models.find("m").version) == "2.0.0"


def test_a_run_records_the_model_that_it_used(run: runstone.Run, workspace: Workspace) -> None:
    logged(run.log_model(pipeline(), name="teacher"))
    with runstone.start_run(project="p", workspace=workspace, environment=False) as student:
        student.use_model("teacher@latest", role="teacher")
        student.use_model("teacher@1.0.0", role="teacher")
    (link,) = student.read().inputs
    assert (link.kind, link.name, link.version, link.role) == ("model", "teacher", "1.0.0", "teacher")


def test_with_warn_a_model_that_cannot_be_saved_does_not_stop_the_run(workspace: Workspace) -> None:
    with (
        runstone.start_run(project="p", workspace=workspace, environment=False, on_error="warn") as run,
        pytest.warns(runstone.TrackingWarning, match="could not record model"),
    ):
        assert run.log_model(object(), name="m") is None
    assert run.read().status is runstone.Status.FINISHED
