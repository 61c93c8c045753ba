"""The same requests to MLflow's own server and to ours, and in what their answers differ."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx2

API = "/api/2.0/mlflow"
_ID = re.compile(r"(?:m-)?[0-9a-f]{32}")
_EXPERIMENT = re.compile(r"(?<=mlflow-artifacts:/)\d+")
_INVENTED = re.compile(r"[a-z]+-[a-z]+-\d{1,4}")
_TIMES = frozenset(
    "creation_time last_update_time start_time end_time timestamp creation_timestamp last_updated_timestamp "
    "creation_timestamp_ms last_updated_timestamp_ms".split()
)
_NOW_MS = 3_600_000
# Lists whose order neither server promises; all others are compared in theirs.
_UNORDERED = frozenset("params tags aliases latest_versions dataset_summaries".split())
_METRICS_OF = frozenset({"data"})
_NOTHING: tuple[Any, ...] = (None, "", [], {})
# What one says and the other does not: MLflow's workspaces; and the aliases of versions, which its searches leave out.
_UNTOLD = frozenset(
    {
        *(("experiment", "workspace"), ("experiments", "workspace")),
        *(("model_versions", "aliases"), ("latest_versions", "aliases")),
    }
)


class Answer(NamedTuple):
    """What a server said: its status, the word for an error, and the body without what differs by nature."""

    status: int
    code: str
    body: Any


class Absent:
    """In the place of a value: the field is not sent."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = Absent()


@dataclass
class Side:
    """One of the two servers.

    Attributes:
        client: Asks it, as somebody who may do all.
        ids: What each name stands for here.
        names: The other way round.
    """

    client: httpx2.Client
    ids: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def told(self, value: Any) -> Any:
        """Return a value with this server's ids in the place of the names."""
        if isinstance(value, str):
            return re.sub(r"\$\w+", lambda found: self.ids.get(found[0], found[0]), value) if "$" in value else value
        if isinstance(value, list):
            return [self.told(one) for one in value if one is not ABSENT]
        if isinstance(value, dict):
            return {key: self.told(one) for key, one in value.items() if one is not ABSENT}
        return value

    def ask(self, verb: str, path: str, fields: Mapping[str, Any]) -> httpx2.Response:
        """Ask."""
        told, where = self.told(dict(fields)), self.told(path)
        where = f"/ajax-api{API[4:]}{where[5:]}" if where.startswith("/ajax/") else API + where
        if verb == "GET":
            pairs = [
                (key, one) for key, value in told.items() for one in (value if isinstance(value, list) else [value])
            ]
            texts = [(key, one if isinstance(one, str) else json.dumps(one)) for key, one in pairs]
            return self.client.request(verb, where, params=texts)
        data = json.dumps(told).encode("utf-8", "surrogatepass")
        return self.client.request(verb, where, content=data, headers={"Content-Type": "application/json"})

    def learn(self, name: str, value: str) -> None:
        """Take in what a name stands for here."""
        self.ids[name] = value
        self.names.setdefault(value, name)

    def plain(self, value: Any, key: str = "", of: str = "") -> Any:
        """Return a body with names for ids, one word for times of now, and without fields that say nothing."""
        if isinstance(value, dict):
            found = {name: self.plain(one, name, key) for name, one in value.items()}
            return {
                name: one for name, one in found.items() if one not in _NOTHING and (key or of, name) not in _UNTOLD
            }
        if isinstance(value, list):
            if key == "next_page_token":
                return "more"
            found_list = [self.plain(one, "", key) for one in value]
            is_set = key in _UNORDERED or (key == "metrics" and of in _METRICS_OF)
            return sorted(found_list, key=lambda one: json.dumps(one, sort_keys=True)) if is_set else found_list
        if isinstance(value, float) and value != value:
            return "NaN"  # some routes of MLflow's server send a bare NaN
        if isinstance(value, bool) or not isinstance(value, str | int):
            return value
        if isinstance(value, int):
            return "now" if key in _TIMES and abs(value - time.time() * 1000) < _NOW_MS else value
        if key == "next_page_token":
            return "more"
        if key in ("experiment_id", "experiment_ids"):
            return self.names.get(value, "an experiment")
        if _INVENTED.fullmatch(value):
            return "invented"
        value = _EXPERIMENT.sub(lambda found: self.names.get(found[0], "an experiment"), value)
        return _ID.sub(lambda found: self.names.get(found[0], "some id"), value)


