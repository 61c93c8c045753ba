"""What `--help` says, of every command: for people, without what only the library behind it needs."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from runstone.cli import main

ROOT = next(value for value in vars(main).values() if isinstance(value, click.Group))
OF_CONTENT = {"gc", "verify", "blobs", "backup", "restore", "seal", "export", "sync", "push", "pull"}


def pages() -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each command, as one writes it, with its help."""

    def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
        told = CliRunner().invoke(ROOT, [*path, "--help"], prog_name="runstone", terminal_width=100)
        assert told.exit_code == 0, (path, told.output)
        yield path, told.output
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from walk(found, (*path, name))

    yield from walk(ROOT, ())


def test_no_page_shows_what_only_the_program_needs() -> None:
    for path, page in pages():
        for ugly in ("[default: (", "default: None", "UNSET", "Sentinel", "<function", "PosixPath"):
            assert ugly not in page, (path, page)


def test_pages_of_content_name_what_an_option_takes_and_cut_nothing_off() -> None:
    seen = set()
    for path, page in pages():
        if not path or path[0] not in OF_CONTENT:
            continue
        seen.add(path[0])
        for ugly in (" RANGE ", " TEXT ", " INTEGER ", "..."):
            assert ugly not in page.replace("[ARGS]...", "").replace("[RUN]...", "").replace("[RUN...]", ""), (
                path,
                page,
            )
    assert seen == OF_CONTENT


@pytest.mark.parametrize("command", ["gc", "blobs trim", "sync"])
def test_a_default_that_is_not_plain_stands_in_words(command: str) -> None:
    page = {" ".join(path): page for path, page in pages()}[command]
    assert {"gc": "Default: 1d", "blobs trim": "all that may go", "sync": "Default: 30"}[command] in page
