"""The index and the accounts on a PostgreSQL server: shared by processes, through whatever happens to the server."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from psycopg import sql

import runstone
from runstone import FormatError, InvalidConfig, Unavailable, Workspace
from runstone.index import accounts as accounts_module
from runstone.index import schema
from runstone.index.accounts import Accounts
from runstone.index.conditions import EVERY_RUN
from runstone.index.opening import identity_of, open_index
from runstone.index.postgres import PATIENCE_S, PostgresIndex, schema_name
from runstone.query import OpenIndex
from runstone.server.app import create_app
from runstone.server.auth import LocalKeys, hashed, new_token
from runstone.server.config import ServerConfig
from tests.postgres import Postgres, running


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    yield from running()


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A server that a test may stop."""
    yield from running()


@pytest.fixture
def workspace(home: Path) -> Workspace:
    return runstone.ensure_workspace(home)


def make(workspace: Workspace, name: str, **arguments: Any) -> str:
    with runstone.start_run(name=name, workspace=workspace, environment=False, **arguments) as run:
        run.log({"loss": 0.5}, step=0)
        return run.id


def names(index: PostgresIndex) -> list[str]:
    return sorted(record.name for record in index.find(EVERY_RUN).records)


def execute(server: Postgres, statement: str, index: PostgresIndex | None = None) -> list[Any]:
    """Do something with the tables behind the back of the index."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        if index is not None:
            connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(index.schema)))
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def end_connections(server: Postgres) -> None:
    """Cut all connections off, as a restart, a failover or a limit of idle time does."""
    execute(
        server,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'runstone' AND pid != pg_backend_pid()",
    )


# --- the same answers -------------------------------------------------------------------------------------------------


def test_numbers_keep_their_type_and_all_their_digits(workspace: Workspace, server: Postgres) -> None:
    given = {
        "exact": 2**53 + 1,
        "whole": 3.0,
        "int": 3,
        "large": 1e22,
        "tiny": 5e-324,
        "inf": -float("inf"),
        "on": True,
    }
    make(workspace, "a", params=given)
    with OpenIndex(workspace.path, database=server.url) as index:
        page = index.page_of_runs(columns=[f"params.{name}" for name in given])
        found = {name: page.columns[f"params.{name}"][0] for name in given}
    assert repr(found) == repr(given)


def test_two_handles_follow_each_other_by_cursor(workspace: Workspace, server: Postgres) -> None:
    first = make(workspace, "a")
    with (
        OpenIndex(workspace.path, database=server.url) as one,
        OpenIndex(workspace.path, database=server.url) as other,
    ):
        cursor = one.changes().cursor
        second = make(workspace, "b")
        assert other.page_of_runs().total == 2
        told = one.changes(cursor)
        assert (told.changed, told.removed, told.is_complete) == ((second,), (), True)
        workspace.set_tags(first, {"stage": "best"})
        assert other.changes(told.cursor).changed == (first,)
        assert one.page_of_runs("tags.stage = 'best'").ids == (first,)
    assert not (workspace.path / "index.sqlite").exists()


def test_workspaces_in_one_database_do_not_see_each_other(
    workspace: Workspace, tmp_path: Path, server: Postgres
) -> None:
    other = runstone.ensure_workspace(tmp_path / "other")
    make(workspace, "a")
    make(other, "b")
    with PostgresIndex(workspace.path, server.url) as here, PostgresIndex(other.path, server.url) as there:
        assert (names(here), names(there)) == (["a"], ["b"])


def _record_and_ask(path: Path, address: str, number: int, start: Any, results: Any) -> None:
    workspace = Workspace(path)
    start.wait()
    problems = []
    with PostgresIndex(path, address) as index:
        for turn in range(6):
            name = f"run-{number}-{turn}"
            make(workspace, name, params={"p": turn, f"own{number}": turn})
            if name not in names(index):
                problems.append(name)
    results.put(problems)


def test_processes_that_write_and_ask_at_once_each_see_their_own_runs(workspace: Workspace, server: Postgres) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(4), context.Queue()
    processes = [
        context.Process(target=_record_and_ask, args=(workspace.path, server.url, number, start, results))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    problems = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert problems == [[]] * 4
    with PostgresIndex(workspace.path, server.url) as index:
        assert len(names(index)) == len(set(names(index))) == 24
        (tally,) = execute(
            server, "SELECT runs FROM tallies JOIN names ON names.key = tallies.name WHERE path = 'p'", index
        )
        assert tally == (24,)  # no update was lost


# --- F25: what happens to the server ----------------------------------------------------------------------------------


def test_f25_a_restart_is_waited_for_and_nothing_is_lost_or_twice(workspace: Workspace, own_server: Postgres) -> None:
    make(workspace, "a")
    with (
        PostgresIndex(workspace.path, own_server.url) as index,
        contextlib.closing(Accounts(workspace.path, database=own_server.url)) as accounts,
    ):
        assert names(index) == ["a"]
        accounts.add_user("ann")
        own_server.stop()
        make(workspace, "b")
        own_server.start()
        began = time.monotonic()
        assert names(index) == ["a", "b"]
        assert [user.name for user in accounts.users()] == ["ann"]
        assert time.monotonic() - began < PATIENCE_S


def test_f25_a_server_that_stays_away_is_told_of_without_its_password(
    workspace: Workspace, own_server: Postgres
) -> None:
    own_server.stop()
    with PostgresIndex(workspace.path, own_server.url, patience_s=0.3) as index:
        with pytest.raises(Unavailable, match="nothing is lost") as told:
            index.find(EVERY_RUN)
        assert "secret" not in str(told.value)
        own_server.start()
        assert names(index) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_f25_a_connection_that_is_reset_in_commit_leaves_each_run_once(
    workspace: Workspace, server: Postgres, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runstone.index.postgres import PostgresConnection

    cut = []
    done = PostgresConnection.execute

    def execute_and_cut(self: PostgresConnection, text: str, bound: Any = ()) -> Any:
        is_cut = text == "COMMIT" and len(cut) < 3
        if is_cut and when == "before":
            cut.append(text)
            end_connections(server)
        found = done(self, text, bound)
        if is_cut and when == "after":  # the server has it, and this side never hears of it
            cut.append(text)
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return found

    make(workspace, "a", params={"lr": 1})
    make(workspace, "b", params={"lr": 2})
    monkeypatch.setattr(PostgresConnection, "execute", execute_and_cut)
    with PostgresIndex(workspace.path, server.url) as index:
        assert names(index) == ["a", "b"]
        assert len(cut) == 3
        tallies = execute(
            server, "SELECT runs FROM tallies JOIN names ON names.key = tallies.name WHERE path = 'lr'", index
        )
        assert tallies == [(2,)]


@pytest.mark.parametrize("state", ["40P01", "40001", "55P03"], ids=["deadlock", "serialization", "lock timeout"])
def test_f25_a_conflict_that_the_server_tells_of_is_tried_again(
    workspace: Workspace, server: Postgres, state: str
) -> None:
    with PostgresIndex(workspace.path, server.url) as index:
        assert names(index) == []
        execute(
            server,
            "CREATE SEQUENCE times;"
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF nextval('times') <= 3 THEN RAISE EXCEPTION 'conflict' USING ERRCODE = '{state}'; END IF;"
            " RETURN NEW; END $$;"
            "CREATE TRIGGER refusing BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION refuse()",
            index,
        )
        make(workspace, "a")
        assert names(index) == ["a"]
        assert execute(server, "SELECT last_value FROM times", index) == [(4,)]


def test_f25_a_connection_that_is_ended_while_a_question_is_answered_is_made_again(
    workspace: Workspace, server: Postgres
) -> None:
    make(workspace, "a")
    turns = []
    with PostgresIndex(workspace.path, server.url) as index:

        def answer(question: Any) -> list[Any]:
            turns.append(question)
            if len(turns) == 1:
                end_connections(server)
            return list(question.connection.execute("SELECT name FROM runs"))

        assert index.ask(answer) == [("a",)]
    assert len(turns) == 2


# --- F28: what happens to the tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE metrics",
        "ALTER TABLE runs RENAME COLUMN seen_at TO read_at",
        "UPDATE records SET figures = 'x'; UPDATE runs SET watch = 2",
        "DELETE FROM state",
        "DO $$ BEGIN EXECUTE format('COMMENT ON SCHEMA %I IS %L', current_schema(), '1'); END $$",
        "DO $$ BEGIN EXECUTE format('DROP SCHEMA %I CASCADE', current_schema()); END $$",
    ],
    ids=["table missing", "column missing", "damaged figures", "no state", "older", "all gone"],
)
def test_f28_damaged_or_older_tables_are_made_again(workspace: Workspace, server: Postgres, damage: str) -> None:
    make(workspace, "a")
    make(workspace, "b")
    with PostgresIndex(workspace.path, server.url) as index:
        assert names(index) == ["a", "b"]
        execute(server, damage, index)
        assert names(index) == ["a", "b"]
    with PostgresIndex(workspace.path, server.url) as index:
        assert names(index) == ["a", "b"]


def test_f28_tables_of_a_newer_version_are_left_alone(workspace: Workspace, server: Postgres) -> None:
    make(workspace, "a")
    with PostgresIndex(workspace.path, server.url) as index:
        assert names(index) == ["a"]
        execute(
            server,
            "DO $$ BEGIN EXECUTE format('COMMENT ON SCHEMA %I IS %L', current_schema(), "
            f"'{schema.SCHEMA + 1}'); END $$",
            index,
        )
        make(workspace, "b")
        for _ in range(2):
            with pytest.raises(FormatError, match="upgrade"):
                names(index)
        assert execute(server, "SELECT name FROM runs", index) == [("a",)]


# --- accounts, and the server over both -------------------------------------------------------------------------------


def test_accounts_are_the_same_there(workspace: Workspace, server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    with contextlib.closing(Accounts(workspace.path, database=server.url, clock=lambda: now[0])) as accounts:
        assert not accounts.exists
        assert accounts.users() == []
        accounts.add_user("ann")
        accounts.set_role("ann", "*", "viewer")
        accounts.set_role("ann", "digits", "admin")
        number = accounts.add_token("ann", "a" * 64, label="laptop", lasts_s=60.0)
        accounts.begin_session("a" * 64, "b" * 64, lasts_s=600.0)
        accounts.note("ann", "did", "it", details={"x": 1})
        assert accounts.exists
        assert accounts.has_usable_token
        owner = accounts.owner_of_session("b" * 64)
        assert owner is not None
        assert (owner.user, owner.roles) == ("ann", {"*": "viewer", "digits": "admin"})
        assert [line.details for line in accounts.audit(user="ann")] == [{"x": 1}]
        assert [line.action for line in accounts.audit()] == ["did"]
        now[0] += 61.0
        assert accounts.owner_of_token("a" * 64) is None
        assert not accounts.has_usable_token
        accounts.revoke_token(number)
        accounts.remove_user("ann")
        assert (accounts.users(), accounts.tokens()) == ([], [])
        with pytest.raises(runstone.NotFound):
            accounts.remove_user("ann")
    assert not (workspace.path / accounts_module.FILE).exists()
    more = (*accounts_module.MIGRATIONS, ("CREATE TABLE further (x INTEGER)",))
    monkeypatch.setattr(accounts_module, "MIGRATIONS", more)
    with contextlib.closing(Accounts(workspace.path, database=server.url)) as accounts:
        accounts.add_user("bob")
    monkeypatch.setattr(accounts_module, "MIGRATIONS", more[:-1])
    with (
        contextlib.closing(Accounts(workspace.path, database=server.url)) as accounts,
        pytest.raises(FormatError, match="upgrade"),
    ):
        accounts.add_user("eve")
    assert execute(server, f"SELECT name FROM {schema_name(workspace.path, 'accounts')}.users") == [("bob",)]


def test_f25_the_server_says_503_while_the_database_is_away_and_goes_on_after(
    workspace: Workspace, own_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(workspace, "a")
    config = replace(ServerConfig(port=6060), index=own_server.url)
    app = create_app(workspace, config, keys=LocalKeys("me"))
    token = new_token()
    with TestClient(app, base_url="http://127.0.0.1:6060") as client:
        app.state.accounts.add_user("ann")
        app.state.accounts.set_role("ann", "*", "viewer")
        app.state.accounts.add_token("ann", hashed(token))
        headers = {"Authorization": f"Bearer {token}"}

        def asked() -> Any:
            return client.get("/api/runs", headers=headers)

        assert asked().json()["total"] == 1
        own_server.stop()
        monkeypatch.setattr("runstone.index.postgres.PATIENCE_S", 0.2)
        answer = asked()
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] == "unavailable"
        assert "secret" not in answer.text
        assert client.get("/healthz").status_code == 200
        make(workspace, "b")
        own_server.start()
        assert asked().json()["total"] == 2


# --- addresses --------------------------------------------------------------------------------------------------------


def test_an_address_that_is_none_of_postgresql_is_refused(workspace: Workspace) -> None:
    with pytest.raises(InvalidConfig, match="PostgreSQL") as told:
        open_index(workspace.path, "mysql://me:secret@db/x")
    assert "secret" not in str(told.value)


def test_a_workspace_keeps_its_name_on_database_servers(workspace: Workspace) -> None:
    assert identity_of(workspace.path) == identity_of(workspace.path)
    assert [path.name for path in workspace.path.glob("index.id*")] == ["index.id"]
