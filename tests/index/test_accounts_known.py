"""Whoever was let in once is known without a look into the tables, but only as long as nothing there has changed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from runstone.errors import Unavailable
from runstone.index.accounts import Accounts, Owner
from runstone.index.accounts_file import FILE

TOKEN, SESSION = "a" * 64, "b" * 64


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.delenv("RUNSTONE_INDEX", raising=False)
    return Clock()


@pytest.fixture
def accounts(tmp_path: Path, clock: Clock) -> Accounts:
    """Accounts with one user, whose token has been used already."""
    found = Accounts(tmp_path, clock=clock)
    found.add_user("ann")
    found.set_role("ann", "*", "viewer")
    found.add_token("ann", TOKEN, lasts_s=50.0)
    assert found.owner_of_token(TOKEN) is not None
    assert found.owner_of_token(TOKEN) is not None
    return found


def looks(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets an entry whenever the tables are looked into."""
    seen: list[str] = []
    connected = accounts._place.connected

    def counted() -> object:
        seen.append("look")
        return connected()

    monkeypatch.setattr(accounts._place, "connected", counted)
    return seen


def test_a_token_that_was_seen_is_not_looked_up_again(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = looks(accounts, monkeypatch)
    assert [accounts.owner_of_token(TOKEN) for _turn in range(5)] == [Owner("ann", {"*": "viewer"})] * 5
    assert seen == []
    assert accounts.owner_of_token("c" * 64) is None
    assert seen == ["look"]


CHANGES: dict[str, Callable[[Accounts], object]] = {
    "revoked": lambda other: other.revoke_token(1),
    "removed": lambda other: other.remove_user("ann"),
    "without a role": lambda other: other.set_role("ann", "*", None),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_by_somebody_else_counts_at_once(accounts: Accounts, tmp_path: Path, what: str) -> None:
    CHANGES[what](Accounts(tmp_path, clock=accounts._clock))
    assert accounts.owner_of_token(TOKEN) == (Owner("ann", {}) if what == "without a role" else None)


def test_a_change_by_another_process_counts_at_once(accounts: Accounts, tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from runstone.index.accounts import Accounts; "
    script += "Accounts(Path(sys.argv[1])).revoke_token(1)"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
    assert accounts.owner_of_token(TOKEN) is None


def test_a_token_ends_when_its_time_is_over(accounts: Accounts, clock: Clock) -> None:
    clock.now += 49.0
    assert accounts.owner_of_token(TOKEN) is not None
    clock.now += 1.5
    assert accounts.owner_of_token(TOKEN) is None


def test_a_session_ends_when_its_time_is_over_and_with_its_token(accounts: Accounts, clock: Clock) -> None:
    accounts.begin_session(TOKEN, SESSION, lasts_s=10.0)
    assert [accounts.owner_of_session(SESSION) is not None for _turn in range(3)] == [True] * 3
    assert accounts.owner_of_token(SESSION) is None, "what is no token must not open the door as one"
    clock.now += 10.5
    assert accounts.owner_of_session(SESSION) is None
    accounts.begin_session(TOKEN, SESSION, lasts_s=10.0)
    assert accounts.owner_of_session(SESSION) is not None
    accounts.revoke_token(1)
    assert accounts.owner_of_session(SESSION) is None


def test_that_a_token_is_used_is_still_noted(accounts: Accounts, clock: Clock) -> None:
    assert accounts.tokens()[0].used_at == 1_000.0
    clock.now += 45.0
    accounts.owner_of_token(TOKEN)
    assert accounts.tokens()[0].used_at == 1_000.0
    accounts.add_token("ann", "d" * 64)
    accounts.owner_of_token("d" * 64)
    clock.now += 61.0
    accounts.owner_of_token("d" * 64)
    assert accounts.tokens()[0].used_at == clock.now


def test_accounts_that_were_put_back_from_a_backup_count_at_once(accounts: Accounts, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Accounts(other).add_user("bob")
    (other / FILE).replace(tmp_path / FILE)
    assert accounts.owner_of_token(TOKEN) is None


def test_a_link_is_no_file_of_accounts(accounts: Accounts, tmp_path: Path) -> None:
    (tmp_path / FILE).rename(tmp_path / "elsewhere")
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable, match="link"):
        accounts.add_user("eve")


def test_a_look_by_one_thread_does_not_free_what_another_holds(accounts: Accounts, tmp_path: Path) -> None:
    """Closing any file handle of a database takes away all locks that the process holds on it."""
    script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE'); print('free')"
    with accounts._transaction():
        thread = threading.Thread(target=lambda: Accounts(tmp_path).users())
        thread.start()
        thread.join(timeout=0.3)
        asked = [sys.executable, "-c", script, str(tmp_path / FILE)]
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    thread.join()
    assert "database is locked" in done.stderr, done.stdout + done.stderr
