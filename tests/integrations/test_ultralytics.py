"""`TrackingCallback` with the real Ultralytics, on a model without weights and pictures made here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore")]  # of its own code, on every kind of thing

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Import it with settings of its own, and offline: it keeps a file in the home folder and looks for updates."""
    os.environ["YOLO_CONFIG_DIR"] = str(tmp_path_factory.mktemp("ultralytics"))
    os.environ["YOLO_OFFLINE"] = "true"
    try:
        import ultralytics
    except Exception as error:  # it needs torchvision, which may not fit the torch that is there
        pytest.skip(f"Ultralytics cannot be imported: {error}")
    return ultralytics.YOLO


import runstone  # noqa: E402
from runstone_integrations.ultralytics import TrackingCallback  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    from PIL import Image

    folder = tmp_path_factory.mktemp("shapes")
    for part in ("images", "labels"):
        (folder / part).mkdir()
    random = np.random.default_rng(0)
    for number in range(4):
        pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        (folder / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images\nval: images\nnames: [square]\n")
    return str(folder / "data.yaml")


def train(model: Any, data: str, folder: Path, **options: Any) -> Any:
    common: dict[str, Any] = {
        "epochs": 2, "imgsz": 32, "batch": 2, "device": "cpu", "workers": 0, "plots": False, "verbose": False,
        "amp": False, "project": str(folder), "exist_ok": True, "seed": 0,
    }  # fmt: skip
    return model.train(data=data, **{**common, **options})


def read(tracker: TrackingCallback) -> runstone.RunInfo:
    assert tracker.run is not None
    return runstone.open_workspace().run(tracker.run.id)


def test_epochs_params_and_checkpoints_are_recorded(yolo: Any, data: str, tmp_path: Path) -> None:
    tracker, model = TrackingCallback(project="shapes", params={"mine": 1}), yolo("yolov8n.yaml")
    tracker.add_to(model)
    train(model, data, tmp_path, lr0=0.02, optimizer="SGD")
    info = read(tracker)
    assert (info.status, info.project, info.params["mine"]) == ("finished", "shapes", 1)
    rows = [line.split(",") for line in (Path(model.trainer.save_dir) / "results.csv").read_text().splitlines()]
    for name in ("train/box_loss", "metrics/mAP50(B)", "lr/pg0"):
        column = [cell.strip() for cell in rows[0]].index(name)
        assert info.series(name).step.tolist() == [0, 1]
        assert info.series(name).value.tolist() == pytest.approx([float(row[column]) for row in rows[1:]], abs=1e-4)
    told = info.params["ultralytics"]
    assert (told["args"]["lr0"], told["args"]["epochs"], told["ended_by"]) == (0.02, 2, "epochs")
    assert told["model"]["parameters"] > 1_000_000
    assert told["checkpoints"]["best"] == str(model.trainer.best)
    assert {artifact.name for artifact in info.artifacts} == {"checkpoints/best.pt", "checkpoints/last.pt"}


def test_request_to_stop_ends_the_training_after_the_batch(yolo: Any, data: str, tmp_path: Path) -> None:
    tracker, model = TrackingCallback(checkpoints="none"), yolo("yolov8n.yaml")
    asked: list[int] = []

    def ask(trainer: Any) -> None:
        if not asked:
            asked.append(trainer.epoch)
            runstone.open_workspace().request_stop(tracker.run.id, "prune")  # type: ignore[union-attr]

    model.add_callback("on_train_batch_start", ask)
    tracker.add_to(model)
    train(model, data, tmp_path, epochs=50)
    info = read(tracker)
    assert (info.status, info.params["ultralytics"]["ended_by"]) == ("pruned", "request")
    assert info.series("train/box_loss").step.tolist() == [0]
    assert info.artifacts == ()


def test_weights_are_the_same_with_and_without_and_a_run_of_the_user_stays_open(
    yolo: Any, data: str, tmp_path: Path
) -> None:
    states = []
    with runstone.start_run() as run:
        for is_tracked in (False, True):
            torch.manual_seed(0)
            model = yolo("yolov8n.yaml")
            if is_tracked:
                TrackingCallback().add_to(model)
            train(model, data, tmp_path, epochs=1)
            states.append(model.trainer.model.state_dict())
        assert not run.is_finished
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert runstone.open_workspace().run(run.id).series("train/box_loss").step.tolist() == [0]


def test_exception_in_a_with_block_fails_the_run(yolo: Any, data: str, tmp_path: Path) -> None:
    def explode(trainer: Any) -> None:
        raise RuntimeError("the user's own error")

    tracker, model = TrackingCallback(), yolo("yolov8n.yaml")
    tracker.add_to(model)
    model.add_callback("on_train_batch_end", explode)
    with pytest.raises(RuntimeError, match="the user's own error"), tracker:
        train(model, data, tmp_path)
    assert read(tracker).status == "failed"
    with pytest.raises(runstone.InvalidValue, match="all"):
        TrackingCallback(checkpoints="all")  # type: ignore[arg-type]
