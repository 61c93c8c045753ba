"""Whether trainings are recorded that do not ask for it: a switch of the user, read by the frameworks' entry points."""

from __future__ import annotations

from pathlib import Path

from runstone import settings
from runstone.errors import InvalidValue

_VARIABLE = "RUNSTONE_AUTOLOG"
_WORDS = {**dict.fromkeys(("on", "1", "true", "yes"), True), **dict.fromkeys(("off", "0", "false", "no"), False)}


def is_autolog_on() -> bool:
    """Return whether trainings are recorded that name no callback of ours: `runstone autolog on`.

    The environment (`RUNSTONE_AUTOLOG`) decides where it says something, else the file that the command writes.

    Raises:
        InvalidValue: `RUNSTONE_AUTOLOG` is neither on nor off.
    """
    said = variable_says()
    if said is not None:
        return said
    file = switch_file()
    return file is not None and file.exists()


def variable_says() -> bool | None:
    """Return what `RUNSTONE_AUTOLOG` says, `None` where it is unset; raises as `is_autolog_on` does."""
    told = settings.read(_VARIABLE)
    if told is None:
        return None
    if told.lower() not in _WORDS:
        raise InvalidValue(f"{_VARIABLE} is {told!r}; it must be 'on' or 'off'")
    return _WORDS[told.lower()]


def switch(is_on: bool) -> Path:
    """Turn it on or off for this user; return the file that says so by being there.

    Raises:
        FileNotFoundError: nobody knows where this user's settings lie.
        OSError: the file cannot be made or removed.
    """
    file = switch_file()
    if file is None:
        raise FileNotFoundError("there is no home folder to keep the switch in; set RUNSTONE_AUTOLOG=on instead")
    if is_on:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    else:
        file.unlink(missing_ok=True)
    return file


def switch_file() -> Path | None:
    """Return the file that turns it on by being there; `None` where there is no home folder."""
    told = Path(settings.process_environment().get("XDG_CONFIG_HOME", ""))
    if not told.is_absolute():  # the XDG specification: others are ignored
        try:
            told = Path.home() / ".config"
        except RuntimeError:
            return None
    return told / "runstone" / "autolog"
