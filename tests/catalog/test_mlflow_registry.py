"""What people did with MLflow's Model Registry, done here. Each test is a row of the table in docs/models.md."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.models import SignatureMismatch
from runstone.models.sending import is_signed
from tests.catalog.conftest import User
from tests.models.made import registry, train


@pytest.fixture
def home(user: User) -> Path:
    """Two versions of a model, each made by a run."""
    home = user.project / ".runstone"
    train(home, "one", params={"lr": 1}, metrics={"auc": 0.8}, data=("loans", "1", "a"))
    train(home, "two", params={"lr": 2}, metrics={"auc": 0.9}, data=("loans", "2", "b"))
    return home


def test_a_version_comes_from_a_run_a_file_or_the_log(user: User, home: Path) -> None:
    user.write("weights.bin", b"w")
    with runstone.start_run(project="p", name="logger", workspace=home, environment=False) as run:
        run.log_artifact("weights.bin", name="weights")
    user("models register m logger:weights")
    user("models register m weights.bin --version major")
    shown = user.json("models show m@1.0.0")
    assert (shown["run"], shown["author"]) == (run.id, registry(home, "m").find("1.0.0").author)
    listed = user("models show credit-risk")
    assert [line.split()[0] for line in listed.splitlines()[-2:]] == ["1.1.0", "1.0.0"]
    assert registry(home).find("1.0.0").run_id is not None


def test_numbers_are_never_used_again(user: User, home: Path) -> None:
    user("models withdraw credit-risk@1.1.0 --reason wrong")
    user.write("weights.bin", b"w")
    told = user("models register credit-risk weights.bin --version 1.1.0 --reason again", code=1)
    assert "numbers are never given twice" in told


def test_aliases_move_at_once_and_reserved_words_are_refused(user: User, home: Path) -> None:
    user("models alias champion credit-risk@1.0.0")
    user("models alias champion credit-risk@1.1.0")
    assert runstone.load_model("credit-risk@champion").native.read_bytes() == b"two" * 100
    for word in ("latest", "1.0", "v2", "production"):
        assert "choose another word" in user(f"models alias {word} credit-risk@1.0.0", code=1)


def test_stages_are_there_and_can_be_the_teams_own(user: User, home: Path) -> None:
    shown = [line.partition(":")[0] for line in user("models stages credit-risk").splitlines()]
    assert shown == ["none", "staging", "production", "archived"]
    user("models stages credit-risk new shadow canary live")
    user("models promote credit-risk@1.1.0 canary")
    assert user.json("models show credit-risk@canary")["version"] == "1.1.0"


def test_tags_and_descriptions_can_be_searched(user: User, home: Path) -> None:
    user("models tag credit-risk@1.0.0 market=eu")
    user(["models", "note", "credit-risk", "Scores **loans**."])
    assert [one["name"] for one in user.json("models list --tag market=eu --text LOANS")] == ["credit-risk"]
    assert user.json("models list --tag market=us") == []
    assert "Scores **loans**." in user("models show credit-risk")


def test_a_signature_is_shown_and_enforced(user: User) -> None:
    pytest.importorskip("skops")
    np = pytest.importorskip("numpy")
    linear = pytest.importorskip("sklearn.linear_model")
    x = np.arange(8.0).reshape(4, 2)
    with runstone.start_run(project="p", environment=False) as run:
        run.log_model(linear.LogisticRegression().fit(x, [0, 0, 1, 1]), name="m", example=x)
    assert "float64[*, 2]" in user("models show m@1")
    assert "it predicts on its example" in user("models load-check m@1")
    model = runstone.load_model("m@1")
    assert model.predict(x).tolist() == [0, 0, 1, 1]
    with pytest.raises(SignatureMismatch, match="shape"):
        model.predict(x[:, :1])


def test_a_transition_is_commented_and_what_stood_on_a_day_is_known(user: User, home: Path) -> None:
    user("models promote credit-risk@1.0.0 production --reason first")
    user("models promote credit-risk@1.1.0 production --reason better")
    told = user("models history credit-risk")
    assert "moved 1.1.0 from none to production, replacing 1.0.0" in told
    assert "better" in told
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date()
    assert [line.split()[:4] for line in user(f"models at {tomorrow}").splitlines()[1:2]] == [
        ["credit-risk", "stage", "production", "1.1.0"]
    ]
    first = next(event for event in registry(home).history() if event.kind == "staged")
    moment = datetime.fromtimestamp(first.at + 1e-5, UTC).isoformat()
    assert user.json(["models", "show", f"credit-risk@production?as_of={moment}"])["version"] == "1.0.0"
    assert "nothing stood" in user("models at 2020-01-01")


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[tuple[Any, bytes]]]]:
    """Listen for webhooks; what came, with its headers."""
    came: list[tuple[Any, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", came
    server.shutdown()
    thread.join()
    server.server_close()


def test_webhooks_are_signed_and_can_be_tried(
    user: User, home: Path, receiver: tuple[str, list[tuple[Any, bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("yaml")
    url, came = receiver
    monkeypatch.setenv("HOOK_SECRET", "s3cret")
    hook = {
        "name": "ci",
        "on": ["created", "registered", "alias", "tagged", "promoted"],
        "url": url,
        "secret": {"env": "HOOK_SECRET"},
    }
    (home / "hooks.yaml").write_text(json.dumps({"hooks": [hook]}))
    user("models hooks test ci")
    user("models alias champion credit-risk@1.0.0")
    user("models tag credit-risk@1.0.0 a=b")
    user("models promote credit-risk@1.0.0 staging")
    user.write("w.bin", b"w")
    user("models register new w.bin")
    assert [json.loads(body)["event"] for _headers, body in came] == [
        "test", "alias", "tagged", "promoted", "created", "registered",
    ]  # fmt: skip
    for headers, body in came:
        signed = f"{headers['X-Runstone-Timestamp']}.".encode() + body
        assert headers["X-Runstone-Signature"] == f"v1={hmac.new(b's3cret', signed, hashlib.sha256).hexdigest()}"
        signature = headers["X-Runstone-Signature"]
        assert is_signed(b"s3cret", headers["X-Runstone-Timestamp"], body, signature)
        assert not is_signed(b"s3cret", headers["X-Runstone-Timestamp"], body + b" ", signature)


def test_two_versions_are_compared(user: User, home: Path) -> None:
    found = user.json("models compare credit-risk@1.0.0 credit-risk@1.1.0")
    assert found["metrics"] == {"auc": {"left": 0.8, "right": 0.9}}
    assert found["params"] == {"lr": {"left": 1, "right": 2}}
    assert found["data"] == {"loans": {"left": "1", "right": "2"}}
    assert found["schema"] == []


def test_a_version_is_copied_to_another_store(user: User, home: Path, tmp_path: Path) -> None:
    user(f"models copy credit-risk@1.1.0 --to {tmp_path}/production")
    assert "all as written" in user(f"models verify -w {tmp_path}/production")
    assert runstone.load_model("credit-risk@1.1.0", workspace=tmp_path / "production").version.run_id is None


def test_a_version_with_an_alias_is_not_withdrawn(user: User, home: Path) -> None:
    user("models alias champion credit-risk@1.0.0")
    assert "alias 'champion'" in user("models withdraw credit-risk@1.0.0 --reason x", code=1)
    user("models withdraw credit-risk@1.0.0 --reason x --force")


def test_no_server_is_needed(user: User, home: Path) -> None:
    code = (
        "import sys; from runstone.cli.main import run; run(['models', 'show', 'credit-risk@1.0.0']);"
        "sys.exit(any(name in sys.modules for name in ('fastapi', 'uvicorn', 'runstone.server', 'sqlalchemy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "credit-risk@1.0.0" in done.stdout
