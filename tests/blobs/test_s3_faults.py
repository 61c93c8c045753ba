"""A store that speaks S3 and fails in every way: a content is there whole or not at all, and that is what is told."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from blake3 import blake3

from runstone.blobs import Blobs, open_blobs, s3
from runstone.blobs import remote as remotes
from runstone.blobs.remote import Remote, StoreRefuses, StoreUnreachable
from runstone.cli.main import run
from runstone.errors import FormatError
from runstone.gc import collect_elsewhere
from runstone.workspace import ensure_workspace
from tests.s3 import KEY, SECRET, Answer, Bucket, Fault, Request, Reset, bucket, refusal, s3_proxy

__all__ = ["bucket", "s3_proxy"]
# botocore and s3fs are not ours: what they warn of is theirs to mend
pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = 20_000
PART = 5 << 20  # the least that a server takes
LARGE = 11 << 20  # three parts
Forward = Callable[[Request], Answer]


@pytest.fixture(autouse=True)
def _smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", PART)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return ensure_workspace(tmp_path / "here").blobs


def filled(blobs: Blobs, size: int) -> str:
    """Store random bytes and return their hash."""
    return blobs.put_bytes(os.urandom(size), "x").hash


def store_of(bucket: Bucket) -> Remote:
    """Return the store in a bucket, asked again without a pause."""
    return Remote(bucket.url, pause=lambda _seconds: None)


def nth(numbers: set[int], fault: Fault, *, of: Callable[[Request], bool]) -> Fault:
    """Return a fault that strikes the requests with these numbers, from 1, among some."""
    count = 0

    def strike(asked: Request, forward: Forward) -> Answer:
        nonlocal count
        if not of(asked):
            return forward(asked)
        count += 1
        return fault(asked, forward) if count in numbers else forward(asked)

    return strike


def reset_before(_asked: Request, _forward: Forward) -> Answer:
    raise Reset


def reset_behind(asked: Request, forward: Forward) -> Answer:
    """Let the server do it and lose the answer."""
    forward(asked)
    raise Reset


def reset_within(asked: Request, forward: Forward) -> Answer:
    raise Reset(forward(asked))


def flipped(asked: Request, forward: Forward) -> Answer:
    """Let the server take other bytes than were sent, as where it does not compare checksums."""
    asked.body = bytes([asked.body[0] ^ 1]) + asked.body[1:]
    asked.headers = {
        name: value
        for name, value in asked.headers.items()
        if name.lower() != "content-md5" and "checksum" not in name.lower()
    }
    return forward(asked)


def is_upload(asked: Request) -> bool:
    return asked.is_content and (asked.method == "PUT" or asked.is_completion)


def is_content(asked: Request) -> bool:
    return asked.is_content


def check_whole(bucket: Bucket, content: str, size: int) -> None:
    assert bucket.contents() == {content: size}
    assert blake3(bucket.data(content)).hexdigest() == content
    assert bucket.unfinished() == []


PASSING: dict[str, Fault] = {
    "500": lambda _asked, _forward: refusal(500, "InternalError"),
    "503": lambda _asked, _forward: refusal(503, "ServiceUnavailable"),
    "SlowDown": lambda _asked, _forward: refusal(503, "SlowDown", "Please reduce your request rate."),
    "no XML": lambda _asked, _forward: Answer(502, {}, b"<html>Bad Gateway</html>"),
    "reset before": reset_before,
    "answer lost": reset_behind,
    "answer broken": reset_within,
    "other bytes": flipped,
}


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["one request", "parts"])
@pytest.mark.parametrize("name", PASSING)
def test_what_fails_once_arrives_whole(bucket: Bucket, blobs: Blobs, name: str, size: int) -> None:
    content = filled(blobs, size)
    # each kind of request fails once: the first look, a part, the completion, the last look
    strikes = {1, 3, 4} if name != "other bytes" else {1}
    bucket.proxy.fault = nth(strikes, PASSING[name], of=is_upload if name == "other bytes" else is_content)
    if name == "other bytes" and size == LARGE:
        bucket.proxy.fault = nth({2}, flipped, of=lambda asked: asked.is_part)
    blobs.push([content], to=store_of(bucket))
    bucket.proxy.fault = None
    check_whole(bucket, content, size)


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["one request", "parts"])
@pytest.mark.parametrize("name", ["503", "reset before", "answer lost", "other bytes"])
def test_what_always_fails_leaves_nothing(bucket: Bucket, blobs: Blobs, name: str, size: int) -> None:
    content = filled(blobs, size)
    fault = PASSING[name]

    def strike(asked: Request, forward: Forward) -> Answer:
        is_hit = asked.is_content and asked.method == "PUT" and ("partNumber=3" in asked.path or not asked.is_part)
        return fault(asked, forward) if is_hit else forward(asked)

    bucket.proxy.fault = strike
    if name == "answer lost" and size == SMALL:
        # the object is whole there each time: nothing speaks against it, whatever this side could learn
        with pytest.raises(StoreUnreachable):
            blobs.push([content], to=store_of(bucket))
        bucket.proxy.fault = None
        check_whole(bucket, content, size)
        return
    with pytest.raises(StoreUnreachable):
        blobs.push([content], to=store_of(bucket))
    bucket.proxy.fault = None
    assert bucket.contents() == {}
    assert bucket.unfinished() == []
    blobs.push([content], to=store_of(bucket))
    check_whole(bucket, content, size)


@pytest.mark.parametrize("fault", [reset_before, reset_behind], ids=["not done", "done, answer lost"])
def test_an_upload_whose_completion_is_lost_is_whole(bucket: Bucket, blobs: Blobs, fault: Fault) -> None:
    content = filled(blobs, LARGE)
    lost = nth({1}, fault, of=lambda asked: asked.is_completion)
    if fault is reset_behind:  # the server forgets an upload when it is complete; moto remembers it
        forgotten = nth({2}, lambda *_: refusal(404, "NoSuchUpload"), of=lambda asked: asked.is_completion)
        bucket.proxy.fault = lambda asked, forward: forgotten(asked, lambda one: lost(one, forward))
    else:
        bucket.proxy.fault = lost
    blobs.push([content], to=store_of(bucket))
    check_whole(bucket, content, LARGE)


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["one request", "parts"])
def test_a_wrong_etag_is_no_proof_and_no_blame(bucket: Bucket, blobs: Blobs, size: int) -> None:
    content = filled(blobs, size)

    def lie(asked: Request, forward: Forward) -> Answer:
        answer = forward(asked)
        if asked.method == "HEAD" and answer.status == 200:
            answer.headers = {k: v for k, v in answer.headers.items() if k.lower() != "etag"}
            answer.headers["ETag"] = '"0123456789abcdef0123456789abcdef"'
        return answer

    bucket.proxy.fault = lie
    blobs.push([content], to=store_of(bucket))
    assert any(method == "GET" and content in path for method, path in bucket.proxy.seen)  # it was read back
    check_whole(bucket, content, size)


def test_a_right_etag_needs_no_reading_back(bucket: Bucket, blobs: Blobs) -> None:
    contents = [filled(blobs, SMALL), filled(blobs, LARGE)]
    blobs.push(contents, to=store_of(bucket))
    assert [path for method, path in bucket.proxy.seen if method == "GET" and "/store/" in path] == []
    bucket.proxy.seen.clear()
    assert blobs.push(contents, to=store_of(bucket)).there_already == 2


def test_content_that_shows_late_is_waited_for(bucket: Bucket, blobs: Blobs) -> None:
    content = filled(blobs, SMALL)
    is_put = False

    def late(asked: Request, forward: Forward) -> Answer:
        nonlocal is_put
        is_put = is_put or asked.method == "PUT"
        return forward(asked)

    hidden = nth({1, 2}, lambda *_: Answer(404, {}, b""), of=lambda asked: is_put and asked.method == "HEAD")
    bucket.proxy.fault = lambda asked, forward: hidden(asked, lambda one: late(one, forward))
    blobs.push([content], to=store_of(bucket))
    assert [method for method, path in bucket.proxy.seen if content in path].count("HEAD") >= 4
    check_whole(bucket, content, SMALL)


def test_an_upload_that_nobody_could_give_up_goes_with_gc(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNSTONE_BLOBS", bucket.url)
    home = ensure_workspace(tmp_path / "here")
    content = filled(home.blobs, LARGE)

    def began_now(asked: Request, forward: Forward) -> Answer:
        answer = forward(asked)  # moto tells of a day in 2010
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.000Z}".encode()
        answer.body = re.sub(rb"(<Initiated>)[^<]*", rb"\g<1>" + now, answer.body)
        return answer

    def away(asked: Request, forward: Forward) -> Answer:
        is_hit = "partNumber=3" in asked.path or asked.method == "DELETE"
        return refusal(500, "InternalError") if is_hit else forward(asked)

    bucket.proxy.fault = away
    with pytest.raises(StoreUnreachable):
        home.blobs.push([content], to=store_of(bucket))
    bucket.proxy.fault = began_now
    assert bucket.unfinished() == [f"store/{content[:2]}/{content}"]
    assert collect_elsewhere(home.path, now=time.time()).broken_count == 0  # it may go on
    assert collect_elsewhere(home.path, now=time.time() + 2 * 86_400, dry_run=True).broken_count == 1
    assert bucket.unfinished() != []
    assert collect_elsewhere(home.path, now=time.time() + 2 * 86_400).broken_count == 1
    assert (bucket.unfinished(), bucket.contents()) == ([], {})


def test_credentials_that_expire_are_told_and_renewed_ones_taken(
    bucket: Bucket, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = filled(blobs, LARGE)
    remote = store_of(bucket)

    def expire(asked: Request, forward: Forward) -> Answer:
        if KEY in asked.headers.get("Authorization", ""):
            return refusal(400, "ExpiredToken", "The provided token has expired.")
        return forward(asked)

    bucket.proxy.fault = nth(set(range(4, 99)), expire, of=is_content)  # in the middle of the upload
    with pytest.raises(StoreRefuses, match="token has expired") as told:
        blobs.push([content], to=remote)
    assert isinstance(told.value, PermissionError)
    assert bucket.contents() == {}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIARENEWEDRENEWED00")
    blobs.push([content], to=remote)
    bucket.proxy.fault = None
    assert bucket.contents() == {content: LARGE}


@pytest.mark.parametrize("name", ["500", "SlowDown", "reset before", "answer broken"])
def test_fetching_goes_on_where_it_broke(bucket: Bucket, blobs: Blobs, tmp_path: Path, name: str) -> None:
    content = filled(blobs, LARGE)
    blobs.push([content], to=store_of(bucket))
    bucket.proxy.seen.clear()
    bucket.proxy.fault = nth({2, 4}, PASSING[name], of=lambda asked: asked.method == "GET" and asked.is_content)
    other = Blobs(ensure_workspace(tmp_path / "there").path / "blobs", remote=store_of(bucket))
    other.verify(content)
    gets = [path for method, path in bucket.proxy.seen if method == "GET" and content in path]
    assert len(gets) == 5, gets  # three pieces, two of them twice


def test_what_comes_damaged_or_not_at_all_is_not_kept(bucket: Bucket, blobs: Blobs, tmp_path: Path) -> None:
    content = filled(blobs, SMALL)
    blobs.push([content], to=store_of(bucket))
    other = Blobs(ensure_workspace(tmp_path / "there").path / "blobs", remote=store_of(bucket))

    def swap(asked: Request, forward: Forward) -> Answer:
        answer = forward(asked)
        if asked.method == "GET" and content in asked.path:
            answer.body = answer.body[::-1]
            answer.headers = {k: v for k, v in answer.headers.items() if "checksum" not in k.lower()}
        return answer

    bucket.proxy.fault = swap
    with pytest.raises(FormatError, match="damaged"):
        other.read(content)
    bucket.proxy.fault = lambda asked, forward: refusal(503, "SlowDown") if asked.method == "GET" else forward(asked)
    with pytest.raises(StoreUnreachable, match="look again later"):
        other.read(content)
    assert list(other.objects()) == []
    bucket.proxy.fault = None
    other.verify(content)


def test_no_secret_is_told(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNSTONE_BLOBS", bucket.url)
    home = ensure_workspace(tmp_path / "here")
    filled(home.blobs, SMALL)
    told = f"signed with {KEY}: https://{KEY}:{SECRET}@s3/x?X-Amz-Signature=abcdef0123&X-Amz-Credential={KEY}%2F2026"
    denied = refusal(403, "AccessDenied", told.replace("&", "&amp;"))
    bucket.proxy.fault = lambda asked, forward: forward(asked) if asked.method == "HEAD" else denied
    assert run(["blobs", "push", "-w", str(home.path)]) != 0
    said = "".join(capsys.readouterr())
    assert f"the store {bucket.url} refuses" in said
    for secret in (KEY, SECRET, "abcdef0123"):
        assert secret not in said
    assert str(Remote(f"s3://{KEY}:{SECRET}@bucket/x")) == "s3://…@bucket/x"


PUSH = """
import resource, sys
from pathlib import Path
from runstone.blobs import open_blobs
blobs = open_blobs(Path(sys.argv[1]))
blobs.push(sys.argv[2:3])  # what is imported and opened once
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
blobs.push(sys.argv[3:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_content_is_not_held_in_memory(bucket: Bucket, tmp_path: Path) -> None:
    blobs = ensure_workspace(tmp_path / "here").blobs
    (tmp_path / "large").write_bytes(os.urandom(1 << 20) * 128)
    small, large = filled(blobs, LARGE), blobs.put(tmp_path / "large", "large").hash
    environment = {**os.environ, **bucket.environment, "RUNSTONE_BLOBS": bucket.url}
    told = subprocess.run(
        [sys.executable, "-c", PUSH, str(blobs.root.parent), small, large],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert bucket.contents()[large] == 128 << 20
    assert int(told.stdout) < 64 << 10, f"{told.stdout} KiB more"


def test_the_settings_of_a_workspace_name_the_store(bucket: Bucket, tmp_path: Path) -> None:
    home = ensure_workspace(tmp_path / "here").path
    (home / "settings.json").write_text(f'{{"blobs": "{bucket.url}"}}')
    content = filled(open_blobs(home), SMALL)
    assert run(["blobs", "push", "--check", "-w", str(home)]) == 0
    check_whole(bucket, content, SMALL)
    assert remotes.Remote(bucket.url).files("workspaces") != set()
