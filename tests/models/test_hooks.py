"""Hooks: a real HTTP server and real commands; told in order, at least once, on record, and no secret in it."""

from __future__ import annotations

import http.server
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import runstone
from runstone.errors import InvalidConfig, TrackingWarning
from runstone.models.hookfile import parse_hooks, read_hooks
from runstone.models.hooks import deliver, pending
from runstone.models.sending import is_signed, sign
from tests.models.made import registry, train

SECRET = "s3cr3t-of-the-team"


class Server:
    """A web server that keeps what it gets and answers as told."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
                code = outer.answers.pop(0) if outer.answers else 200
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", f"{outer.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook?token=abc"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def set_hooks(home: Path, *hooks: dict[str, Any]) -> None:
    home.mkdir(exist_ok=True)
    (home / "hooks.yaml").write_text(yaml.safe_dump({"hooks": list(hooks)}))


def deliveries(home: Path) -> list[tuple[str, int, str]]:
    events = [event.fields for event in registry(home).history() if event.kind == "delivered"]
    return [(said["hook"], said["of"], said["state"]) for said in events]


def test_a_webhook_is_signed_and_told_of_each_event_it_wants(
    home: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    set_hooks(
        home, {"name": "ci", "on": ["registered", "promoted"], "url": server.url, "secret": {"env": "HOOK_SECRET"}}
    )
    train(home, "a")
    model = registry(home)
    model.judge("1.0.0", "approved")
    model.set_stage("1.0.0", "production", reason="go")
    assert [json.loads(body)["event"] for _headers, body in server.requests] == ["registered", "promoted"]
    headers, body = server.requests[1]
    said = json.loads(body)
    assert (said["model"], said["version"], said["stage"], said["reason"]) == (
        "credit-risk",
        "1.0.0",
        "production",
        "go",
    )
    stamp, signature = headers["x-runstone-timestamp"], headers["x-runstone-signature"]
    assert is_signed(SECRET.encode(), stamp, body, signature)
    assert not is_signed(SECRET.encode(), stamp, body + b" ", signature)
    assert not is_signed(b"other", stamp, body, signature)
    old = str(int(stamp) - 301)
    assert not is_signed(SECRET.encode(), old, body, sign(SECRET.encode(), old, body))
    assert [state for _hook, _of, state in deliveries(home)] == ["delivered", "delivered"]
    written = b"".join(path.read_bytes() for path in home.rglob("*.json"))
    assert SECRET.encode() not in written
    assert b"token=abc" not in written
    assert model.verify() == []


def test_what_fails_is_tried_again_in_order_and_only_once_delivered(home: Path, server: Server) -> None:
    set_hooks(home, {"name": "ci", "on": ["registered", "alias"], "url": server.url})
    server.answers = [500, 503, 500]
    train(home, "a")
    assert len(server.requests) == 3
    registry(home).set_alias("champion", "1.0.0")  # waits behind the one that failed, which is not due yet
    assert len(server.requests) == 3
    assert deliveries(home) == [("ci", 2, "failed")]
    workspace = runstone.open_workspace(home)
    (hook,) = read_hooks(home)
    assert [one.event.seq for one in pending(home, registry(home), [hook])] == [2, 4]
    told = deliver(home, workspace.models, is_forced=True)
    assert [(one.word, one.state) for one in told] == [("registered", "delivered"), ("alias", "delivered")]
    assert deliver(home, workspace.models, is_forced=True) == []
    ids = [json.loads(body)["id"] for _headers, body in server.requests]
    assert len(ids) == 5
    assert len(set(ids)) == 2


def test_what_nobody_told_of_after_a_kill_is_told_by_the_next_change(home: Path, server: Server) -> None:
    set_hooks(home, {"name": "ci", "on": ["registered", "tagged"], "url": server.url})
    train(home, "a", model=None)
    from runstone.models import Models

    silent = Models(home / "models").create("credit-risk")  # as one that was killed after the event
    silent.register("0" * 64, version="1.0.0")
    assert server.requests == []
    registry(home).set_tags({"a": "b"})
    assert [json.loads(body)["event"] for _headers, body in server.requests] == ["registered", "tagged"]


def test_a_hook_hears_nothing_of_what_was_before_it(home: Path, server: Server) -> None:
    train(home, "a")
    time.sleep(0.02)
    set_hooks(home, {"name": "ci", "on": ["registered", "alias"], "url": server.url})
    registry(home).set_alias("champion", "1.0.0")
    assert [json.loads(body)["event"] for _headers, body in server.requests] == ["alias"]


def test_a_redirect_is_not_followed(home: Path, server: Server) -> None:
    set_hooks(home, {"name": "ci", "on": "alias", "url": server.url})
    server.answers = [302, 302, 302]
    train(home, "a")
    registry(home).set_alias("champion", "1.0.0")
    assert len(server.requests) == 3
    assert deliveries(home)[0][2] == "failed"


def test_without_its_secret_nothing_is_sent(home: Path, server: Server) -> None:
    set_hooks(home, {"name": "ci", "on": "alias", "url": server.url, "secret": {"file": "secret.txt"}})
    train(home, "a")
    registry(home).set_alias("champion", "1.0.0")
    assert server.requests == []
    (home / "secret.txt").write_text(f"{SECRET}\n")
    deliver(home, runstone.open_workspace(home).models, is_forced=True)
    headers, body = server.requests[0]
    assert is_signed(SECRET.encode(), headers["x-runstone-timestamp"], body, headers["x-runstone-signature"])


def test_a_command_gets_the_event_on_stdin_and_in_variables_and_no_shell_reads_it(home: Path) -> None:
    code = "import json, os, sys; out = open('out.txt', 'a'); print(json.load(sys.stdin)['stage'], file=out); "
    code += "print(*[os.environ['RUNSTONE_EVENT' + end] for end in ('', '_VERSION')], sys.argv[1], file=out)"
    command = [sys.executable, "-c", code, "$(touch owned); *"]
    set_hooks(home, {"name": "do", "on": ["promoted", "rolled_back"], "stage": "production", "command": command})
    for name in "ab":
        train(home, name)
    model = registry(home)
    model.set_stage("1.0.0", "production")
    model.set_stage("1.0.1", "staging")
    model.set_stage("1.0.1", "production")
    model.roll_back("production", reason="errors")
    assert (home.parent / "out.txt").read_text().splitlines() == [
        "production",
        "promoted 1.0.0 $(touch owned); *",
        "production",
        "promoted 1.0.1 $(touch owned); *",
        "production",
        "rolled_back 1.0.0 $(touch owned); *",
    ]
    assert not (home.parent / "owned").exists()


def test_a_command_that_hangs_is_killed_with_all_that_it_started(home: Path) -> None:
    child = "import os,time; open('pid','w').write(str(os.getpid())); time.sleep(60)"
    code = f"import subprocess,sys,time; subprocess.Popen([sys.executable,'-c',{child!r}]); time.sleep(60)"
    set_hooks(home, {"name": "slow", "on": "alias", "command": [sys.executable, "-c", code], "timeout_s": 1.5})
    train(home, "a")
    begin = time.monotonic()
    registry(home).set_alias("champion", "1.0.0")
    assert time.monotonic() - begin < 14
    assert str(registry(home).find("champion")) == "credit-risk@1.0.0"
    assert "killed" in registry(home).history()[-1].fields["detail"]
    pid = int((home.parent / "pid").read_text())
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_change_stands_though_the_file_of_hooks_is_wrong(home: Path) -> None:
    train(home, "a")
    (home / "hooks.yaml").write_text("hooks: [{name: x}]")
    with pytest.warns(TrackingWarning, match="hooks were not told"):
        registry(home).set_alias("champion", "1.0.0")
    assert registry(home).find("champion").aliases == ("champion",)


@pytest.mark.parametrize(
    ("entry", "mistake"),
    [
        ("x", "must be a mapping"),
        ({"on": ["registered"], "command": ["x"]}, "name must be"),
        ({"name": "../x", "on": "alias", "command": ["x"]}, "name must be"),
        ({"name": "a", "on": ["deleted"], "command": ["x"]}, "on must be some of"),
        ({"name": "a", "on": [["alias"]], "command": ["x"]}, "on must be some of"),
        ({"name": "a", "on": "alias"}, "either a command or a url"),
        ({"name": "a", "on": "alias", "command": "rm -rf /"}, "no shell reads it"),
        ({"name": "a", "on": "alias", "url": "file:///etc/passwd"}, "http or https"),
        ({"name": "a", "on": "alias", "url": "http://[::1"}, "http or https"),
        ({"name": "a", "on": "alias", "url": "https://x", "secret": "abc"}, "never the secret itself"),
        ({"name": "a", "on": "alias", "command": ["x"], "timeout_s": float("inf")}, "timeout_s must be"),
        ({"name": "a", "on": "alias", "command": ["x"], "colour": 1}, "colour is not a key"),
    ],
)
def test_a_mistake_in_the_file_is_named(entry: object, mistake: str) -> None:
    with pytest.raises(InvalidConfig, match=mistake):
        parse_hooks({"hooks": [entry]})


def test_on_needs_no_quotes_though_yaml_takes_it_for_true(home: Path) -> None:
    home.mkdir()
    (home / "hooks.yaml").write_text("hooks:\n- name: a\n  on: [alias]\n  command: [x]\n")
    assert read_hooks(home)[0].on == ("alias",)
