"""What the commands of `runstone models` share: references on the command line, options, what hooks were told."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from runstone.cli._output import clean, say
from runstone.cli.main import workspace_of
from runstone.errors import TrackingWarning
from runstone.models.refs import ModelRef

if TYPE_CHECKING:
    from runstone.models import Model

REFERENCE = "NAME@V"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
reason_option = click.option("--reason", metavar="TEXT", help="Why; kept in the history.")
needed_reason_option = click.option("--reason", metavar="TEXT", required=True, help="Why; kept in the history.")


@contextlib.contextmanager
def told_hooks(ctx: click.Context, name: str) -> Iterator[Model]:
    """Give the model to change; say afterwards what hooks were told of it."""
    model = workspace_of(ctx).models.get(name)
    before = len(model.history())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TrackingWarning)
        yield model
    for warning in caught:
        say(f"warning: {clean(warning.message)}", stderr=True)
    for event in [event for event in model.history()[before:] if event.kind == "delivered"]:
        said = event.fields
        later = "; it is tried again later" if said["state"] == "failed" else ""
        say(f"hook {clean(said['hook'])}: {clean(said['state'])} ({clean(said['detail'])}){later}", stderr=True)


def ref_of(text: str) -> tuple[str, str]:
    """Return name and selector of a version as it stands now."""
    ref = ModelRef.parse(text)
    if "@" not in text or ref.as_of is not None:
        raise click.UsageError(f"{text!r} must name a version as it stands now: NAME@V")
    return ref.name, ref.selector


def plain_name(text: str) -> str:
    """Return the name of a model."""
    return ModelRef.parse(text).name


def of_model_or_version(text: str) -> tuple[str, str | None]:
    """Return a name, and a selector where one stands behind it."""
    return ref_of(text) if "@" in text else (plain_name(text), None)


def tags_of(words: Sequence[str]) -> dict[str, str]:
    """Return `NAME=VALUE` words as a dict."""
    found = {}
    for word in words:
        name, has_value, value = word.partition("=")
        if not has_value or not name:
            raise click.UsageError(f"{word!r} is no tag; write NAME=VALUE")
        found[name] = value
    return found
