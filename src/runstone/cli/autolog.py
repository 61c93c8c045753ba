"""`runstone autolog`: record trainings that do not ask for it, or not."""

from __future__ import annotations

import click

from runstone import autolog
from runstone.cli.main import Suggesting


@click.group("autolog", cls=Suggesting)
def autolog_group() -> None:
    """Record every training with Lightning on this account, without a line in the script.

    Lightning itself asks installed packages for callbacks, so nothing is patched. A script that names a
    TrackingCallback is recorded once. RUNSTONE_AUTOLOG=on or off decides for one shell.
    """


@autolog_group.command("on")
def on_command() -> None:
    """Record trainings from now on."""
    click.echo(f"autolog is on for this account ({autolog.switch(True)})")
    _tell_of_variable(is_on=True)


@autolog_group.command("off")
def off_command() -> None:
    """Record only what asks for it."""
    autolog.switch(False)
    click.echo("autolog is off for this account")
    _tell_of_variable(is_on=False)


@autolog_group.command("status")
def status_command() -> None:
    """Say whether trainings are recorded."""
    is_told = autolog.variable_says() is not None
    file = autolog.switch_file()
    source = "RUNSTONE_AUTOLOG" if is_told else str(file)
    click.echo(f"autolog is {'on' if autolog.is_autolog_on() else 'off'} ({source})")


def _tell_of_variable(*, is_on: bool) -> None:
    told = autolog.variable_says()
    if told is not None and told is not is_on:
        click.echo(f"but RUNSTONE_AUTOLOG turns it {'on' if told else 'off'} in this shell", err=True)
