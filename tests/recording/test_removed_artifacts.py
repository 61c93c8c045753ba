"""Artifacts that a run lets go of."""

from __future__ import annotations

from pathlib import Path

import runstone


def test_an_artifact_that_is_removed_is_gone_until_it_is_logged_again(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("bytes")
    with runstone.start_run(environment=False) as run:
        run.log_artifact(file, name="a")
        run.log_artifact(file, name="b")
        run.remove_artifact("a")
        run.remove_artifact("never there")
        assert [artifact.name for artifact in run.read().artifacts] == ["b"]
        run.log_artifact(file, name="a")
    info = run.read()
    assert {artifact.name for artifact in info.artifacts} == {"a", "b"}
    assert info.warnings == ()
