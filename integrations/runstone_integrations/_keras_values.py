"""From what a loop reports as a metric to what a run takes. Reads nothing that lies on a GPU."""

from __future__ import annotations

from typing import Any


def is_on_gpu(value: Any) -> bool:
    """Return whether a value is a torch tensor on a CUDA device: to read it would wait for the device."""
    return getattr(value, "is_cuda", None) is True


def scalar(value: Any) -> Any:
    """Return a Python number for a number, a NumPy or tensor scalar, or an array of one element.

    A tensor on a CUDA device stays one, for the run to fetch: to ask it here would wait for the device.
    """
    if value.__class__ in (float, int, bool):
        return value
    if is_on_gpu(value):
        if value.numel() != 1:
            raise TypeError(f"it has shape {tuple(value.shape)}")
        return value.detach()
    item = getattr(value, "item", None)
    number = item() if callable(item) else value
    if isinstance(number, bool | int | float):
        return number
    return float(number)
