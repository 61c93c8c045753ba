"""Which paths are of MLflow's protocol, and what the gate does differently for them. Knows no HTTP framework."""

from __future__ import annotations

import re

_OURS = re.compile(r"/(?:ajax-)?api/[23]\.0/mlflow(?:-artifacts)?(?:/|$)|/get-artifact$|/+model-versions/get-artifact$")
_UPLOAD = re.compile(r"/(?:ajax-)?api/2\.0/(?:mlflow-artifacts/(?:artifacts|mpu/parts)/.+|mlflow/upload-artifact)")
_BY_TICKET = re.compile(r"/api/2\.0/mlflow-artifacts/(?:mpu/parts|presigned-files)/[^/]+/[^/]+")
_FREQUENT = re.compile(
    r"/(?:ajax-)?api/2\.0/mlflow(?:-artifacts/(?:artifacts|mpu)/.+"
    r"|/(?:runs/(?:log-metric|log-batch|log-parameter|log-inputs|outputs|set-tag|search|create|update)"
    r"|experiments/search|logged-models/search|upload-artifact|registered-models/get-latest-versions))"
)
SHARE = 0.02
"""What a request counts of the limit by address: each metric may be a request of its own."""


def is_mlflow(path: str) -> bool:
    """Return whether a path is of MLflow's protocol, so that errors have its form."""
    return _OURS.match(path) is not None


def is_upload(method: str, path: str) -> bool:
    """Return whether the body of a request is a file, of any size, which is read as it comes."""
    return method in ("PUT", "POST") and _UPLOAD.fullmatch(path) is not None


def is_by_ticket(method: str, path: str) -> bool:
    """Return whether a request shows a ticket instead of who sends it: its route looks at that."""
    return method in ("GET", "PUT") and _BY_TICKET.fullmatch(path) is not None


def is_frequent(path: str) -> bool:
    """Return whether requests to a path come by the thousand, so that the audit log need not hold those that succeed.

    What they change is in the journal of the run, with its time.
    """
    return _FREQUENT.fullmatch(path) is not None
