"""What a run used and made stands in its journal, once each, and is read from there."""

from __future__ import annotations

from pathlib import Path

import runstone


def test_inputs_and_outputs_are_read_in_order_and_once(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False) as run:
        for role in ("train", "train", "test"):
            run._event("input", kind="dataset", name="loans", version="3", hash="a" * 64, role=role, source=None)
        run._event("output", kind="model", name="credit-risk", version="1.0.0", hash="b" * 64)
    info = run.read()
    assert [(link.name, link.version, link.role) for link in info.inputs] == [
        ("loans", "3", "train"),
        ("loans", "3", "test"),
    ]
    (made,) = info.outputs
    assert (made.kind, made.name, made.version, made.hash, made.role) == (
        "model",
        "credit-risk",
        "1.0.0",
        "b" * 64,
        None,
    )
    assert run.read().started_at.timestamp() <= made.at
