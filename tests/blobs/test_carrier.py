"""What comes into a store goes on to its remote store, and may then be given back here: nothing is lost on the way."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from runstone.blobs import Blobs
from runstone.blobs.carrier import Carrier
from runstone.blobs.remote import Remote, StoreUnreachable
from runstone.blobs.trimming import SMALL_BYTES
from runstone.errors import FormatError
from runstone.gc import collect_elsewhere
from runstone.workspace import ensure_workspace
from tests.blobs.test_checkpoints import safetensors_file
from tests.s3 import Bucket, bucket, refusal, s3_proxy

__all__ = ["bucket", "s3_proxy"]
pytest.importorskip("fsspec")
# botocore and s3fs are not ours: what they warn of is theirs to mend
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there"


@pytest.fixture
def blobs(tmp_path: Path, there: Path) -> Blobs:
    return Blobs(ensure_workspace(tmp_path / "here").path / "blobs", remote=f"file://{there}")


def carrier_of(blobs: Blobs) -> Carrier:
    assert blobs.remote is not None
    return blobs.carrier(blobs.remote, cache_bytes=None, is_ended=lambda: False)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("??/*")}


def age(blobs: Blobs, content: str, *, days: float) -> None:
    before = time.time() - days * 86_400
    os.utime(blobs.object_path(content), (before, before))


def test_what_comes_goes_on_a_recipe_behind_its_parts(blobs: Blobs, there: Path, tmp_path: Path) -> None:
    carrier = carrier_of(blobs)
    assert carrier.step().count == 0
    small = blobs.put_bytes(b"small", "x").hash
    safetensors_file(tmp_path / "c", {"x": os.urandom(2 << 20), "y": os.urandom(1000)})
    checkpoint = blobs.put(tmp_path / "c", "c").hash
    done = carrier.step()
    assert names(there) == {name for name, _status in blobs.objects()}
    assert (done.count, done.size_bytes) == (len(names(there)), sum(one.stat().st_size for one in there.glob("??/*")))
    recipe = there / checkpoint[:2] / f"{checkpoint}.parts"
    assert recipe.stat().st_mtime_ns == max(path.stat().st_mtime_ns for path in there.glob("??/*"))
    assert carrier.step().count == 0
    later = blobs.put_bytes(b"later", "x").hash
    assert carrier.step().count == 1
    assert {small, later} <= names(there)


def test_what_came_while_the_store_was_away_goes_later(blobs: Blobs, there: Path) -> None:
    there.write_bytes(b"in the way")
    assert blobs.remote is not None
    carrier = carrier_of(Blobs(blobs.root, remote=Remote(f"file://{there}", pause=lambda _seconds: None)))
    contents = {blobs.put_bytes(os.urandom(100), "x").hash for _number in range(150)}
    for _attempt in range(2):
        with pytest.raises(OSError, match="there"):
            carrier.step()
    there.unlink()
    assert carrier.step().count == 150
    assert names(there) == contents


def test_what_waits_is_counted_until_it_is_there(blobs: Blobs, there: Path) -> None:
    there.write_bytes(b"in the way")
    carrier = carrier_of(Blobs(blobs.root, remote=Remote(f"file://{there}", pause=lambda _seconds: None)))
    assert (carrier.waiting().count, carrier.waiting().oldest_at) == (0, None)
    old = blobs.put_bytes(os.urandom(100), "x").hash
    age(blobs, old, days=3)
    blobs.put_bytes(os.urandom(50), "x")
    for _attempt in range(2):
        with pytest.raises(OSError, match="there"):
            carrier.step()
        waiting = carrier.waiting()
        assert (waiting.count, waiting.size_bytes) == (2, 150)
        assert waiting.oldest_at == pytest.approx(time.time() - 3 * 86_400, abs=60)
    there.unlink()
    carrier.step()
    assert (carrier.waiting().count, carrier.waiting().size_bytes, carrier.waiting().oldest_at) == (0, 0, None)
    blobs.put_bytes(os.urandom(10), "x")
    carrier.step()
    assert carrier.waiting().count == 0


def test_a_damaged_file_is_told_once_and_holds_up_no_other(blobs: Blobs, there: Path) -> None:
    damaged, sound = blobs.put_bytes(b"right", "x").hash, blobs.put_bytes(b"sound", "x").hash
    path = blobs.object_path(damaged)
    path.chmod(0o644)
    path.write_bytes(b"wrong")
    carrier = carrier_of(blobs)
    assert [str(path) in problem for problem in carrier.step().damaged] == [True]
    assert carrier.step().damaged == []
    assert names(there) == {sound}
    with pytest.raises(FormatError):
        blobs.push()


def test_room_is_made_by_what_was_unused_longest_and_lies_there(blobs: Blobs, there: Path) -> None:
    sizes = {number: SMALL_BYTES + number for number in range(5)}
    contents = [blobs.put_bytes(os.urandom(size), "x").hash for size in sizes.values()]
    tiny = blobs.put_bytes(b"tiny", "x").hash
    carrier_of(blobs).step()
    lost = there / contents[0][:2] / contents[0]
    lost.write_bytes(b"only half")
    for number, content in enumerate(contents[:4]):
        age(blobs, content, days=10 - number)  # the last is in use
    age(blobs, tiny, days=99)
    assert blobs.trim(3 * SMALL_BYTES + 1000) == (2, 2 * SMALL_BYTES + 3)
    assert {name for name, _status in blobs.objects()} == {contents[0], contents[3], contents[4], tiny}
    assert blobs.trim(0) == (1, SMALL_BYTES + 3)
    assert {name for name, _status in blobs.objects()} == {contents[0], contents[4], tiny}
    assert blobs.lacking(contents) == set()
    for content in contents[1:]:
        blobs.verify(content)  # it comes back


def test_a_checkpoint_comes_back_by_its_parts(blobs: Blobs, tmp_path: Path) -> None:
    safetensors_file(tmp_path / "c", {"x": os.urandom(2 << 20), "y": os.urandom(3 << 20)})
    checkpoint = blobs.put(tmp_path / "c", "c").hash
    carrier_of(blobs).step()
    for name, _status in list(blobs.objects()):
        age(blobs, name, days=2)
    with blobs.open(checkpoint) as file:
        file.read(1)
        assert blobs.trim(0)[0] >= 2
        file.seek(0)
        assert file.read() == (tmp_path / "c").read_bytes()  # of whoever reads meanwhile, too
    assert blobs.trim(0) == (0, 0)  # it was used just now


def test_what_was_given_back_counts_as_here_where_it_can_be_marked_there(bucket: Bucket, tmp_path: Path) -> None:
    home = ensure_workspace(tmp_path / "here").path
    remote = Remote(bucket.url, pause=lambda _seconds: None)
    blobs = Blobs(home / "blobs", remote=remote)
    content = blobs.put_bytes(os.urandom(SMALL_BYTES), "x").hash
    unknown = "0" * 64
    carrier_of(blobs).step()
    age(blobs, content, days=2)
    assert blobs.trim(0) == (1, SMALL_BYTES)
    before = remote.modified_at(f"{content[:2]}/{content}")
    assert before is not None
    time.sleep(1.1)  # S3 tells whole seconds
    bucket.proxy.seen.clear()
    assert (blobs.keep(content), blobs.keep(unknown)) == (True, False)
    assert not any(unknown in path for _method, path in bucket.proxy.seen)  # nobody waits for a store for what is new
    after = remote.modified_at(f"{content[:2]}/{content}")
    assert after is not None
    assert after > before
    bucket.proxy.fault = lambda _asked, _forward: refusal(503, "SlowDown")
    assert not blobs.keep(content)
    count = len(bucket.proxy.seen)
    assert not blobs.keep(content)
    assert len(bucket.proxy.seen) == count  # a store that is away is not asked for each content
    with pytest.raises(StoreUnreachable):
        blobs.verify(content)
    bucket.proxy.fault = None
    blobs.verify(content)


def test_what_was_collected_there_is_not_taken_for_kept(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNSTONE_BLOBS", bucket.url)
    home = ensure_workspace(tmp_path / "here")
    content = home.blobs.put_bytes(os.urandom(SMALL_BYTES), "x").hash
    carrier_of(home.blobs).step()
    age(home.blobs, content, days=2)
    assert home.blobs.trim(0)[0] == 1
    assert collect_elsewhere(home.path, now=time.time() + 2 * 86_400).freed_count == 1
    assert not home.blobs.keep(content)
    assert list(home.blobs.root.glob("??/*.there")) == []
