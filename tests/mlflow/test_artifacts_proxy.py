"""MLflow's own client behind nginx: files in parts go to addresses that lead through the proxy."""

from __future__ import annotations

import os
from pathlib import Path

import httpx2
import pytest

from runstone.workspace import Workspace
from tests.mlflow.conftest import PYTHON, Real
from tests.mlflow.test_artifacts_client import IN_PARTS, SEND_AND_FETCH
from tests.server.test_proxies import Behind, behind, certificate

__all__ = ["behind", "certificate"]


@pytest.mark.parametrize("behind", ["left"], indirect=True, scope="module")
@pytest.mark.skipif(not os.environ.get(PYTHON), reason="names no Python that has MLflow")
def test_files_in_parts_go_through_a_proxy(behind: Behind, certificate: tuple[Path, Path]) -> None:
    real = Real(os.environ[PYTHON], behind.tls_url.rstrip("/"), behind.token, Workspace(behind.workspace))
    found = real.do(SEND_AND_FETCH, **IN_PARTS, REQUESTS_CA_BUNDLE=str(certificate[0]))
    assert (found["sent"], found["fetched"]) == (3, 4), "the client sent and fetched in one piece"
    assert set(found["back"].values()) == {True}, found["back"]


def test_what_the_server_offers_follows_what_it_knows_of_its_address(behind: Behind) -> None:
    for base, is_offered in ((behind.url, True), (behind.tls_url, False)):
        with httpx2.Client(base_url=base, verify=behind.tls, auth=("ann", behind.token), timeout=60) as client:
            info = client.get("api/3.0/mlflow/server-info").json()
            assert info["multipart_uploads_enabled"] is is_offered, base
            made = client.post("api/2.0/mlflow-artifacts/mpu/create/x", json={"path": "a", "num_parts": 1})
            assert made.json()["credentials"][0]["url"].startswith(base)
