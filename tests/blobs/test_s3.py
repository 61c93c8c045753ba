"""A store at `s3://`, spoken to by s3fs over HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

import runstone
from runstone.blobs import Blobs, open_blobs
from runstone.cli.main import run
from runstone.errors import FormatError
from runstone.gc import collect, collect_elsewhere
from runstone.workspace import ensure_workspace
from tests.blobs.test_checkpoints import safetensors_file
from tests.s3 import Bucket, bucket, s3_proxy

__all__ = ["bucket", "s3_proxy"]
# botocore and s3fs are not ours: what they warn of is theirs to mend
pytestmark = [pytest.mark.filterwarnings("ignore")]
LARGE = 48 << 20  # sent in parts
PUSH = """
import sys
from pathlib import Path
from runstone.blobs import open_blobs
print("begin", flush=True)
open_blobs(Path(sys.argv[1])).push()
"""


@pytest.fixture
def s3(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a file system, whose bucket the store is in."""
    monkeypatch.setenv("RUNSTONE_BLOBS", bucket.url)
    bucket.files.bucket = bucket.name
    return bucket.files


def there(s3: Any) -> dict[str, int]:
    """Return the contents in the bucket, and their sizes."""
    found = s3.find(f"{s3.bucket}/store", detail=True)
    return {name.rpartition("/")[2]: int(one["size"]) for name, one in found.items() if "/workspaces/" not in name}


def test_artifacts_go_there_and_are_read_from_another_workspace(s3: Any, home: Path, tmp_path: Path) -> None:
    safetensors_file(tmp_path / "model.safetensors", {"backbone": os.urandom(3 << 20), "head": os.urandom(1000)})
    with runstone.start_run(workspace=home, environment=False) as started:
        artifact = started.log_artifact(tmp_path / "model.safetensors")
    assert artifact is not None
    content = artifact.files[0].hash
    assert f"{content}.parts" in there(s3)
    other = ensure_workspace(tmp_path / "other")
    assert other.blobs.size(content) == (tmp_path / "model.safetensors").stat().st_size
    other.blobs.verify(content)
    assert other.blobs.local_path(content).read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert run(["verify", "-w", str(other.path)]) == 0


def test_what_lies_there_damaged_is_not_kept(s3: Any, home: Path, tmp_path: Path) -> None:
    ensure_workspace(home)
    blobs = open_blobs(home)
    content = blobs.put_bytes(b"right" * 100, "x").hash
    blobs.push(check=True)
    s3.pipe_file(f"{s3.bucket}/store/{content[:2]}/{content}", b"wrong" * 100)
    other = ensure_workspace(tmp_path / "other").blobs
    with pytest.raises(FormatError, match="is damaged"):
        other.read(content)
    assert list(other.objects()) == []


def killed_push(home: Path, when: Any) -> None:
    """Push in a process that is killed as soon as `when` says so."""
    process = subprocess.Popen([sys.executable, "-c", PUSH, str(home)], stdout=subprocess.PIPE)
    try:
        limit = time.monotonic() + 120
        while not when() and process.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.002)
        assert process.poll() is None, "it was done before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_a_killed_push_shows_only_whole_content_and_goes_on(s3: Any, home: Path) -> None:
    ensure_workspace(home)
    blobs = open_blobs(home)
    sizes = {blobs.put_bytes(os.urandom(20_000 + number), "x").hash: 20_000 + number for number in range(300)}
    killed_push(home, lambda: len(there(s3)) >= 5)
    found = there(s3)
    assert 5 <= len(found) < 300
    for content, size in found.items():
        assert size == sizes[content]
        assert blake3(s3.cat_file(f"{s3.bucket}/store/{content[:2]}/{content}")).hexdigest() == content
    moved = open_blobs(home).push()
    assert (moved.there_already >= len(found) - 1, moved.count + moved.there_already) == (True, 300)
    assert set(there(s3)) == set(sizes)


def test_a_large_content_is_there_whole_or_not_at_all(s3: Any, home: Path, tmp_path: Path) -> None:
    ensure_workspace(home)
    blobs = open_blobs(home)
    (tmp_path / "large").write_bytes(os.urandom(1 << 20) * (LARGE >> 20))
    content = blobs.put(tmp_path / "large", "large").hash

    def has_begun() -> bool:
        return bool(s3.call_s3("list_multipart_uploads", Bucket=s3.bucket).get("Uploads"))

    killed_push(home, has_begun)
    assert there(s3) == {}
    assert open_blobs(home).push(check=True).size_bytes == LARGE
    assert there(s3) == {content: LARGE}
    other = Blobs(ensure_workspace(tmp_path / "other").path / "blobs", remote=blobs.remote)
    other.verify(content)


def test_datasets_are_pushed_pulled_and_imported(s3: Any, home: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(20):
        (data / f"{number}.txt").write_text(str(number))
    assert run(["data", "add", str(data), "-w", str(home)]) == 0
    place = f"s3://{s3.bucket}/datasets-of-the-team"
    assert run(["data", "push", "--to", place, "--check", "-w", str(home)]) == 0
    other = tmp_path / "other"
    assert run(["data", "pull", "data", "--from", place, "-w", str(other)]) == 0
    assert run(["data", "verify", "-w", str(other)]) == 0
    assert run(["data", "checkout", "data@1", str(tmp_path / "out"), "-w", str(other)]) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        f"{number}.txt": str(number) for number in range(20)
    }
    s3.pipe_file(f"{s3.bucket}/raw.csv", b"x\n1\n")
    assert run(["data", "import", f"s3://{s3.bucket}/raw.csv", "-w", str(home)]) == 0
    datasets = ensure_workspace(home).datasets
    assert "ETag" in str(datasets.find("raw.csv").source["pins"])
    assert run(["data", "update", "raw.csv", "-w", str(home)]) == 0
    assert len(datasets.get("raw.csv").versions()) == 1
    s3.pipe_file(f"{s3.bucket}/raw.csv", b"x\n2\n")
    assert run(["data", "update", "raw.csv", "-w", str(home)]) == 0
    assert len(datasets.get("raw.csv").versions()) == 2


def test_what_nobody_refers_to_is_collected_there(s3: Any, home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    with runstone.start_run(workspace=home, environment=False) as started:
        started.log_artifact(tmp_path / "file")
    later = time.time() + 2 * 86_400
    assert collect_elsewhere(home, now=later).freed_count == 0
    started.workspace.delete(started.id)
    collect(home, purge_deleted=True, grace_s=0)
    assert collect_elsewhere(home, now=time.time()).recent_count == 1
    assert collect_elsewhere(home, now=later).freed_bytes == 1000
    assert there(s3) == {}
