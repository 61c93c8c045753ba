"""Tells a target of an alert: command, web address, desktop or mail. What goes wrong is returned, not raised."""

from __future__ import annotations

import shutil
import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from runstone import settings
from runstone.alerts.rules import LEVELS, Alerting, Mail, Target
from runstone.models.hookfile import Hook
from runstone.models.sending import Sent, send

_PAUSES_S = (0.5, 3.0)  # between tries


def deliver(
    alerting: Alerting,
    message: Mapping[str, Any],
    workspace: Path,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> list[tuple[str, Sent]]:
    """Tell each target that wants alerts of this level, and return how that went, by its name.

    Args:
        alerting: Holds the targets.
        message: The alert as plain values, as docs/alerts.md has it.
        workspace: Commands run in the folder that holds it; files with secrets are relative to it.
        sleep: Waits between tries.
    """
    found = []
    for target in alerting.targets:
        if LEVELS.index(target.level) > LEVELS.index(str(message["level"])):
            continue
        sent = tell(target, message, workspace)
        for pause_s in _PAUSES_S:
            if sent.is_delivered:
                break
            sleep(pause_s)
            sent = tell(target, message, workspace)
        found.append((target.name, sent))
    return found


def tell(target: Target, message: Mapping[str, Any], workspace: Path) -> Sent:
    """Tell one target, once."""
    if target.desktop:
        return _show(message)
    if target.mail is not None:
        return _post(target.mail, message, workspace, target.timeout_s)
    hook = Hook(
        name=target.name,
        on=(),
        command=target.command,
        url=target.url,
        secret=target.secret,
        timeout_s=target.timeout_s,
    )
    return send(hook, _in_format(target.format, message), workspace)


def headline(message: Mapping[str, Any]) -> str:
    """Return an alert in one line."""
    run = message["run"]
    return f"{run['project']} / {run['name']}: {message['title']}"


def _in_format(name: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
    if name == "json":
        return message
    text = f"{headline(message)}\n{message['text']}".strip()
    return {"text": text} if name == "slack" else {"content": text[:2000], "allowed_mentions": {"parse": []}}


def _show(message: Mapping[str, Any]) -> Sent:
    title, text = headline(message), str(message["text"])
    if sys.platform == "darwin":
        script = "on run argv\ndisplay notification (item 2 of argv) with title (item 1 of argv)\nend run"
        command = ["osascript", "-e", script, title, text]
    else:
        urgency = {"info": "low", "warning": "normal", "error": "critical"}[str(message["level"])]
        command = ["notify-send", "--app-name=Runstone", f"--urgency={urgency}", "--", title, text]
    if shutil.which(command[0]) is None:
        return Sent(False, f"{command[0]} is not installed")
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Sent(False, f"{command[0]}: {type(error).__name__}")
    return Sent(done.returncode == 0, f"exit code {done.returncode}")


def _post(mail: Mail, message: Mapping[str, Any], workspace: Path, timeout_s: float) -> Sent:
    post = EmailMessage()
    post["From"], post["To"] = mail.sender, ", ".join(mail.to)
    post["Subject"] = " ".join(f"[runstone] {headline(message)}".split())[:500]
    lines = [str(message["text"]), "", *(f"{key}: {message[key]}" for key in ("rule", "level", "metric", "step"))]
    post.set_content("\n".join([*lines, f"run: {message['run']['id']}"]))
    try:
        password = _password(mail, workspace)
        context = ssl.create_default_context()
        make = smtplib.SMTP_SSL if mail.security == "tls" else smtplib.SMTP
        options: dict[str, Any] = {"context": context} if mail.security == "tls" else {}
        with make(mail.host, mail.port, timeout=timeout_s, **options) as server:
            if mail.security == "starttls":
                server.starttls(context=context)
            if mail.user is not None and password is not None:
                server.login(mail.user, password)
            refused = server.send_message(post)
    except KeyError as error:
        return Sent(False, f"it was not sent, the variable {error.args[0]} is not set")
    except smtplib.SMTPResponseException as error:
        return Sent(False, f"the mail server answered {error.smtp_code}")
    except (OSError, smtplib.SMTPException, ValueError) as error:
        return Sent(False, f"it was not sent: {type(error).__name__}")
    return Sent(not refused, "sent" if not refused else f"refused for {len(refused)} of {len(mail.to)}")


def _password(mail: Mail, workspace: Path) -> str | None:
    if mail.password is None:
        return None
    kind, place = mail.password
    return settings.process_environment()[place] if kind == "env" else (workspace / place).read_text().strip()
