"""`runstone data`: versions of data, added, listed, compared, checked out, sent and fetched."""

from __future__ import annotations

import click

from runstone.cli.data.adding import add_command, import_command, update_command
from runstone.cli.data.comparing import diff_command
from runstone.cli.data.looking import list_command, show_command
from runstone.cli.data.moving import checkout_command, copy_command, pull_command, push_command, verify_command
from runstone.cli.data.naming import alias_command, revoke_command, tag_command
from runstone.cli.main import Suggesting


@click.group("data", cls=Suggesting)
def data_group() -> None:
    """Versions of data: added, compared, checked out, sent and fetched.

    NAME@V is a version: V is its number, an alias, `latest` or the beginning of its hash.
    """


for _command in (
    *(add_command, import_command, update_command),
    *(list_command, show_command, diff_command),
    *(checkout_command, push_command, pull_command, copy_command, verify_command),
    *(tag_command, alias_command, revoke_command),
):
    data_group.add_command(_command)

__all__ = ["data_group"]
