"""The command line of a Python interpreter, taken apart. Standard library only; starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

# Those after which a server that was started with them too can run the script as the interpreter would.
_LETTERS = frozenset("uOBEsSIPbqR")
_WITH_VALUE = ("-W", "-X")

# Read by libraries when they are imported, or by the interpreter when it starts: a fork comes too late for them.
_READ_AT_IMPORT = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "VECLIB_", "NUMEXPR_", "NUMBA_", "GOTO_"),
    *("CUDA_", "CUBLAS_", "CUDNN_", "NCCL_", "NVIDIA_", "HIP_", "ROCM_", "ROCR_", "HSA_", "ONEAPI_", "SYCL_", "ZE_"),
    *("TORCH", "PYTORCH_", "INDUCTOR_", "TRITON_", "TF_", "JAX_", "XLA_", "KERAS_", "LIGHTNING_", "PL_"),
    *("HF_", "TRANSFORMERS_", "DATASETS_", "TOKENIZERS_", "USE_", "MPL", "SKLEARN_", "SCIPY_", "NPY_", "NUMPY_"),
    *("PYTHON", "LD_", "MALLOC_", "GLIBC_", "LC_", "LANG", "COVERAGE_"),
)
# Read when the first operation needs a device, which no server ever does.
_READ_AT_FIRST_USE = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "ZE_AFFINITY_MASK",
    }
)


class Invocation(NamedTuple):
    """How an interpreter is called.

    Attributes:
        interpreter: The word that names it.
        options: Words of its own options.
        kind: Whether a script or a module (`-m`) runs.
        target: Path of the script, or name of the module, as it was given.
        arguments: Words for the program.
    """

    interpreter: str
    options: tuple[str, ...]
    kind: Literal["script", "module"]
    target: str
    arguments: tuple[str, ...]


def read_invocation(argv: Sequence[str]) -> Invocation | None:
    """Take a Python command line apart; `None` where a fork could not stand in for it, such as `-c`, `-i` or `-v`."""
    interpreter, *words = argv
    options: list[str] = []
    while words:
        word = words.pop(0)
        if word == "-m":
            return Invocation(interpreter, tuple(options), "module", words[0], tuple(words[1:])) if words else None
        if not word.startswith("-"):
            return Invocation(interpreter, tuple(options), "script", word, tuple(words))
        if word in _WITH_VALUE and words:
            word += words.pop(0)
        if word[:2] in _WITH_VALUE and len(word) > 2:
            if word.startswith("-Ximporttime"):
                return None
        elif word == "-" or not set(word[1:]) <= _LETTERS:
            return None
        options.append(word)
    return None


def matters_at_import(name: str) -> bool:
    """Tell whether libraries or the interpreter read this environment variable before a script could set it."""
    return name.startswith(_READ_AT_IMPORT) and name not in _READ_AT_FIRST_USE


def import_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a server must have been started with to stand in for a start with `environment`."""
    return {name: value for name, value in environment.items() if matters_at_import(name)}
