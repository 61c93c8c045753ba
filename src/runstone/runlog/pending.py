"""Values that are still on a GPU when they are logged: copied without waiting, written when they have come, in order.

The training thread starts a copy into pinned host memory, and behind it one of a flag. The keeper looks at the flags;
it never waits for one. What is logged to the same metric meanwhile stands in line behind.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from runstone.errors import InvalidValue
from runstone.runlog.scalars import not_one_number

_MOST_WAITING = 4096
_CELLS = 256
_POLL_S = 0.001
_SETTLE_S = 0.0005


class Copy(Protocol):
    """One value on its way to the host."""

    def is_done(self) -> bool:
        """Return whether it has come; never waits, and is not asked again once it has."""

    def value(self) -> Any:
        """Return it, once it has come."""


StartCopy = Callable[[object, Any], Copy]


class _Entry:
    """What stands in line: a copy; or `None` and a value that only waits for those before it."""

    __slots__ = ("came_at", "copy", "has_failed", "name", "value", "write")

    def __init__(self, name: Any, copy: Copy | None, value: Any, write: Callable[[Any], None]) -> None:
        self.name, self.copy, self.value, self.write = name, copy, value, write
        self.came_at: float | None = None if copy is not None else -math.inf
        self.has_failed = False


class Pending:
    """The line of one writer.

    Args:
        drop: Called with how many points are lost.
        wake: Called when the line was empty and no longer is.
    """

    def __init__(self, drop: Callable[[int], None], wake: Callable[[], None]) -> None:
        self.start_copy: StartCopy | None = None
        """How a copy is started, from name and tensor; default: torch's CUDA."""
        self._drop = drop
        self._wake = wake
        self._line: deque[_Entry] = deque()
        self.waiting: dict[Any, int] = {}
        """How many values of a metric stand in line, for each that ever had one on a GPU."""
        self.host_types: set[type] = {float, int, bool, str}
        """Types, no mappings, whose values are never on a GPU, as far as they have been met."""
        self._lock = threading.RLock()
        self._looking = threading.Lock()
        self._is_busy = False
        self._lost = 0

    def __len__(self) -> int:
        """Return how many values stand in line."""
        return len(self._line)

    def is_on_gpu(self, value: Any) -> bool:
        """Return whether a value is a tensor in the memory of a CUDA device, which must not be asked for its number."""
        try:
            found = getattr(value, "is_cuda", None)
            if found is None:
                found = getattr(getattr(value, "device", None), "type", None) == "cuda" and hasattr(value, "detach")
                if not hasattr(type(value), "detach") and not isinstance(value, Mapping):
                    self.host_types.add(type(value))
            return found is True
        except Exception:  # foreign code may raise anything
            return False

    def add(self, name: Any, tensor: Any, write: Callable[[Any], None]) -> None:
        """Start the copy of a tensor's value, and hand the value to `write` later, in another thread.

        Raises:
            InvalidValue: it is not one real number, or cannot be copied.
        """
        if self.start_copy is None:
            self.start_copy = CudaCopies().start
        copy = self.start_copy(name, tensor)
        with self._lock:
            self.waiting[name] = self.waiting.get(name, 0) + 1
            self._line.append(_Entry(name, copy, None, write))
            count = len(self._line)
        if count == 1:
            self._wake()
        elif count > _MOST_WAITING:  # the keeper is behind, or there is none
            self.drain()

    def put_behind(self, name: Any, value: Any, write: Callable[[Any], None]) -> bool:
        """Put a value in line behind those of its metric that wait; return `False` where none does."""
        with self._lock:
            if not self.waiting.get(name):
                return False
            self.waiting[name] += 1
            self._line.append(_Entry(name, None, value, write))
            return True

    def drain(self) -> None:
        """Write what has come since an earlier look, up to the first value that has not."""
        self._look(list(itertools.islice(self._line, _MOST_WAITING)), is_last_call=False)
        while self._take(is_last_call=False):
            pass

    def _look(self, entries: list[_Entry], *, is_last_call: bool) -> None:
        """Note which values have come, up to the first that has not; in the last call of all."""
        if not self._looking.acquire(blocking=False):  # another thread does
            return
        try:
            now = time.monotonic()
            for entry in entries:
                if entry.came_at is not None or entry.copy is None:
                    continue
                try:
                    is_here = entry.copy.is_done()
                except Exception:  # the device is in trouble: this value will not come
                    is_here = entry.has_failed = True
                if is_here:
                    entry.came_at = now
                elif not is_last_call:
                    return
        finally:
            self._looking.release()

    def flush(self, timeout_s: float) -> int:
        """Write everything; return how many values never came, or not in time, and are lost.

        Args:
            timeout_s: How long to wait for the GPU.
        """
        with self._lock:
            if self._is_busy:  # this is a signal handler, in the middle of a write of this thread
                return 0
        end = time.monotonic() + timeout_s
        self.drain()
        while self._line and time.monotonic() < end:
            time.sleep(_POLL_S)
            self.drain()
        if self._line:
            self._look(list(self._line), is_last_call=True)  # of the others' metrics, behind one that is stuck
            time.sleep(2 * _SETTLE_S)
        while self._take(is_last_call=True):
            pass
        lost, self._lost = self._lost, 0
        return lost

    def _take(self, *, is_last_call: bool) -> bool:
        """Write the first in line, or give it up; return whether there was one whose turn it is."""
        with self._lock:
            # A signal handler that logs may come back to here; it must not overtake the write that it interrupts.
            if self._is_busy or not self._line:
                return False
            self._is_busy = True
            try:
                return self._write_first(is_last_call)
            finally:
                self._is_busy = False

    def _write_first(self, is_last_call: bool) -> bool:
        entry = self._line[0]
        # Where buses order writes loosely, the value may come a moment after what tells that it has come.
        is_here = entry.came_at is not None and time.monotonic() - entry.came_at >= _SETTLE_S
        if not is_here and not is_last_call:
            return False
        self._line.popleft()
        try:
            if is_here and not entry.has_failed:
                entry.write(entry.value if entry.copy is None else entry.copy.value())
                return True
        except OSError:  # counted where it was raised
            return True
        except Exception:  # foreign code may raise anything
            entry.has_failed = True
        finally:
            self.waiting[entry.name] -= 1
        self._lost += 1
        self._drop(1)
        return True


