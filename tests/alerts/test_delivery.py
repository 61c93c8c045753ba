"""Who is told, by which way, and what is kept of it."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import runstone
from runstone.alerts import FILE, RunWatch, parse_alerting
from runstone.cli.main import cli
from runstone.models.sending import SIGNATURE, TIMESTAMP, is_signed


class Listener(http.server.HTTPServer):
    """Keeps what is posted to it, and answers with `status`."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        listener = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener.got.append((dict(self.headers.items()), body))
                self.send_response(listener.status)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fire(home: Path, **rules: Any) -> runstone.RunInfo:
    """Let a run become NaN under these rules."""
    with runstone.start_run(workspace=home, name="tokyo", project="digits", environment=False) as run:
        watch = RunWatch(run.path, parse_alerting({"alerts": ["nan"], **rules}))
        run.log({"loss": float("nan")})
        watch.look()
    return run.read()


def test_an_address_gets_signed_json(home: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "s3cret")
    url = f"http://127.0.0.1:{listener.server_port}/x"
    info = fire(home, deliver=[{"name": "team", "url": url, "secret": {"env": "HOOK_SECRET"}}])
    ((headers, body),) = listener.got
    told = json.loads(body)
    assert (told["title"], told["value"], told["run"]["name"]) == ("loss became NaN", "nan", "tokyo")
    assert is_signed(b"s3cret", headers[TIMESTAMP], body, headers[SIGNATURE])
    assert info.alerts[0].deliveries == (("team", True, "status 200"),)
    for path in info.path.iterdir():
        assert b"s3cret" not in path.read_bytes()


def test_slack_and_discord_get_their_own_words(home: Path, listener: Listener) -> None:
    url = f"http://127.0.0.1:{listener.server_port}/x"
    fire(
        home,
        deliver=[{"name": name, "url": url, "format": name} for name in ("slack", "discord")],
    )
    slack, discord = (json.loads(body) for _headers, body in listener.got)
    assert slack == {"text": "digits / tokyo: loss became NaN\nAt step 0."}
    assert discord["content"] == slack["text"]
    assert discord["allowed_mentions"] == {"parse": []}


def test_what_is_not_taken_is_tried_again_and_kept(
    home: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstone.alerts.delivery._PAUSES_S", (0.0, 0.0))
    listener.status = 503
    info = fire(home, deliver=[{"name": "team", "url": f"http://127.0.0.1:{listener.server_port}"}])
    assert len(listener.got) == 3
    assert info.alerts[0].deliveries == (("team", False, "status 503"),)


def test_targets_hear_from_their_level_on(home: Path, tmp_path: Path) -> None:
    deliver = [
        {"name": level, "level": level, "command": ["sh", "-c", f"cat > {tmp_path / level}"]}
        for level in ("info", "warning", "error")
    ]
    fire(home, alerts=[{"when": "nan", "level": "warning"}], deliver=deliver)
    assert [(tmp_path / level).exists() for level in ("info", "warning", "error")] == [True, True, False]


class Mails(socketserver.ThreadingTCPServer):
    """As much of a mail server as takes one mail."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        self.lines: list[str] = []
        mails = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 here\r\n")
                is_data = False
                for raw in self.rfile:
                    line = raw.decode().rstrip("\r\n")
                    mails.lines.append(line)
                    if is_data and line != ".":
                        continue
                    if line.upper() == "DATA":
                        is_data = True
                        self.wfile.write(b"354 go on\r\n")
                        continue
                    is_data = False
                    self.wfile.write(b"221 bye\r\n" if line.upper() == "QUIT" else b"250 fine\r\n")
                    if line.upper() == "QUIT":
                        return

        super().__init__(("127.0.0.1", 0), Handler)


def test_a_mail_says_what_happened(home: Path) -> None:
    with Mails() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        mail = {"to": ["me@example.org"], "from": "runs@example.org", "server": f"127.0.0.1:{server.server_address[1]}"}
        info = fire(home, deliver=[{"name": "post", "mail": mail}])
        server.shutdown()
        thread.join()
    assert info.alerts[0].deliveries == (("post", True, "sent"),)
    assert "Subject: [runstone] digits / tokyo: loss became NaN" in server.lines
    assert "At step 0." in server.lines


def test_a_mail_server_that_is_not_there_is_kept_and_nothing_raised(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstone.alerts.delivery._PAUSES_S", ())
    mail = {"to": "me@example.org", "from": "runs@example.org", "server": "127.0.0.1:1"}
    info = fire(home, deliver=[{"mail": mail}])
    assert info.alerts[0].deliveries == (("mail", False, "it was not sent: ConnectionRefusedError"),)


def test_the_desktop_is_told_by_its_own_program(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "notify-send"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path / "shown"}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("sys.platform", "linux")
    fire(home, deliver=[{"desktop": True}])
    assert (tmp_path / "shown").read_text().splitlines()[-2:] == ["digits / tokyo: loss became NaN", "At step 0."]


# --- the command ----------------------------------------------------------------------------------------------------


def command(home: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["alerts", *words, "--workspace", str(home)], catch_exceptions=False)
    return result.exit_code, result.output


def test_the_command_checks_tries_out_and_lists(home: Path, tmp_path: Path) -> None:
    info = fire(home)
    code, out = command(home, "check")
    assert code == 0
    assert "is not there" in out
    (home / FILE).write_text(f"alerts: [nan]\ndeliver: [{{name: file, command: [cp, /dev/null, {tmp_path / 'x'}]}}]\n")
    assert "from info on" in command(home, "check")[1]
    assert command(home, "test")[0] == 0
    assert (tmp_path / "x").exists()
    assert "loss became NaN" in command(home, "list", info.id)[1]
    assert json.loads(command(home, "list", info.id, "--json")[1])[0]["rule"] == "nan"


def test_the_command_watches_runs_that_nobody_watches(home: Path) -> None:
    (runstone.ensure_workspace(home).path / FILE).write_text("alerts: [nan]\ntrials: true\n")
    with runstone.start_run(workspace=home, name="lone", environment=False, alerts=[]) as run:
        run.log({"loss": float("nan")})
        code, out = command(home, "watch", "--once")
    assert code == 0
    assert "error: lone: loss became NaN" in out
