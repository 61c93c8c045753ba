"""Tells a command or a web address of one event, once. Knows no history and no retries."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstone import settings
from runstone._version import __version__
from runstone.models.hookfile import Hook

SIGNATURE, TIMESTAMP = "X-Runstone-Signature", "X-Runstone-Timestamp"
_VARIABLES = ("event", "id", "model", "version", "stage", "before", "alias", "at", "by")
_MOST_SHOWN = 2000
_MOST_VARIABLE = 10_000


@dataclass(frozen=True, slots=True)
class Sent:
    """How one try went.

    Attributes:
        is_delivered: Whether it was taken: exit code 0, or an answer of 200 to 299.
        detail: In a few words that hold nothing secret, for the history.
        output: The end of what the command wrote or the address answered, for people only.
    """

    is_delivered: bool
    detail: str
    output: str = ""


def send(hook: Hook, event: Mapping[str, Any], workspace: Path) -> Sent:
    """Tell a hook of an event; whatever goes wrong is in the answer, not raised.

    Args:
        hook: Whom.
        event: What, as JSON.
        workspace: Commands run in the folder that holds it; files with secrets are relative to it.
    """
    body = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return _post(hook, event, body, workspace) if hook.url is not None else _run(hook, event, body, workspace)


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return the signature of a webhook: `v1=` and the HMAC-SHA256 (hex) of timestamp, a dot and the body."""
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def is_signed(secret: bytes, timestamp: str, body: bytes, signature: str, *, tolerance_s: float = 300.0) -> bool:
    """Tell whether a webhook is genuine and not older than `tolerance_s`; for those who receive one."""
    try:
        is_fresh = abs(time.time() - float(timestamp)) <= tolerance_s
    except ValueError:
        return False
    return is_fresh and hmac.compare_digest(sign(secret, timestamp, body).encode(), signature.encode())


# --- commands -------------------------------------------------------------------------------------------------------


def _run(hook: Hook, event: Mapping[str, Any], body: bytes, workspace: Path) -> Sent:
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                hook.command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=workspace.parent,
                env={**settings.process_environment(), **_variables(event)},
                start_new_session=True,  # so that what it starts ends with it
            )
        except (OSError, ValueError) as error:
            return Sent(False, f"it could not be started: {getattr(error, 'strerror', None) or error}")
        try:
            process.communicate(body, timeout=hook.timeout_s)
            code = process.returncode
            detail = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        except subprocess.TimeoutExpired:
            code, detail = 1, f"it took more than {hook.timeout_s:g} s and was killed"
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - _MOST_SHOWN))
        return Sent(code == 0, detail, output.read().decode("utf-8", "replace"))


def _variables(event: Mapping[str, Any]) -> dict[str, str]:
    found = {"RUNSTONE_EVENT": str(event.get("event", ""))}
    for name in _VARIABLES[1:]:
        value = event.get(name)
        value = value.get("user") if isinstance(value, Mapping) else value
        if value is not None:
            found[f"RUNSTONE_EVENT_{name.upper()}"] = str(value).replace("\0", "")[:_MOST_VARIABLE]
    if event.get("event") == "incident_opened":  # what trains again by this says so in its lineage
        found["RUNSTONE_INCIDENT"] = f"{event.get('model')}#{event.get('number')}"
    return found


# --- addresses ------------------------------------------------------------------------------------------------------


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A signed event goes where it was addressed to and nowhere else."""

    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        return None


def _post(hook: Hook, event: Mapping[str, Any], body: bytes, workspace: Path) -> Sent:
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"runstone/{__version__}",
        "X-Runstone-Event": str(event.get("event", "")),
        "X-Runstone-Id": str(event.get("id", "")),
        TIMESTAMP: timestamp,
    }
    if hook.secret is not None:
        try:
            secret = _secret(hook.secret, workspace)
        except (OSError, KeyError):
            kind, place = hook.secret
            what = f"the variable {place} is not set" if kind == "env" else "the file with its secret cannot be read"
            return Sent(False, f"it was not sent, {what}")
        headers[SIGNATURE] = sign(secret, timestamp, body)
    assert hook.url is not None  # noqa: S101 (the caller has looked)
    request = urllib.request.Request(hook.url, body, headers, method="POST")  # noqa: S310 (http and https only)
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=hook.timeout_s) as answer:
            return Sent(True, f"status {answer.status}", answer.read(_MOST_SHOWN).decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        with error:
            text = ""
            with contextlib.suppress(OSError, http.client.HTTPException):
                text = error.read(_MOST_SHOWN).decode("utf-8", "replace")
            return Sent(False, f"status {error.code}", text)
    except urllib.error.URLError as error:
        reason = error.reason
        return Sent(False, f"it was not reached: {getattr(reason, 'strerror', None) or type(reason).__name__}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Sent(False, f"it was not reached: {getattr(error, 'strerror', None) or type(error).__name__}")


def _secret(where: tuple[str, str], workspace: Path) -> bytes:
    kind, place = where
    if kind == "env":
        value = settings.process_environment()[place].encode()
    else:
        value = (workspace / place).read_bytes().strip()
    if not value:
        raise KeyError(place)
    return value
