"""Bodies that are files of any size: written as they come, a little at a time, from clients that keep sending."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from runstone.server.config import Limits
from runstone.server.errors import ApiError

SLOWEST_BYTES_S = 1_024
"""Bytes a second that a client sends at least while it is waited for, looked at each time `Limits.body_s` has gone."""
_WRITTEN_AT_ONCE = 1 << 20
_CLOSE = {"Connection": "close"}


async def receive(request: Request, write: Callable[[bytes], object], limits: Limits, most: int) -> int:
    """Write the body of a request somewhere; return how many bytes it has.

    Args:
        request: Of which nothing was read.
        write: Takes the next bytes; called in a thread.
        limits: How long the next piece may take; over several, a client is as quick as `SLOWEST_BYTES_S`.
        most: Bytes that it may have.

    Raises:
        ApiError: it has more, the client is too slow or went away, or the disk is full.
    """
    size, since, waited_s = 0, 0, 0.0
    waiting = bytearray()
    stream, clock = request.stream().__aiter__(), asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            async with asyncio.timeout(limits.body_s):
                piece = await anext(stream)
        except StopAsyncIteration:
            break
        except TimeoutError:
            raise ApiError("unavailable", f"nothing came for {limits.body_s:g} s", status=408, headers=_CLOSE) from None
        except ClientDisconnect:
            raise ApiError("invalid", "the client went away before its file was there", headers=_CLOSE) from None
        size, waited_s = size + len(piece), waited_s + clock() - began
        if size > most:
            raise ApiError("too_large", f"the file is larger than {most:,} bytes", headers=_CLOSE)
        if waited_s >= limits.body_s:
            if size - since < SLOWEST_BYTES_S * waited_s:
                told = f"{size - since:,} bytes came in {waited_s:.0f} s: send at least {SLOWEST_BYTES_S:,} a second"
                raise ApiError("unavailable", told, status=408, headers=_CLOSE)
            since, waited_s = size, 0.0
        waiting += piece
        if len(waiting) >= _WRITTEN_AT_ONCE:
            data, waiting = waiting, bytearray()
            await run_in_threadpool(_written, write, bytes(data))
    if waiting:
        await run_in_threadpool(_written, write, bytes(waiting))
    return size


def _written(write: Callable[[bytes], object], data: bytes) -> None:
    try:
        write(data)
    except OSError as error:
        raise of_disk(error) from None


def of_disk(error: OSError) -> Exception:
    """Return how the server says that the disk refused; what is not the disk's fault, as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ApiError("unavailable", "the disk of the server is full", headers={"Retry-After": "30"})
    return error
