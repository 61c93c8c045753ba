"""`/predict`: every form of a request, what is wrong in which row and column, and limits."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import strategies as st

from tests.serving.conftest import pd, people, register, trained

ROWS = people(3, seed=7)


def answer_of(client: Any, body: Any) -> list[float]:
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def refused(client: Any, body: Any, status: int = 422) -> str:
    answer = client.post("/predict", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["message"]


def test_all_forms_of_a_request_give_what_the_model_says(credit: Path, opened: Callable[..., Any]) -> None:
    client = opened(credit)
    expected = pytest.approx(trained().predict(ROWS).tolist())
    records = ROWS.to_dict("records")
    for body in (
        {"inputs": records},
        {"inputs": ROWS.to_dict("list")},
        {"inputs": ROWS.to_dict("split", index=False)},
        ROWS.to_dict("split", index=False),
        {"dataframe_split": ROWS.to_dict("split")},
        {"dataframe_records": records},
        {"inputs": ROWS.to_numpy().tolist()},
    ):
        assert answer_of(client, body) == expected
    shuffled = ROWS[["member", "city", "age", "income"]].assign(other=1)
    table = pa.Table.from_pandas(shuffled, preserve_index=False)
    parquet, arrow = io.BytesIO(), io.BytesIO()
    shuffled.to_parquet(parquet)
    with pa.ipc.new_stream(arrow, table.schema) as writer:
        writer.write_table(table)
    for kind, body in (
        ("text/csv; charset=utf-8", shuffled.to_csv(index=False).encode()),
        ("application/vnd.apache.parquet", parquet.getvalue()),
        ("application/vnd.apache.arrow.stream", arrow.getvalue()),
    ):
        answer = client.post("/predict", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"] == expected
        assert client.post("/predict", content=b"PAR1" + body, headers={"Content-Type": kind}).status_code < 500


def test_errors_name_row_and_column(credit: Path, opened: Callable[..., Any]) -> None:
    client = opened(credit)
    good = {"income": 1.5, "age": 30, "city": "Ulm", "member": True}
    for change, message in (
        ({"income": "much"}, "row 1, column 'income': must be a number"),
        ({"age": 30.5}, "row 1, column 'age': must be a whole number, got float 30.5"),
        ({"age": 2**70}, "row 1, column 'age'"),
        ({"city": 3}, "row 1, column 'city': must be text"),
        ({"member": 1}, "row 1, column 'member': must be true or false"),
        ({"age": None}, "row 1, column 'age': must be a whole number, got None"),
    ):
        assert message in refused(client, {"inputs": [good, good | change]})
    lacking = {name: value for name, value in good.items() if name != "age"}
    assert "row 1, column 'age': is missing" in refused(client, {"inputs": [good, lacking]})
    answer = client.post("/predict", json={"inputs": [good | {"age": "x", "city": 1}]}).json()["error"]
    assert [(one["row"], one["column"]) for one in answer["details"]["problems"]] == [(0, "age"), (0, "city")]
    assert "has 1 values, where others have 2" in refused(
        client, {"inputs": {"income": [1, 2], "age": [1], "city": ["a"], "member": [True]}}
    )
    assert 'no "inputs"' in refused(client, {"rows": []})
    assert "no rows" in refused(client, {"inputs": []})
    assert "could not take these values" in refused(client, {"inputs": [good | {"city": "Rom"}]})


def test_one_bad_request_does_not_spoil_those_that_the_model_gets_with_it(
    credit: Path, opened: Callable[..., Any]
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    client = opened(credit)
    good, bad = ROWS.to_dict("records"), [{"income": 1, "age": 1, "city": "Rom", "member": False}]
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda place: client.post("/predict", json={"inputs": bad if place % 5 == 0 else good}), range(60))
        )
    assert [answer.status_code for answer in answers] == [422 if place % 5 == 0 else 200 for place in range(60)]
    for answer in answers:
        if answer.status_code == 200:
            assert answer.json()["predictions"] == pytest.approx(trained().predict(ROWS).tolist())


def test_limits_are_told(credit: Path, opened: Callable[..., Any]) -> None:
    client = opened(credit, bounds={"body_bytes": 2_000, "rows": 5})
    row = ROWS.to_dict("records")[:1]
    assert "at most 5 rows" in refused(client, {"inputs": row * 6}, 413)
    assert "larger than 2,000 bytes" in refused(client, {"inputs": row * 100}, 413)
    assert client.get("/predict").status_code == 405
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert client.post("/predict", content=b"x", headers={"Content-Type": kind}).status_code == 415
    assert client.post("/predict", json={}, headers={"Content-Encoding": "gzip"}).status_code == 415
    assert client.post("/predict", json={}, headers={"Host": "evil.example"}).status_code == 421


def test_a_model_that_takes_too_long_is_not_waited_for(
    credit: Path, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    client = opened(credit, bounds={"predict_s": 0.2})
    service = client.app.service
    go_on = threading.Event()
    native = service.served.model.native
    monkeypatch.setattr(native, "predict", lambda data: go_on.wait(30) and np.zeros(len(data)), raising=False)
    assert client.post("/predict", json={"inputs": ROWS.to_dict("records")}).status_code == 503
    assert client.get("/ready").status_code == 503
    assert client.get("/health").status_code == 200
    go_on.set()


def test_a_token_is_asked_for(credit: Path, opened: Callable[..., Any]) -> None:
    client = opened(credit, token="correct-horse")
    body = {"inputs": ROWS.to_dict("records")}
    for path in ("/metadata", "/metrics", "/openapi.json"):
        assert client.get(path).status_code == 401
    assert client.post("/predict", json=body).status_code == 401
    assert client.post("/predict", json=body, headers={"Authorization": "Bearer wrong-horse"}).status_code == 401
    assert client.get("/health").status_code == 200
    shown = {"Authorization": "Bearer correct-horse"}
    assert client.post("/predict", json=body, headers=shown).status_code == 200


def test_what_is_served_is_told(credit: Path, opened: Callable[..., Any]) -> None:
    import jsonschema

    client = opened(credit, "credit@production")
    told = client.get("/metadata").json()
    assert (told["model"], told["version"], len(told["hash"])) == ("credit", "1.0.0", 64)
    assert [field["name"] for field in told["signature"]["inputs"]["fields"]] == ["income", "age", "city", "member"]
    document = client.get("/openapi.json").json()
    body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    answer = client.post("/predict", json=body["example"])
    assert answer.status_code == 200
    jsonschema.validate(body["example"], body["schema"])
    shape = document["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer.json(), shape)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"inputs": [{"income": "x"}]}, body["schema"])
    metrics = client.get("/metrics").text
    assert 'runstone_predict_requests_total{status="200"} 1\n' in metrics
    assert "runstone_predict_rows_total 2\n" in metrics
    assert 'runstone_model_info{model="credit",version="1.0.0"' in metrics


def test_arrays_keep_the_width_that_the_model_was_tried_with(tmp_path: Path, opened: Callable[..., Any]) -> None:
    from sklearn.linear_model import LogisticRegression

    data = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    model = LogisticRegression().fit(data, data[:, 0] > 0)
    home = tmp_path / ".runstone"
    register(home, model, data[:4], "points")
    client = opened(home, "points@1.0.0")
    assert answer_of(client, {"inputs": data[:4].tolist()}) == model.predict(data[:4]).tolist()
    service = client.app.service
    columns, rows = service.served.reader.of_json({"inputs": data[:4].tolist()})
    assert (columns[""].dtype, rows) == (np.float32, 4)
    assert "row 1: must have the shape (3), got 2 values" in refused(client, {"inputs": [[1, 2, 3], [1, 2]]})
    assert "row 1: must be a number" in refused(client, {"inputs": [[1, 2, 3], [1, 2, "x"]]})
    csv = pd.DataFrame(data[:4].astype(float)).to_csv(index=False)
    answer = client.post("/predict", content=csv, headers={"Content-Type": "text/csv"})
    assert answer.json()["predictions"] == model.predict(data[:4]).tolist()


NAMES = st.sampled_from(["inputs", "columns", "data", "income", "age", "city", "member"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
ROW = st.fixed_dictionaries(
    {
        "income": st.floats() | st.integers() | JSON,
        "age": st.integers() | JSON,
        "city": st.sampled_from(["Ulm", "Rom"]) | JSON,
        "member": st.booleans() | JSON,
    }
)


@pytest.fixture(scope="module")
def fuzzed(credit: Path) -> Any:
    from fastapi.testclient import TestClient

    from runstone.serving import Place, ServingConfig, create_app

    app = create_app(Place(credit, "credit@1.0.0"), ServingConfig(reload_s=0.0))
    with TestClient(app, base_url="http://127.0.0.1:8060") as client:
        yield client


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(body=JSON | st.builds(lambda rows: {"inputs": rows}, st.lists(ROW, max_size=4) | JSON))
def test_no_json_makes_it_fail(fuzzed: Any, body: Any) -> None:
    import json

    answer = fuzzed.post("/predict", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, answer.text
    if answer.status_code == 200:
        assert all(value is None or math.isfinite(value) for value in answer.json()["predictions"])


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(
    kind=st.sampled_from(
        ["application/json", "text/csv", "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream", "x"]
    ),
    body=st.binary(max_size=200),
    begin=st.sampled_from([b"", b"income,age,city,member\n", b"PAR1", b'{"inputs":', b"\xff\xff\xff\xff"]),
)
def test_no_bytes_make_it_fail(fuzzed: Any, kind: str, body: bytes, begin: bytes) -> None:
    answer = fuzzed.post("/predict", content=begin + body, headers={"Content-Type": kind})
    assert 400 <= answer.status_code < 500 or answer.status_code == 200, answer.text


def _bodies() -> dict[str, bytes]:
    table = pa.Table.from_pandas(ROWS, preserve_index=False)
    parquet, arrow = io.BytesIO(), io.BytesIO()
    ROWS.to_parquet(parquet)
    with pa.ipc.new_stream(arrow, table.schema) as writer:
        writer.write_table(table)
    return {
        "application/json": ROWS.to_json(orient="records").join(['{"inputs": ', "}"]).encode(),
        "text/csv": ROWS.to_csv(index=False).encode(),
        "application/vnd.apache.parquet": parquet.getvalue(),
        "application/vnd.apache.arrow.stream": arrow.getvalue(),
    }


BODIES = _bodies()
# Where, what is put there, and how much of what stood there it takes the place of.
CHANGE = st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6), st.integers(0, 12))


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
    kind=st.sampled_from(sorted(BODIES)),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6), st.integers(0, 12)), max_size=6
    ),
)
def test_no_change_of_a_good_body_makes_it_fail(
    fuzzed: Any, kind: str, changes: list[tuple[float, bytes, int]]
) -> None:
    body = bytearray(BODIES[kind])
    for place, put, taken in changes:
        begin = int(place * len(body))
        body[begin : begin + taken] = put
    answer = fuzzed.post("/predict", content=bytes(body), headers={"Content-Type": kind})
    assert answer.status_code < 500, answer.text
    assert changes or answer.status_code == 200, answer.text


def test_an_arrow_stream_that_points_beyond_itself_is_refused(fuzzed: Any) -> None:
    rows = people(2).assign(city=["Ulm", "Kiel"])
    table = pa.Table.from_pandas(rows, preserve_index=False)
    table = table.set_column(2, "city", pa.array(["Ulm", "Kiel"], pa.large_string()))
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    offsets = np.array([0, 3, 7], np.int64).tobytes()
    assert sink.getvalue().count(offsets) == 1
    for lie in ([0, 3, 2**40], [0, 2**40, 7], [0, 5, 3], [-9, 3, 7]):
        body = sink.getvalue().replace(offsets, np.array(lie, np.int64).tobytes())
        answer = fuzzed.post("/predict", content=body, headers={"Content-Type": "application/vnd.apache.arrow.stream"})
        assert answer.status_code == 400, (lie, answer.text)
