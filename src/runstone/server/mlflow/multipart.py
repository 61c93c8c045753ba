"""Files that come in parts, and files that go by an address of their own: MLflow's multipart transfers.

A part is sent without saying who sends it, to an address that the server names; a ticket in a header lets it in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from runstone.server.errors import ApiError
from runstone.server.files import sent
from runstone.server.mlflow.artifacts import checked, find_file, find_place, land, with_headers
from runstone.server.mlflow.errors import MlflowError, invalid, missing
from runstone.server.mlflow.outside import address_of
from runstone.server.mlflow.parts import MOST_PARTS, gone
from runstone.server.mlflow.receiving import of_disk, receive
from runstone.server.mlflow.service import Call, Mlflow
from runstone.server.mlflow.tickets import HEADER, is_good, make_ticket
from runstone.server.roles import Role
from runstone.server.state import state_of

API = "/api/2.0/mlflow-artifacts"
_UNSUPPORTED = "Multipart {} is not supported for the current artifact repository"
"""At an answer that begins so, a client sends or fetches the file in one piece."""
_DOWNLOAD_S = 300
Result = TypeVar("Result")


def _unsupported(what: str, why: str) -> MlflowError:
    return MlflowError("NOT_IMPLEMENTED", f"{_UNSUPPORTED.format(what)}: {why}")


def _address(call: Call, what: str) -> str:
    found = address_of(call.request)
    if found is None:
        raise _unsupported(what, "the server cannot tell its address; name its proxy with --trusted-proxy")
    return found


def server_info(call: Call) -> dict[str, Any]:
    """GET server-info.

    Multipart uploads are offered over plain HTTP alone: a client does not use for parts what it was told of a
    certificate, or of another log-in in front, and has no second way. With downloads, each file costs one more request.
    """
    address = address_of(call.request)
    return {
        "store_type": "SqlStore",
        "workspaces_enabled": False,
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": address is not None and address.startswith("http:"),
        "multipart_downloads_enabled": False,
        "presigned_upload_run_id_supported": True,
        "presigned_upload_model_id_supported": True,
        "features_enabled": {"gateway": False},
    }


# --- uploads ----------------------------------------------------------------------------------------------------------


def _target(call: Call) -> str:
    """Return the path of the proxy at which the file is to lie: the folder in the address, and the file's own name."""
    name = call.fields.required("path").replace("\\", "/").rpartition("/")[2]
    folder = call.path["path"].removesuffix("/")
    if not name:
        raise invalid("Invalid path")
    return checked(f"{folder}/{name}" if folder else name)


def create(call: Call) -> dict[str, Any]:
    """POST mpu/create/PATH.

    Raises:
        MlflowError: somebody may not do this there; it cannot be.
    """
    target, count = _target(call), call.fields.integer("num_parts", 0)
    place, rest = find_place(call, target, Role.CONTRIBUTOR)
    if place is not None and not rest:
        raise invalid("Invalid path")
    if count < 0:
        raise call.fields.wrong("num_parts", count)
    if not 0 < count <= MOST_PARTS:
        raise _unsupported("upload", f"{count} parts; 1 to {MOST_PARTS:,} are possible")
    address = _address(call, "upload")
    made = _disk(lambda: call.mlflow.uploads.begin(call.principal.name, target, count))
    credentials = [
        {
            "url": f"{address}{API}/mpu/parts/{made.id}/{number}",
            "part_number": number,
            "headers": {HEADER: made.ticket(number)},
        }
        for number in range(1, count + 1)
    ]
    return {"upload_id": made.id, "credentials": credentials}


async def put_part(request: Request, mlflow: Mlflow) -> Response:
    """PUT mpu/parts/ID/NUMBER, from somebody with its ticket.

    Raises:
        MlflowError: the ticket is not that of this part, or the upload has ended.
        ApiError: as `receive` does.
    """
    upload_id, number = request.path_params["upload_id"], request.path_params["number"]
    ticket, limits = request.headers.get(HEADER, ""), state_of(request).config.limits
    denied = MlflowError("PERMISSION_DENIED", f"send what came in the credentials of this part, its {HEADER} too")
    if not ticket:
        raise denied
    found = await run_in_threadpool(mlflow.uploads.find, upload_id)
    if found is None:
        raise gone(upload_id)
    if not (number.isascii() and number.isdigit() and len(number) < 10 and found.takes(int(number), ticket)):
        raise denied
    part = await run_in_threadpool(_disk, lambda: found.part(int(number)))
    try:
        await receive(request, part.write, limits, found.most_bytes(limits.upload_bytes))
        etag = await run_in_threadpool(_disk, part.place)
    finally:
        await run_in_threadpool(part.close)
    return Response(status_code=200, headers={"ETag": f'"{etag}"'})


