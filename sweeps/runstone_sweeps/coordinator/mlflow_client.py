"""Asks a server as MLflow's client does: whether what a trial logs there comes to a run of this sweep."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.request
from collections.abc import Mapping
from urllib.parse import quote

WAIT_S = 3.0


def serves(environment: Mapping[str, str], run_id: str) -> bool:
    """Return whether the server that `MLFLOW_TRACKING_URI` names knows a run; one that does not answer does not.

    Args:
        environment: Of the trial: it names the server, and what lets in.
        run_id: The run, which exists.
    """
    uri = environment.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not uri.startswith(("http://", "https://")):
        return False
    request = urllib.request.Request(f"{uri}/api/2.0/mlflow/runs/get?run_id={quote(run_id)}")  # noqa: S310 (http alone)
    told = _authorization(environment)
    if told is not None:
        request.add_header("Authorization", told)
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:  # noqa: S310 (likewise)
            found = json.load(answer)
        return bool(found["run"]["info"]["run_id"] == run_id)
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return False


def _authorization(environment: Mapping[str, str]) -> str | None:
    """Return what MLflow's client would send to be let in."""
    name, password = environment.get("MLFLOW_TRACKING_USERNAME"), environment.get("MLFLOW_TRACKING_PASSWORD")
    if name is not None and password is not None:
        return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"
    token = environment.get("MLFLOW_TRACKING_TOKEN")
    return f"Bearer {token}" if token is not None else None