@dataclass(frozen=True)
class Difference:
    """A request that the two answered otherwise.

    Attributes:
        odd: The field whose value may be wrong, and that value.
    """

    verb: str
    path: str
    fields: Mapping[str, Any]
    theirs: Answer
    ours: Answer
    odd: tuple[str, Any] | None = None

    def __str__(self) -> str:
        fields = json.dumps(self.fields, default=repr, ensure_ascii=False)
        shown = [f"{self.verb} {self.path} {fields:.400}"]
        if (self.theirs.status, self.theirs.code) != (self.ours.status, self.ours.code):
            shown += [
                f"  {who}: {one.status} {one.code} {one.body or ''!r:.160}"
                for who, one in (("MLflow", self.theirs), ("ours", self.ours))
            ]
        else:
            shown += [f"  {line}" for line in itertools.islice(changes(self.theirs.body, self.ours.body), 4)]
        return "\n".join(shown)


def changes(theirs: Any, ours: Any, place: str = "") -> Iterator[str]:
    """Yield where two bodies differ, a line for each place."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in theirs.keys() | ours.keys():
            yield from changes(theirs.get(key), ours.get(key), f"{place}.{key}")
    elif isinstance(theirs, list) and isinstance(ours, list) and _heads(theirs) == _heads(ours):
        for number, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            yield from changes(one, other, f"{place}[{number}]")
    elif isinstance(theirs, list) and isinstance(ours, list):
        yield f"{place}: {_heads(theirs)} != {_heads(ours)}"
    elif theirs != ours:
        yield f"{place}: {theirs!r:.200} != {ours!r:.200}"


def _heads(found: list[Any]) -> list[str]:
    """Return what a list is of, short: ids, or names, or all of it."""
    heads = []
    for one in found:
        info = one.get("info", one) if isinstance(one, dict) else {}
        keys = [key for key in ("run_id", "model_id", "name", "version", "experiment_id", "key") if key in info]
        heads.append(" ".join(str(info[key]) for key in keys) or f"{one!r:.100}")
    return heads


class Both:
    """The two servers, asked the same.

    Args:
        theirs: A client of MLflow's own server.
        ours: One of ours.

    Attributes:
        found: In what they differed.
        asked: How many requests each got.
    """

    def __init__(self, theirs: httpx2.Client, ours: httpx2.Client) -> None:
        self.theirs, self.ours = Side(theirs), Side(ours)
        self.found: list[Difference] = []
        self.asked = 0

    def ask(
        self,
        verb: str,
        path: str,
        fields: Mapping[str, Any] | None = None,
        odd: tuple[str, Any] | None = None,
        **names: str,
    ) -> Answer:
        """Ask both; what differs is noted.

        Args:
            verb: Of HTTP.
            path: Below the protocol's; names in it and in the fields stand for ids.
            fields: Of the body, or of the query.
            odd: The field whose value may be wrong, and that value.
            names: A name for what stands at a dotted path of the answers.

        Returns:
            What MLflow's server says.
        """
        fields = fields or {}
        answers = []
        self.asked += 1
        raw = [(side, side.ask(verb, path, fields)) for side in (self.theirs, self.ours)]
        for side, answer in raw:
            if answer.status_code == 200:
                for name, place in names.items():
                    with suppress(KeyError, IndexError, TypeError):
                        side.learn(f"${name}", str(_at(answer.json(), place)))
        for side, answer in raw:
            answers.append(_read(side, answer))
        theirs, ours = answers
        if theirs != ours:
            self.found.append(Difference(verb, path, fields, theirs, ours, odd))
        return theirs

    def post(self, path: str, fields: Mapping[str, Any] | None = None, **names: str) -> Answer:
        """POST to both."""
        return self.ask("POST", path, fields, **names)

    def differences(self) -> Iterator[Difference]:
        """Yield what was found since the last call."""
        found, self.found = self.found, []
        yield from found


def _at(body: Any, place: str) -> Any:
    for part in place.split("."):
        body = body[int(part)] if part.isdecimal() else body[part]
    return body


def _read(side: Side, answer: httpx2.Response) -> Answer:
    try:
        body = answer.json()
    except ValueError:
        return Answer(answer.status_code, "", answer.text[:300])
    if answer.status_code != 200:
        return Answer(answer.status_code, str(body.get("error_code")) if isinstance(body, dict) else "", None)
    return Answer(200, "", side.plain(body))
