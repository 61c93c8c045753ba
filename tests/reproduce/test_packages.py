"""The lock: what of the recorded packages pip can install again, and from where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runstone.reproduce.packages import Packages, packages_of

HASH = "sha256=" + "ab" * 32


def read(*installed: dict[str, Any], code: Path | None = None, conda: list[str] | None = None) -> Packages:
    """Read recorded packages of a checkout in `/old`, by a user whose home is `/home/me`."""
    snapshot = {"packages": {"installed": list(installed)}, "conda": {"explicit": conda or []}}
    return packages_of(snapshot, home="/home/me", root="/old", code=code)


def one(**package: Any) -> dict[str, Any]:
    """Return a recorded package."""
    return {"name": "thing", "version": "1.2", **package}


def test_versions_are_pinned_with_their_local_part_and_pip_is_left_to_itself() -> None:
    found = read(one(), one(name="torch", version="2.13.0+cpu"), one(name="setuptools"), one(name="pip"))
    assert found.lines == ("thing==1.2", "torch==2.13.0+cpu", "setuptools==1.2")
    assert found.lost == ()


def test_addresses_are_kept_with_commit_or_hash() -> None:
    found = read(
        one(url="https://example.org/thing.git", commit="abcdef1"),
        one(url="ssh://example.org/thing.git", commit="abcdef1"),
        one(url="https://example.org/all.git", commit="abcdef1", subdirectory="parts/thing"),
        one(url="https://example.org/thing-1.2.whl", hash=HASH),
    )
    assert found.lines == (
        "thing @ git+https://example.org/thing.git@abcdef1",
        "thing @ git+ssh://git@example.org/thing.git@abcdef1",  # who logged in was not recorded
        "thing @ git+https://example.org/all.git@abcdef1#subdirectory=parts/thing",
        f"thing @ https://example.org/thing-1.2.whl#{HASH}",
    )


def test_what_cannot_be_had_again_is_named_with_the_reason(tmp_path: Path) -> None:
    found = read(
        one(url="file:///gone/thing-1.2.whl", hash=HASH),
        one(url="file://~/gone"),
        one(url="file:///old/sub", is_editable=True),
        one(url="https://<redacted>@example.org/thing.whl"),
        code=tmp_path,
    )
    assert found.lost == (
        "thing 1.2: it was installed from /gone/thing-1.2.whl, which is gone",
        "thing 1.2: it was installed from /home/me/gone, which is gone",
        f"thing 1.2: it was installed in place from {tmp_path}/sub, and the commit has nothing there",
        "thing 1.2: its address https://<redacted>@example.org/thing.whl cannot be used: part of it was left out",
    )
    assert all(line.startswith("# thing==1.2 cannot be installed again: ") for line in found.lines)


def test_what_came_from_the_old_checkout_comes_from_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    found = read(one(url="file:///old/a%20b", is_editable=True), one(url="file:///old/a%20b"), code=tmp_path)
    assert found.in_place == (tmp_path / "a b",)
    assert found.lines == (f"-e file://{tmp_path}/a%20b", f"thing @ file://{tmp_path}/a%20b")
    assert found.notes == ()


def test_a_folder_outside_the_checkout_is_told_to_be_as_it_is_now(tmp_path: Path) -> None:
    found = read(one(url=tmp_path.as_uri(), is_editable=True))
    assert found.lines == (f"-e {tmp_path.as_uri()}",)
    assert found.notes == (f"thing was installed in place from {tmp_path}, outside the checkout: it is as it is now",)


def test_folders_in_which_conda_built_are_not_asked_for() -> None:
    found = read(one(url="file:///croot/thing_1/work"), conda=["https://conda.example/thing-1.2-0.conda"])
    assert (found.lines, found.lost) == (("thing==1.2",), ())


def test_runstone_from_a_folder_of_its_own_is_never_lost(tmp_path: Path) -> None:
    own = one(name="runstone", url="file:///gone/runstone", is_editable=True)
    found = read(own)
    assert (found.lost, found.own) == ((), "1.2")
    assert found.lines == ("# runstone 1.2 was installed in place from /gone/runstone",)
    # A run of a checkout of Runstone uses that one.
    assert read({**own, "url": "file:///old"}, code=tmp_path).lines == (f"-e {tmp_path.as_uri()}",)
