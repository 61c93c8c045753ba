"""What failures have in common, and which of them may pass: by their text alone. Decides nothing."""

from __future__ import annotations

import re

_VARYING = re.compile(r"0x[0-9a-fA-F]+|\d+")
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line \d+, in (?P<function>.+)$', re.MULTILINE)
# How many frames of a traceback, from its end, tell one failure from another.
_FRAMES = 3
_OOM_TYPES = frozenset({"MemoryError", "OutOfMemoryError", "ResourceExhaustedError", "XlaRuntimeError", "RuntimeError"})
_OOM = re.compile(
    r"\bMemoryError\b|OutOfMemoryError|CUDA out of memory|HIP out of memory|MPS backend out of memory"
    r"|DefaultCPUAllocator: (?:can't allocate|not enough) memory|CUBLAS_STATUS_ALLOC_FAILED|CUDA_ERROR_OUT_OF_MEMORY"
    r"|CUDA error: out of memory|RESOURCE_EXHAUSTED: (?:Out of memory|.*while trying to allocate)|std::bad_alloc"
)


def failure_key(reason: str | None) -> str:
    """Return what equal failures have in common: the reason without numbers and addresses."""
    return _VARYING.sub("#", reason or "")


def failure_group(reason: str | None, traceback: str) -> str:
    """Return what failures of one cause have in common: where they came from, and what they said.

    Args:
        reason: Why it failed, in one line.
        traceback: As Python prints it, or other text; only its frames count.
    """
    frames = [(found["file"], found["function"]) for found in _FRAME.finditer(traceback)][-_FRAMES:]
    where = " < ".join(f"{file.rpartition('/')[2]}:{function}" for file, function in reversed(frames))
    # What an exception says may hold anything; where it was raised tells more. Its type is the reason's first word.
    said = failure_key(reason)
    return f"{said.partition(':')[0]} in {where}" if where else said


def is_out_of_memory(kind: str, text: str) -> bool:
    """Tell whether an exception means that memory was short.

    Args:
        kind: Its type, or an empty text for what a program printed.
        text: Its message, or the end of what was printed.
    """
    name = kind.rpartition(".")[2]
    if name in ("MemoryError", "OutOfMemoryError", "ResourceExhaustedError"):
        return True
    return (not name or name in _OOM_TYPES) and _OOM.search(text) is not None
