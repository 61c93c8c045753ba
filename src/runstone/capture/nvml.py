"""The way to NVML: its library, the module that calls it, and what its answers and error codes mean."""

from __future__ import annotations

import ctypes
import importlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from typing import Any

from runstone.capture.facts import Kind, Missing, absent
from runstone.capture.forks import importing

LIBRARY = "libnvidia-ml.so.1"
# What NVML says where it has no number.
GARBAGE = frozenset({0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF})
_OWN_NAME = "runstone.capture._pynvml"
_KINDS: dict[int, Kind] = {
    3: "absent",
    4: "denied",
    6: "absent",
    9: "absent",
    10: "timeout",
    12: "absent",
    13: "absent",
}
_ADVICE = {
    4: "this user may not read it",
    9: "the NVIDIA driver is not loaded",
    12: f"{LIBRARY} is not installed",
    13: "this driver is too old for it",
    15: "the GPU has fallen off the bus; the kernel log tells why",
    18: "driver and library differ in version: the driver was updated, and the machine not restarted since",
}


def load_pynvml(root: Path = Path("/")) -> Any:
    """Return the module `pynvml` of nvidia-ml-py, which this machine's driver can answer; it is not initialized.

    Args:
        root: Where `/proc` is looked for.

    Raises:
        Missing: there is no driver, or no nvidia-ml-py.
    """
    if sys.platform != "linux":
        raise absent("NVIDIA GPUs are looked for on Linux only")
    try:
        with importing:
            ctypes.CDLL(LIBRARY)
    except OSError as error:
        if (root / "proc/driver/nvidia").exists():
            raise absent(
                f"the NVIDIA driver is loaded, but {LIBRARY} cannot be: {error}; "
                "a container needs the driver capability 'utility'"
            ) from None
        raise absent(f"no NVIDIA driver: {error}") from None
    return _import_pynvml()


def _import_pynvml() -> Any:
    with importing:
        if "_pynvml_redirector" not in sys.modules or "pynvml" in sys.modules:
            try:
                return importlib.import_module("pynvml")
            except ModuleNotFoundError:
                raise absent("nvidia-ml-py is not installed") from None
        # The distribution `pynvml` hooks the import of this name and warns the user, who did not ask.
        # Under a name of our own the same file loads past the hook.
        found = importlib.machinery.PathFinder.find_spec("pynvml")
        if found is None or found.origin is None:
            raise absent("nvidia-ml-py is not installed")
        spec = importlib.util.spec_from_file_location(_OWN_NAME, found.origin)
        if spec is None or spec.loader is None:
            raise absent("nvidia-ml-py is not installed")
        module = importlib.util.module_from_spec(spec)
        sys.modules[_OWN_NAME] = module  # it looks itself up there
        spec.loader.exec_module(module)
        return module


def reason(error: Any) -> Missing:
    """Return what an `NVMLError` says, as the reason why something is missing."""
    code = int(error.value)
    advice = f": {_ADVICE[code]}" if code in _ADVICE else ""
    return Missing(_KINDS.get(code, "error"), f"{error} (NVML {code}){advice}")


def checked(value: int) -> int:
    """Return a number that can be one.

    Raises:
        Missing: it stands for no value.
    """
    if value in GARBAGE or value < 0:
        raise Missing("error", f"NVML answered {value:#x}, which stands for no value")
    return int(value)


def as_text(value: str | bytes) -> str:
    """Return text; versions of pynvml differ in whether it comes as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