def complete(call: Call) -> dict[str, Any]:
    """POST mpu/complete/PATH.

    Raises:
        MlflowError: there is no such upload, or its parts are not those that were sent.
    """
    target, user, uploads = _target(call), call.principal.name, call.mlflow.uploads
    upload_id = call.fields.required("upload_id")
    if not call.fields.has("parts") or not call.fields.dicts("parts"):
        raise call.fields.absent("parts")
    told = [(one.integer("part_number"), one.text("etag").strip('"')) for one in call.fields.objects("parts")]
    etags = [etag for _number, etag in told]
    place, rest = find_place(call, target, Role.CONTRIBUTOR)
    with uploads.alone(upload_id):
        if uploads.is_done(upload_id, user, target, etags):
            return {}
        found = uploads.get(upload_id, user, target)
        if [number for number, _etag in told] != list(range(1, found.told.count + 1)):
            raise invalid(f"'parts' must name the parts 1 to {found.told.count}, each once, in this order")
        try:
            with found.assembled(etags, call.mlflow.state.config.limits.upload_bytes) as whole:
                land(call.mlflow, Path(whole.path), place, rest, is_synced=True)
            uploads.end(found, etags)
        except OSError as error:
            raise of_disk(error) from None
    return {}


def abort(call: Call) -> dict[str, Any]:
    """POST mpu/abort/PATH.

    Raises:
        MlflowError: there is no such upload.
    """
    target, uploads = _target(call), call.mlflow.uploads
    upload_id = call.fields.required("upload_id")
    with uploads.alone(upload_id):
        uploads.end(uploads.get(upload_id, call.principal.name, target), None)
    return {}


def _disk(work: Callable[[], Result]) -> Result:
    try:
        return work()
    except OSError as error:
        raise of_disk(error) from None


# --- downloads --------------------------------------------------------------------------------------------------------


def presign(call: Call) -> dict[str, Any]:
    """GET presigned/PATH: an address of a file for some minutes, from which parts of it come without a log-in.

    Raises:
        MlflowError: there is no such file, or somebody may not have it.
    """
    path = checked(call.path["path"])
    entry, name = find_file(call, path)
    address = _address(call, "download")
    expires_at = int(time.time()) + _DOWNLOAD_S
    ticket = make_ticket(call.mlflow.key, expires_at, "download", entry.hash, name)
    url = f"{address}{API}/presigned-files/{entry.hash}/{quote(name.encode(), safe='')}"
    return {"url": url, "headers": {HEADER: ticket}, "file_size": entry.size_bytes}


def send_presigned(request: Request, mlflow: Mlflow) -> Response:
    """GET presigned-files/HASH/NAME, by somebody with its ticket.

    Raises:
        MlflowError: the ticket is not that of this file, or has expired.
    """
    content, name = request.path_params["content"], request.path_params["name"]
    ticket = request.headers.get(HEADER, "")
    if not is_good(ticket, mlflow.key, time.time(), "download", content, name):
        raise MlflowError("PERMISSION_DENIED", f"ask for a new address: the {HEADER} is not that of this file any more")
    try:
        return with_headers(sent(mlflow.state.contents, content, name, range_header=request.headers.get("range")), name)
    except ApiError as error:
        if error.code != "not_found":
            raise
        raise missing(error.message) from None


def presign_upload(call: Call) -> dict[str, Any]:
    """POST artifacts/presigned-upload-url, for stores that clients reach themselves.

    Raises:
        MlflowError: always: files come through the server.
    """
    if call.fields.has("run_id") == call.fields.has("model_id"):
        raise invalid("Exactly one of run_id and model_id must be provided.")
    checked(call.fields.required("path"))
    raise invalid(
        "Presigned upload is not supported for proxied artifact storage (artifact URI scheme: mlflow-artifacts)."
    )


def presign_download(call: Call) -> dict[str, Any]:
    """POST artifacts/presigned-download-url, as `presign_upload`."""
    call.fields.required("path")
    call.run()
    raise invalid(
        "Presigned download is not supported for runs with proxied artifact storage "
        "(artifact URI scheme: mlflow-artifacts)."
    )
