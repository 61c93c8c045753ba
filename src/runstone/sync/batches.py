"""Asking a server about many runs in one request: what is done with each comes back for each.

Each request costs both sides more than the bytes of a quiet run; and the server brings many runs to its disk in little
more time than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from runstone.errors import FormatError
from runstone.sync.client import Client, Refused, Unreachable, error_of
from runstone.sync.shipping import BEAT_S, Outgoing, RunShipper
from runstone.sync.wire import MOST_PARCELS, PARCEL_BYTES, pack_batch

AT_ONCE = 256
"""Runs that are opened, or finished, by one request."""
_LEAST_BYTES = 128 << 10
_UNAUTHORIZED = 401

Problems = dict[RunShipper, Exception]
"""Runs with which it went wrong: `Refused`, `Unreachable` (later it may be), `FormatError` or `OSError` (here)."""


@dataclass(slots=True)
class Sending:
    """What became of runs of which something was to be sent.

    Attributes:
        sent: Of these a parcel was sent, or is to be made anew; of `more` there is more to send now.
        idle: Of these there is nothing.
        rest: These did not go into the request.
        problems: And with these it went wrong.
    """

    sent: list[RunShipper] = field(default_factory=list)
    more: list[RunShipper] = field(default_factory=list)
    idle: list[RunShipper] = field(default_factory=list)
    rest: list[RunShipper] = field(default_factory=list)
    problems: Problems = field(default_factory=dict)


def open_runs(client: Client, shippers: Iterable[RunShipper]) -> Problems:
    """Tell the server of runs, and learn what it has of them; those that nobody has named yet stay as they are.

    Raises:
        Unreachable: as `Client.ask` does.
    """
    told, problems = _of_each(shippers, lambda one: one.hello())
    hellos = {one: hello for one, hello in told.items() if hello is not None}
    for some in _parts(hellos):
        answers, more = _ask(client, "/api/sync/runs", some, lambda part: {"runs": list(part.values())})
        problems |= more
        for one, state in answers.items():
            one.opened(state)
    return problems


def send_parcels(client: Client, shippers: Sequence[RunShipper], *, beat_s: float = BEAT_S) -> Sending:
    """Send the next parcel of each of some open runs, of as many as go into one request.

    Raises:
        Unreachable: as `Client.ask` does; all is sent again then.
    """
    found = Sending()
    parcels: dict[RunShipper, Outgoing] = {}
    room = PARCEL_BYTES
    for place, one in enumerate(shippers):
        if room < _LEAST_BYTES or len(parcels) >= MOST_PARCELS:
            found.rest = list(shippers[place:])
            break
        try:
            outgoing = one.next(beat_s=beat_s, most=room)
        except (FormatError, OSError) as error:
            found.problems[one] = error
            continue
        if outgoing is None:
            found.idle.append(one)
            continue
        parcels[one] = outgoing
        room -= outgoing.parcel.size_bytes
    if not parcels:
        return found
    answers, problems = _ask(
        client,
        "/api/sync/parcels",
        parcels,
        lambda part: pack_batch([(one.run_id, outgoing.parcel) for one, outgoing in part.items()]),
    )
    for one, answer in answers.items():
        one.took(parcels[one].parcel, answer)
        (found.sent if parcels[one].is_all else found.more).append(one)
    for one, problem in problems.items():
        if isinstance(problem, Refused) and one.looks_again(problem):
            found.more.append(one)
        else:
            found.problems[one] = problem
    found.sent += found.more
    return found


def finish_runs(client: Client, shippers: Iterable[RunShipper]) -> tuple[list[RunShipper], Problems]:
    """Have the server bring runs to its disk, and compare; return those of which it has everything, and knows it.

    Raises:
        Unreachable: as `Client.ask` does.
    """
    same: list[RunShipper] = []
    home, problems = _of_each(shippers, lambda one: one.is_at_home)
    for some in _parts({one: one.run_id for one, is_at_home in home.items() if is_at_home}):
        answers, more = _ask(client, "/api/sync/finish", some, lambda part: {"run_ids": list(part.values())})
        problems |= more
        equal: dict[RunShipper, Any] = {}
        for one, state in answers.items():
            try:
                if one.is_same(state):
                    equal[one] = one.run_id
            except (Refused, OSError) as error:
                problems[one] = error
        if equal:
            noted, more = _ask(client, "/api/sync/whole", equal, lambda part: {"run_ids": list(part.values())})
            problems |= more
            same += noted
    return same, problems


def _ask(
    client: Client, path: str, given: dict[RunShipper, Any], body: Callable[[dict[RunShipper, Any]], Any]
) -> tuple[dict[RunShipper, dict[str, Any]], Problems]:
    """Ask about some runs at once; where that is refused as a whole, about each."""
    try:
        told = client.post(path, body(given))["runs"]
    except Refused as error:
        if len(given) == 1 or error.status == _UNAUTHORIZED:
            return {}, dict.fromkeys(given, error)
        answers: dict[RunShipper, dict[str, Any]] = {}
        problems: Problems = {}
        for one, what in given.items():
            answer, problem = _ask(client, path, {one: what}, body)
            answers |= answer
            problems |= problem
        return answers, problems
    except (KeyError, TypeError):
        raise Unreachable(f"{client.address} answered with something else than was asked for") from None
    answers, problems = {}, {}
    for one in given:
        answer = told.get(one.run_id)
        if answer is None:
            problems[one] = Unreachable(f"{client.address} did not answer for the run {one.run_id}")
        elif "error" in answer:
            problems[one] = error_of(answer["status"], answer["error"])
        else:
            answers[one] = answer
    return answers, problems


def _of_each(
    shippers: Iterable[RunShipper], work: Callable[[RunShipper], Any]
) -> tuple[dict[RunShipper, Any], Problems]:
    found: dict[RunShipper, Any] = {}
    problems: Problems = {}
    for one in shippers:
        try:
            found[one] = work(one)
        except (Refused, FormatError, OSError) as error:
            problems[one] = error
    return found, problems


def _parts(given: dict[RunShipper, Any]) -> list[dict[RunShipper, Any]]:
    pairs = list(given.items())
    return [dict(pairs[start : start + AT_ONCE]) for start in range(0, len(pairs), AT_ONCE)]
