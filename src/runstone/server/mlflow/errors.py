"""How MLflow's protocol says that something went wrong."""

from __future__ import annotations

from runstone import errors
from runstone.server.errors import ApiError, Code, without_places
from runstone.server.jsons import Json

INVALID = "INVALID_PARAMETER_VALUE"
MISSING = "RESOURCE_DOES_NOT_EXIST"
EXISTS = "RESOURCE_ALREADY_EXISTS"
_STATUS = {
    INVALID: 400,
    EXISTS: 400,
    "BAD_REQUEST": 400,
    MISSING: 404,
    "ENDPOINT_NOT_FOUND": 404,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_CONFLICT": 409,
    "ABORTED": 409,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "INTERNAL_ERROR": 500,
    "NOT_IMPLEMENTED": 501,
    "TEMPORARILY_UNAVAILABLE": 503,
}
_OF_CODE: dict[Code, str] = {
    "not_found": MISSING,
    "invalid": INVALID,
    "conflict": "RESOURCE_CONFLICT",
    "unauthorized": "UNAUTHENTICATED",
    "forbidden": "PERMISSION_DENIED",
    "too_large": INVALID,
    "too_many": "REQUEST_LIMIT_EXCEEDED",
    "unavailable": "TEMPORARILY_UNAVAILABLE",
    "damaged": "RESOURCE_CONFLICT",
    "internal": "INTERNAL_ERROR",
}


class MlflowError(Exception):
    """An answer that is no success.

    Args:
        code: A word of the protocol, such as `RESOURCE_DOES_NOT_EXIST`.
        message: What happened.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def answer(self) -> Json:
        """Return what is sent."""
        body = {"error_code": self.code, "message": without_places(self.message)}
        return Json(body, status_code=_STATUS[self.code])


def invalid(message: str) -> MlflowError:
    """Return the error of a request that cannot be."""
    return MlflowError(INVALID, message)


def missing(message: str) -> MlflowError:
    """Return the error of a request for what is not there."""
    return MlflowError(MISSING, message)


def of_api(error: ApiError) -> Json:
    """Return how the protocol says what the server says."""
    code = _OF_CODE[error.code]
    if error.code == "not_found" and error.message.startswith("there is nothing at"):
        code = "ENDPOINT_NOT_FOUND"
    body = {"error_code": code, "message": without_places(error.message)}
    return Json(body, status_code=error.status, headers=error.headers)


def of_domain(error: errors.RunstoneError) -> MlflowError:
    """Return how the protocol says what the domain said."""
    match error:
        case errors.NotFound():
            return missing(str(error))
        case errors.AlreadyExists():
            return MlflowError(EXISTS, str(error))
        case errors.FormatError():
            return MlflowError("RESOURCE_CONFLICT", str(error))
        case _:
            return invalid(str(error))
