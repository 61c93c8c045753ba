"""The environment of a run: what the machine, the process and the code were. Reads only; never raises.

A snapshot is a JSON object of sections (`python`, `git`, `gpu`, ...). Each field is a value, or null with its
reason under the dotted path in `why`: see `runstone.capture.facts` for the rule and docs/environment.md for
every field.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstone.capture.background import Background, start_background

if TYPE_CHECKING:
    from runstone.capture.context import Privacy

__all__ = ["Background", "Privacy", "snapshot", "start_background"]


def __getattr__(name: str) -> Any:
    if name == "Privacy":  # a dataclass: importing those would be a tenth of the price of a whole run
        from runstone.capture.context import Privacy

        return Privacy
    raise AttributeError(f"module 'runstone.capture' has no attribute {name!r}")


def snapshot(
    *,
    writer: str | None = None,
    store: Path | None = None,
    log_backend: str | None = None,
    privacy: Privacy | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 5.0,
) -> dict[str, Any]:
    """Return what this process, its code and its machine are, within `timeout_s`.

    Args:
        writer: Id of the run's writer, if the snapshot belongs to one.
        store: Folder that the run is written to; its file system is described.
        log_backend: How the metric log is written there, `mmap` or `append`.
        privacy: What to leave out; by default names are kept, serial numbers and notebook cells are not.
        environment: Environment variables; by default those of this process.
        timeout_s: A source that has not answered by then is given up and noted as `timeout`.

    Returns:
        A JSON object. `value` of a field is null exactly where `why` has its dotted path, or that of something
        around it: `{"gpu": null, "why": {"gpu": "absent: libnvidia-ml.so.1 is not installed"}}`.
    """
    from runstone.capture.collect import collect  # loads every collector: milliseconds, paid by who needs it

    return collect(
        writer=writer,
        store=store,
        log_backend=log_backend,
        privacy=privacy,
        environment=environment,
        timeout_s=timeout_s,
    )
