"""How the API says that something went wrong: one shape for all, without a place on this machine in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from runstone import errors
from runstone.server.jsons import Json

Code = Literal[
    "not_found",
    "invalid",
    "conflict",
    "unauthorized",
    "forbidden",
    "too_large",
    "too_many",
    "unavailable",
    "damaged",
    "internal",
]
_STATUS: dict[Code, int] = {
    "not_found": 404,
    "invalid": 400,
    "conflict": 409,
    "unauthorized": 401,
    "forbidden": 403,
    "too_large": 413,
    "too_many": 429,
    "unavailable": 503,
    "damaged": 422,
    "internal": 500,
}
_CODE_OF_STATUS: dict[int, Code] = {status: code for code, status in _STATUS.items()} | {
    405: "invalid",
    408: "unavailable",
    415: "invalid",
    416: "invalid",
    421: "forbidden",
}
_LONGEST = 2_000
# A POSIX path of two parts or more, or one of Windows.
_SEPARATOR = re.compile(r"[/\\]")
_PLACE = re.compile(r"(?<![\w./:@-])(?:/[\w.+~@%-]+){2,}/?|\b[A-Za-z]:\\[^\s'\"]+")


class ErrorBody(BaseModel):
    """What went wrong."""

    code: Code
    message: str = Field(description="What happened, with which value, and what to do now.")
    details: dict[str, Any] = {}


class ErrorAnswer(BaseModel):
    """Every answer with a status of 400 or more."""

    error: ErrorBody


class ApiError(Exception):
    """An answer that is no success.

    Args:
        code: What kind.
        message: What happened, with which value, and what to do now.
        status: Of HTTP, where it is not that of the code.
        details: What a program may want to know.
        headers: Of the answer.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        status: int | None = None,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code: Code = code
        self.status = status if status is not None else _STATUS[code]
        self.message = message
        self.details = dict(details or {})
        self.headers = dict(headers or {})

    def answer(self) -> Json:
        """Return what is sent."""
        return Json({"error": self.body()}, status_code=self.status, headers=self.headers)

    def body(self) -> dict[str, Any]:
        """Return what is said of it."""
        return {"code": self.code, "message": without_places(self.message), "details": self.details}


def of_domain(error: errors.RunstoneError) -> ApiError:
    """Return how the API says what the domain said."""
    message = str(error)
    match error:
        case errors.InvalidFilter():
            return ApiError("invalid", message, details={"position": error.position})
        case errors.NotFound():
            return ApiError("not_found", message)
        case errors.AlreadyExists() | errors.RunFinished() | errors.AmbiguousName():
            return ApiError("conflict", message)
        case errors.InvalidName() | errors.InvalidValue() | errors.InvalidConfig():
            return ApiError("invalid", message)
        case errors.Unavailable():
            return ApiError("unavailable", message, headers={"Retry-After": "5"})
        case errors.FormatError():
            return ApiError("damaged", message)
        case _:
            return ApiError("conflict", message)


def of_defect(request_id: str) -> ApiError:
    """Return the error of a request at which the server failed; only its log says why."""
    return ApiError("internal", f"the server failed; its log says why, at the request {request_id}")


def of_status(status: int, message: str, headers: Mapping[str, str] | None = None) -> ApiError:
    """Return the error of a status of HTTP."""
    code = _CODE_OF_STATUS.get(status, "invalid" if status < 500 else "internal")
    return ApiError(code, message, status=status, headers=headers)


def of_validation(problems: list[Any]) -> ApiError:
    """Return the error of a request that has another form than it should."""
    told = []
    for problem in problems[:5]:
        place = ".".join(str(part) for part in problem.get("loc", ()) if part != "body")
        told.append({"at": place[:200], "problem": str(problem.get("msg", ""))[:200]})
    first = told[0] if told else {"at": "", "problem": "it does not parse"}
    return ApiError("invalid", f"{first['at'] or 'the request'}: {first['problem']}", details={"problems": told})


def without_places(message: str) -> str:
    """Return a message that tells nothing of where things lie on this machine."""
    return _PLACE.sub(lambda found: "…/" + _SEPARATOR.split(found[0].rstrip("/"))[-1], message[:_LONGEST])
