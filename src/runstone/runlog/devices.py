"""Values in the memory of a device: which they are, and how to have one without waiting. Knows no metric log.

torch tells when a copy into pinned memory is done; JAX, when an array is computed; TensorFlow and CuPy tell nothing, so
their values are fetched by the keeper, which may wait.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, NamedTuple, Protocol

from runstone.errors import InvalidValue
from runstone.runlog.scalars import not_one_number

_CELLS = 256
# NaNs that no arithmetic makes, nor a wider form of one of 16 bits; and a number that nobody counts to.
_MARKS = {
    "float32": 0x7FB1_C0DE,
    "float64": 0x7FF4_51C0_DE5A_C0DE,
    "int64": 0x9E37_79B9_7F4A_7C15,
    "uint64": 0x9E37_79B9_7F4A_7C15,
}


class Copy(Protocol):
    """One value on its way to the host."""

    def is_done(self) -> bool:
        """Return whether it has come, and is not asked again once it has. Never waits but in a `CopyThatWaits`."""

    def value(self) -> Any:
        """Return it, once it has come; never waits."""


class CopyThatWaits:
    """A copy whose `is_done` may wait for the device: never called in a `log` call, nor with a lock held."""

    __slots__ = ()


def is_away(value: Any) -> bool | None:
    """Return whether to ask a value for its number may wait for a device; `None` where no value of its type ever does.

    A JAX array on a CPU is away until it is computed: JAX computes there, too, while the program goes on.
    """
    is_cuda = getattr(value, "is_cuda", None)
    if is_cuda is not None:
        return is_cuda is True
    kind = type(value)
    if hasattr(kind, "copy_to_host_async"):
        return not value.is_ready() or any(device.platform != "cpu" for device in value.devices())
    device = getattr(value, "device", None)
    if hasattr(kind, "detach"):  # a torch of before `is_cuda`, or something like it
        return getattr(device, "type", None) == "cuda"
    if hasattr(kind, "numpy") and isinstance(device, str):
        return ":GPU:" in device
    return True if hasattr(kind, "__cuda_array_interface__") else None


def start_copy(name: object, value: Any) -> Copy:
    """Start to bring a value of a device to the host.

    Raises:
        InvalidValue: it is not one real number, or cannot be copied.
    """
    if hasattr(type(value), "detach"):
        return _cuda_copies().start(name, value)
    try:
        count = functools.reduce(int.__mul__, map(int, value.shape), 1)
        is_complex = "complex" in str(value.dtype)
        if count == 1 and not is_complex:
            if hasattr(value, "copy_to_host_async"):
                return _ReadyCopy(value)
            return _FetchedCopy(value if hasattr(value, "numpy") else value.copy())
    except Exception as error:  # foreign code may raise anything
        raise InvalidValue(
            f"metric {name!r:.80} cannot be read from its device: {type(error).__name__}: {error}"
        ) from None
    if is_complex:
        raise InvalidValue(f"metric {name!r:.80} must be a number, got a complex array")
    raise not_one_number(name, value)


@functools.cache
def _cuda_copies() -> CudaCopies:
    return CudaCopies()


class _ReadyCopy(CopyThatWaits):
    """A JAX array, which tells when it is computed, but not when it is here, and is never changed."""

    __slots__ = ("_array", "_number")

    def __init__(self, array: Any) -> None:
        array.copy_to_host_async()
        self._array, self._number = array, None

    def is_done(self) -> bool:
        if not self._array.is_ready():
            return False
        self._number, self._array = self._array.item(), None
        return True

    def value(self) -> Any:
        return self._number


class _FetchedCopy(CopyThatWaits):
    """A tensor of TensorFlow, or a copy of an array of CuPy, on the device: nobody else changes it."""

    __slots__ = ("_array", "_number")

    def __init__(self, array: Any) -> None:
        self._array, self._number = array, None

    def is_done(self) -> bool:
        array = self._array
        self._number, self._array = (array.numpy() if hasattr(array, "numpy") else array).item(), None
        return True

    def value(self) -> Any:
        return self._number


class CudaCopies:
    """Starts copies of single values out of the memory of CUDA devices, with the torch that made the tensors.

    A cell of pinned memory holds a mark until the device writes the value over it, which it does in one piece. So
    whoever looks at the cell knows whether the value has come, and asks CUDA nothing: to ask an event breaks the
    capture of a CUDA graph that is under way in another thread.

    Args:
        pin_memory: Whether the cells lie in pinned memory; a copy into other memory waits for the GPU.
    """

    def __init__(self, *, pin_memory: bool = True) -> None:
        self._pin_memory = pin_memory
        self._free: dict[str, list[_Cell]] = {kind: [] for kind in _MARKS}

    def start(self, name: object, tensor: Any) -> Copy:
        """Start the copy of a tensor of one element on the current stream of its device.

        Raises:
            InvalidValue: it has not exactly one element, is complex, or cannot be copied.
        """
        torch = sys.modules["torch"]  # a tensor of it is at hand, so it is loaded
        if tensor.numel() != 1:
            raise not_one_number(name, tensor)
        dtype = tensor.dtype
        if dtype.is_complex:
            raise InvalidValue(f"metric {name!r:.80} must be a number, got a complex tensor")
        if dtype.is_floating_point:
            kind = "float64" if dtype == torch.float64 else "float32"
        else:  # a signed cell would take the larger half of unsigned numbers for negative ones
            kind = "uint64" if dtype == getattr(torch, "uint64", None) else "int64"
        try:
            if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
                raise InvalidValue("it is computed in a CUDA graph that is being captured; log it after a replay")
            cell = self._cell(torch, kind)
            cell.bits[cell.place] = _MARKS[kind]
            # Else the sign would be turned on the host, in the cell, before the value is there.
            source = tensor.detach().resolve_neg()
            cell.tensor.copy_(source.reshape(()) if source.ndim else source, non_blocking=True)
        except Exception as error:  # foreign code may raise anything
            raise InvalidValue(
                f"metric {name!r:.80} cannot be read from the GPU: {type(error).__name__}: {error}"
            ) from None
        return _CudaCopy(cell, self._free[kind], _MARKS[kind], is_bool=dtype == torch.bool)

    def _cell(self, torch: Any, kind: str) -> _Cell:
        cells = self._free[kind]
        while True:
            try:
                return cells.pop()
            except IndexError:  # many at once: to pin memory is slow, and holds up the device
                # Cells outlive this call, so they must be plain tensors also where the caller is in inference mode.
                with torch.inference_mode(mode=False):
                    chunk = torch.zeros(_CELLS, dtype=getattr(torch, kind), pin_memory=self._pin_memory)
                    numbers = chunk.numpy()
                    bits = numbers.view(f"u{numbers.itemsize}")
                    cells.extend(_Cell(chunk[index], numbers, bits, index) for index in range(_CELLS))


class _Cell(NamedTuple):
    """One place for a value: as a tensor, as a number, as bits."""

    tensor: Any
    numbers: Any
    bits: Any
    place: int


class _CudaCopy:
    """One copy: its cell, and the free cells that this one comes back to."""

    __slots__ = ("_cell", "_free", "_is_bool", "_mark")

    def __init__(self, cell: _Cell, free: list[_Cell], mark: int, *, is_bool: bool) -> None:
        self._cell, self._free, self._mark, self._is_bool = cell, free, mark, is_bool

    def is_done(self) -> bool:
        return bool(self._cell.bits[self._cell.place] != self._mark)

    def value(self) -> Any:
        value = self._cell.numbers[self._cell.place].item()
        self._free.append(self._cell)
        return bool(value) if self._is_bool else value
