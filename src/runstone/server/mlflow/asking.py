"""What a request asks for: fields of its body or its query, checked one by one as MLflow's servers do."""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

import orjson

from runstone.server.jsons import BadJson, loads
from runstone.server.mlflow.errors import MlflowError, invalid

MOST_KEY = 250
LARGEST_INT = 1 << 63
"""Integers from this on have more than 64 bits."""
_NAME = re.compile(r"[\w\-.:/ ]+")
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_DEPTH = 32


def parsed_body(body: bytes) -> dict[str, Any]:
    """Return the fields of a body; what is no JSON object counts as one without fields, as it does to MLflow."""
    try:
        found = loads(body, depth=_DEPTH) if b"\\u" in body or body.count(b"[") > _DEPTH else _loads(body)
    except (BadJson, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body)  # takes NaN, as MLflow's servers do


class Fields:
    """The fields of a request, or of an object in it.

    Args:
        values: By name. Those of a query are text.
        path: What stands before a name in messages, such as `metrics[0].`.
    """

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._values = values
        self._path = path

    def has(self, name: str) -> bool:
        """Return whether a field is there."""
        return self._values.get(name) is not None

    def is_number(self, name: str) -> bool:
        """Return whether a field is a number of JSON."""
        return isinstance(self._values.get(name), int) and not isinstance(self._values.get(name), bool)

    def text(self, name: str, default: str = "") -> str:
        """Return a text that may be missing."""
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(name, value)
        return value

    def optional(self, name: str) -> str | None:
        """Return a text, `None` where it is missing."""
        return self.text(name) if self.has(name) else None

    def required(self, name: str) -> str:
        """Return a text that must be there and not be empty."""
        value = self._values.get(name)
        if value is None or value == "":
            raise self.absent(name)
        return self.text(name)

    def key(self, name: str = "key") -> str:
        """Return the name of a metric, param or tag."""
        value = self.required(name)
        if len(value) > MOST_KEY:
            raise invalid(f"'{self._path}{name}' exceeds the maximum length of {MOST_KEY} characters: {value[:40]!r}…")
        parts = value.split("/")
        if not _NAME.fullmatch(value) or any(part in ("", ".", "..") for part in parts) or value.isspace():
            raise invalid(
                f"Invalid value \"{value:.80}\" for parameter '{self._path}{name}' supplied: Names may only contain "
                "letters, digits, '_', '-', '.', ':', '/' and spaces, and must be a relative path in its plain form"
            )
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        """Return an integer of 64 bits."""
        value = self._values.get(name)
        if value is None or value == "":
            if default is None:
                raise self.absent(name)
            return default
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,19}", value):
            value = int(value)
        if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST_INT:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not -LARGEST_INT <= value < LARGEST_INT:
            raise self.wrong(name, value)
        return value

    def number(self, name: str) -> float:
        """Return a float; NaN and ±Inf may be words."""
        value = self._values.get(name)
        if value is None or value == "":
            raise self.absent(name)
        if isinstance(value, str):
            if value in _WORDS:
                return _WORDS[value]
            try:
                return float(value)
            except ValueError:
                raise self.wrong(name, value) from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, value)
        try:
            return float(value)
        except OverflowError:
            raise self.wrong(name, value) from None

    def flag(self, name: str) -> bool:
        """Return a bool; where it is missing, `False`."""
        value = self._values.get(name)
        if value in ("true", "True"):
            return True
        if value in (None, "", "false", "False"):
            return False
        if not isinstance(value, bool):
            raise self.wrong(name, value)
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of texts; in a query one may stand alone."""
        value = self._values.get(name)
        if value is None:
            return []
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.wrong(name, value)
        return value

    def dicts(self, name: str) -> list[dict[str, Any]]:
        """Return a list of objects as they came."""
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(name, value)
        for number, one in enumerate(value):
            if one.__class__ is not dict:
                raise self.wrong(f"{name}[{number}]", one)
        return value

    def objects(self, name: str) -> list[Fields]:
        """Return a list of objects."""
        return [Fields(one, f"{self._path}{name}[{number}].") for number, one in enumerate(self.dicts(name))]

    def object(self, name: str) -> Fields:
        """Return an object that must be there."""
        value = self._values.get(name)
        if value is None:
            raise self.absent(name)
        if not isinstance(value, dict):
            raise self.wrong(name, value)
        return Fields(value, f"{self._path}{name}.")

    def tags(self, name: str = "tags") -> dict[str, str]:
        """Return a list of `{key, value}` as a dict; the last of one key stands."""
        return {one.key(): one.text("value") for one in self.objects(name)}

    def run_id(self, name: str = "run_id") -> str:
        """Return the id of a run, under its present or its old name."""
        return self.required(name) if self.has(name) or not self.has("run_uuid") else self.required("run_uuid")

    def most(self, default: int, most: int, *, needs_it: bool = False) -> int:
        """Return how many results are wanted at most."""
        found = self.integer("max_results", 0 if needs_it else default)
        if not 0 < found <= most:
            limit = "It must be a positive integer" if found < 1 else f"It must be at most {most}"
            raise invalid(f"Invalid value {found} for parameter 'max_results' supplied. {limit}")
        return found

    def offset(self) -> int:
        """Return where a page begins, as its token says."""
        token = self.text("page_token")
        if not token:
            return 0
        try:
            found = json.loads(urlsafe_b64decode(token.encode("ascii", "strict")))["offset"]
        except (ValueError, KeyError, TypeError, RecursionError):
            found = None
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < LARGEST_INT:
            raise invalid(f"Invalid page token: {token:.80}")
        return found

    def absent(self, name: str) -> MlflowError:
        """Return the error of a field that is missing."""
        return invalid(f"Missing value for required parameter '{self._path}{name}'.")

    def wrong(self, name: str, value: Any) -> MlflowError:
        """Return the error of a field with a value that it cannot have."""
        try:
            shown = json.dumps(value)
        except (ValueError, TypeError):
            shown = repr(value)
        return invalid(f"Invalid value {shown:.200} for parameter '{self._path}{name}' supplied: it has another type.")


def token_of(offset: int) -> str:
    """Return the token of the page that begins at an offset."""
    return urlsafe_b64encode(json.dumps({"offset": offset}).encode()).decode()


def paged(name: str, found: list[Any], offset: int, most: int) -> dict[str, Any]:
    """Return one page of a list, and the token of the next one where there is one; without results, nothing."""
    answer: dict[str, Any] = {name: found[offset : offset + most]} if found[offset : offset + most] else {}
    if offset + most < len(found):
        answer["next_page_token"] = token_of(offset + most)
    return answer


def pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Return a dict as a list of `{key, value}`."""
    return [{"key": key, "value": value} for key, value in values.items()]
