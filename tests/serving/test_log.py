"""The prediction log, labels that come later, and another version under the same name."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone.monitoring.tables import labelled_folder
from runstone.serving import LogConfig
from runstone.serving.counts import Counts
from runstone.serving.predictionlog import Prediction, PredictionLog, new_request_id
from tests.serving.conftest import people, register, trained

ROWS = people(3, seed=7)
BODY = {"inputs": ROWS.to_dict("records")}


def rows_in(folder: Path, pattern: str = "*.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob(pattern)) for line in path.read_text().splitlines()]


def until(is_true: Callable[[], Any], what: str) -> None:
    for _try in range(600):
        if is_true():
            return
        time.sleep(0.02)
    raise AssertionError(f"did not come: {what}")


def prediction(rows: int = 2) -> Prediction:
    values = np.arange(rows, dtype=float)
    return Prediction(time.time(), "1.0.0", new_request_id(), {"x": values}, rows, {"prediction": values * 2}, 0, rows)


def test_predictions_are_kept_a_row_each_with_what_they_were_asked(
    credit: Path, tmp_path: Path, opened: Callable[..., Any]
) -> None:
    folder = tmp_path / "log"
    client = opened(credit, log=LogConfig(folder=folder, sample=1.0, rows=3))
    answer = client.post("/predict", json=BODY).json()
    until(lambda: rows_in(folder), "a closed part")
    found = rows_in(folder)
    assert [row["row"] for row in found] == [0, 1, 2]
    assert [row["inputs"] for row in found] == BODY["inputs"]
    assert [row["outputs"] for row in found] == [{"prediction": value} for value in answer["predictions"]]
    assert {(row["request"], row["version"], row["label"]) for row in found} == {(answer["request"], "1.0.0", None)}
    assert "runstone_predict_logged_rows_total 3\n" in client.get("/metrics").text


def test_labels_come_later_to_predictions_that_were_kept(
    credit: Path, tmp_path: Path, opened: Callable[..., Any]
) -> None:
    folder = tmp_path / "log"
    client = opened(credit, log=LogConfig(folder=folder, sample=1.0))
    first, second = (client.post("/predict", json=BODY).json()["request"] for _time in range(2))
    until(lambda: len(rows_in(folder, "*.partial")) == 6, "rows of the part that is written")
    for given, joined in (
        ({"request_id": first, "label": 7.5, "row": 1}, 1),
        ({"request_id": second, "labels": [1.0, None, 3.0]}, 2),
    ):
        answer = client.post("/feedback", json=given)
        assert (answer.status_code, answer.json()) == (200, {"joined": joined})
    found = rows_in(labelled_folder(folder))
    assert [(row["request"], row["row"], row["label"]) for row in found] == [
        *[(first, 1, 7.5)],
        *[(second, 0, 1.0), (second, 2, 3.0)],
    ]
    assert found[0]["inputs"] == BODY["inputs"][1]
    for given, status in (
        ({"request_id": new_request_id(), "label": 1}, 404),
        ({"request_id": "../../etc", "label": 1}, 404),
        ({"request_id": first, "label": 1, "row": 3}, 404),
        ({"request_id": first}, 422),
        ({"label": 1}, 400),
    ):
        assert client.post("/feedback", json=given).status_code == status


def test_what_the_log_cannot_keep_up_with_is_counted_and_waits_for_nothing(tmp_path: Path) -> None:
    counts = Counts()
    log = PredictionLog(LogConfig(sample=1.0, waiting=5), tmp_path, counts)
    stop = threading.Event()
    log._write = lambda _prediction: stop.wait(30)  # type: ignore[method-assign]  # a disk that hangs
    taken = [log.offer(prediction()) for _time in range(20)]
    assert 5 <= sum(taken) <= 6
    assert counts.total("log_dropped_requests") == 20 - sum(taken)
    stop.set()
    log.close()


def test_old_parts_go_and_torn_ones_are_closed(tmp_path: Path) -> None:
    torn = tmp_path / f"{1:020d}-999999999-0.jsonl.partial"
    torn.write_text('{"row": 0}\n{"row": ')
    log = PredictionLog(LogConfig(sample=1.0, rows=2, most_bytes=900), tmp_path, Counts())
    assert (tmp_path / torn.name.removesuffix(".partial")).read_text() == '{"row": 0}\n'
    for _time in range(20):
        assert log.offer(prediction())
    log.close()
    parts = list(tmp_path.glob("*"))
    assert all(path.suffix == ".jsonl" for path in parts)
    assert 0 < sum(path.stat().st_size for path in parts) <= 900


def test_a_part_of_a_process_that_lives_is_left_alone(tmp_path: Path) -> None:
    # Two servers with the same number, and in containers with the same process id, may share the folder.
    first = PredictionLog(LogConfig(sample=1.0), tmp_path, Counts())
    assert first.offer(prediction())
    until(lambda: rows_in(tmp_path, "*.partial"), "a part that is being written")
    second = PredictionLog(LogConfig(sample=1.0), tmp_path, Counts())
    assert len(list(tmp_path.glob("*.partial"))) == 1
    assert first.offer(prediction())
    second.close()
    first.close()
    assert len(rows_in(tmp_path)) == 4
    assert not list(tmp_path.glob("*.partial"))


def test_rows_that_have_their_labels_are_bounded_as_the_log_is(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    labelled_folder(folder).mkdir(parents=True)
    for place in range(20):
        (labelled_folder(folder) / f"{place:020d}-x.jsonl").write_text("x" * 100)
    log = PredictionLog(LogConfig(sample=1.0, most_bytes=900), folder, Counts())
    assert log.offer(prediction())
    log.close()
    assert [int(path.name[:20]) for path in sorted(labelled_folder(folder).glob("*"))] == list(range(11, 20))


def test_a_version_takes_the_place_of_another_and_no_request_is_lost(
    tmp_path: Path, opened: Callable[..., Any]
) -> None:
    home = tmp_path / ".runstone"
    register(home, trained(1.0), people(5))
    register(home, trained(100.0), people(5))
    model = runstone.open_workspace(home).models.get("credit")
    first, second = (str(version.version) for version in reversed(model.state().usable()))
    model.set_alias("champion", first)
    client = opened(home, "credit@champion", reload_s=0.02)
    expected = {first: trained(1.0).predict(ROWS).tolist(), second: trained(100.0).predict(ROWS).tolist()}
    seen: list[str] = []
    for place in range(400):
        if place == 20:
            model.set_alias("champion", second)
        answer = client.post("/predict", json=BODY)
        assert answer.status_code == 200
        assert answer.json()["predictions"] == pytest.approx(expected[answer.json()["version"]])
        seen.append(answer.json()["version"])
        if place > 20 and seen[-1] == second:
            break
        time.sleep(0.01)
    assert seen[0] == first
    assert seen[-1] == second
    assert "runstone_predict_reloads_total 1\n" in client.get("/metrics").text


def test_a_version_that_cannot_be_loaded_leaves_the_old_one(
    tmp_path: Path, opened: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / ".runstone"
    register(home, trained(), people(5))
    register(home, trained(3.0), None)  # without an example there is no signature
    model = runstone.open_workspace(home).models.get("credit")
    model.set_alias("champion", "1")
    client = opened(home, "credit@champion")
    (other,) = [str(one.version) for one in model.state().usable() if str(one.version) != "1.0.0"]
    model.set_alias("champion", other)
    assert client.portal.call(client.app.service.reload) is False
    assert client.post("/predict", json=BODY).json()["version"] == "1.0.0"
    assert "has no signature" in capsys.readouterr().err
    assert "runstone_predict_reload_failures_total 1\n" in client.get("/metrics").text