class CudaCopies:
    """Starts copies of single values out of the memory of CUDA devices, with the torch that made the tensors.

    Args:
        pin_memory: Whether the cells lie in pinned memory; a copy into other memory waits for the GPU.
        new_event: Makes what is recorded behind a copy, with `record()` and `query()`; default: a flag.
    """

    def __init__(self, *, pin_memory: bool = True, new_event: Callable[[], Any] | None = None) -> None:
        self._pin_memory = pin_memory
        self._new_event = new_event
        self._free: dict[Any, list[Any]] = {}
        self._ones: dict[Any, Any] = {}

    def start(self, name: object, tensor: Any) -> Copy:
        """Start the copy of a tensor of one element on the current stream of its device.

        Raises:
            InvalidValue: it has not exactly one element, is complex, or cannot be copied.
        """
        torch = sys.modules["torch"]  # a tensor of it is at hand, so it is loaded
        if tensor.numel() != 1:
            raise not_one_number(name, tensor)
        if tensor.is_complex():
            raise InvalidValue(f"metric {name!r:.80} must be a number, got a complex tensor")
        try:
            # Cells outlive this call, so they must be plain tensors also where the caller is in inference mode.
            with torch.inference_mode(mode=False), torch.no_grad():
                if self._new_event is None and torch.cuda.is_current_stream_capturing():
                    raise InvalidValue("it is computed in a CUDA graph that is being captured; log it after a replay")
                cells = self._free.setdefault(tensor.dtype, [])
                cell = self._cell(torch, tensor.dtype, cells)
                cell.copy_(tensor.detach().resolve_neg().reshape(()), non_blocking=True)
                event = self._new_event() if self._new_event is not None else self._flag(torch, tensor.device)
                event.record()
        except Exception as error:  # foreign code may raise anything
            raise InvalidValue(
                f"metric {name!r:.80} cannot be read from the GPU: {type(error).__name__}: {error}"
            ) from None
        return _CudaCopy(event, cell, cells)

    def _cell(self, torch: Any, dtype: Any, cells: list[Any]) -> Any:
        while True:
            try:
                return cells.pop()
            except IndexError:  # many at once: to pin memory is slow, and holds up the device
                chunk = torch.zeros(_CELLS, dtype=dtype, pin_memory=self._pin_memory)
                cells.extend(chunk[index] for index in range(_CELLS))

    def _flag(self, torch: Any, device: Any) -> _Flag:
        stream = device, torch.cuda.current_stream(device).cuda_stream
        one = self._ones.get(stream)
        if one is None:  # one for each stream, on which it is certainly set before it is copied
            one = self._ones[stream] = torch.ones((), dtype=torch.uint8, device=device)
        cells = self._free.setdefault("flags", [])
        return _Flag(self._cell(torch, torch.uint8, cells), one, cells)


class _Flag:
    """Tells when a copy is done, by a byte that the device writes behind it.

    Not an event of CUDA: whoever asks one of those, in any thread, breaks the capture of a CUDA graph that is under way
    in another. To read memory breaks nothing.
    """

    __slots__ = ("_cell", "_cells", "_one")

    def __init__(self, cell: Any, one: Any, cells: list[Any]) -> None:
        self._cell, self._one, self._cells = cell, one, cells

    def record(self) -> None:
        self._cell.fill_(0)
        self._cell.copy_(self._one, non_blocking=True)

    def query(self) -> bool:
        if not self._cell.item():
            return False
        self._cells.append(self._cell)
        return True


class _CudaCopy:
    """One copy: its event, the cell that it goes to, and the free cells that this one comes back to."""

    __slots__ = ("_cell", "_cells", "_event")

    def __init__(self, event: Any, cell: Any, cells: list[Any]) -> None:
        self._event, self._cell, self._cells = event, cell, cells

    def is_done(self) -> bool:
        return bool(self._event.query())

    def value(self) -> Any:
        value = self._cell.item()
        self._cells.append(self._cell)
        return value
