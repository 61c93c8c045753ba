"""`runstone models`: the registry on the command line, for people and for CI.

Exit codes: 0 done; 1 refused by gates, or it could not be done; 2 the command line was wrong.
"""

from __future__ import annotations

import click

from runstone.cli.main import Suggesting, workspace_option
from runstone.cli.models.changing import (
    approve_command,
    promote_command,
    reject_command,
    rollback_command,
    withdraw_command,
)
from runstone.cli.models.checking import card_command, compare_command, load_check_command, verify_command
from runstone.cli.models.hooks import hooks_group
from runstone.cli.models.looking import at_command, history_command, list_command, show_command
from runstone.cli.models.naming import alias_command, note_command, stages_command, tag_command
from runstone.cli.models.operating import deployed_command, incidents_command, undeployed_command
from runstone.cli.models.registering import copy_command, register_command
from runstone.cli.serving import export_command, serve_command


@click.group("models", cls=Suggesting)
@workspace_option
def models_group() -> None:
    """Versions of models: register, compare, approve, promote, roll back, and prove what was done.

    V is a version such as 2.1.0, the begin of one, an alias, a stage, or `latest`; behind it, `?as_of=2026-03-01` asks
    for what stood when that day was over.
    """


for _command in (
    *(list_command, show_command, history_command, at_command),
    *(compare_command, verify_command, card_command, load_check_command),
    *(register_command, copy_command),
    *(promote_command, rollback_command, approve_command, reject_command, withdraw_command),
    *(alias_command, tag_command, note_command, stages_command),
    *(deployed_command, undeployed_command, incidents_command),
    *(serve_command, export_command),
    hooks_group,
):
    models_group.add_command(_command)

__all__ = ["models_group"]
